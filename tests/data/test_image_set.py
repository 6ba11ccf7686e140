from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from isofire.data import ImageSet
from isofire.errors import DataError, SpecError

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


def make_set(count: int = 10, split: str = "train") -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 4, 5), generator=generator, dtype=torch.uint8)
    return ImageSet("toy", split, images, torch.arange(count) % 3, ("a", "b", "c"), MEAN, STD)


def reference(images: torch.Tensor) -> np.ndarray:
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (images.numpy() / 255 - mean) / std


def test_batches_hold_normalized_images_and_their_labels() -> None:
    data = make_set()
    batches = data.batches(4)
    assert len(batches) == 3
    for _ in range(2):
        images = torch.cat([images for images, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        assert images.dtype == torch.float32
        np.testing.assert_allclose(images.numpy(), reference(data.images), atol=2e-6)
        assert torch.equal(labels, data.labels)


def test_batches_leave_the_stored_bytes_alone() -> None:
    data = make_set()
    before = data.images.clone()
    for images, labels in data.batches(4):
        images.zero_()
        labels.add_(0)
    assert torch.equal(data.images, before)


def test_channels_last_changes_the_layout_only() -> None:
    data = make_set()
    for plain, last in zip(data.batches(4), data.batches(4, channels_last=True), strict=True):
        assert last[0].is_contiguous(memory_format=torch.channels_last)
        assert not last[0].is_contiguous()
        assert torch.equal(plain[0], last[0])


def test_normalize_takes_bytes_only() -> None:
    data = make_set()
    np.testing.assert_allclose(data.normalize(data.images).numpy(), reference(data.images), atol=2e-6)
    with pytest.raises(DataError, match=r"uint8 images in 0\.\.255, got torch\.float32"):
        data.normalize(data.images.float())


def test_normalize_keeps_its_constants() -> None:
    data = make_set()
    assert data._scale_and_shift(torch.device("cpu"))[0] is data._scale_and_shift(torch.device("cpu"))[0]


def test_take_and_first() -> None:
    data = make_set()
    picked = data.take([7, 2, 2])
    assert torch.equal(picked.images, data.images[[7, 2, 2]])
    assert picked.labels.tolist() == [1, 2, 2]
    assert torch.equal(data.take(torch.tensor([3])).images, data.images[3:4])
    assert torch.equal(data.take(np.array([9, 0])).images, data.images[[9, 0]])
    assert torch.equal(data.first(4).images, data.images[:4])
    assert (len(data.first(4)), data.first(4).split, len(data)) == (4, "train", 10)


@pytest.mark.parametrize(
    ("indices", "match"),
    [
        ([0, 10], r"0\.\.9, got 10"),
        ([-1], r"0\.\.9, got -1"),
        ([], "at least one"),
        ([0.5], "whole numbers"),
        (torch.ones(10, dtype=torch.bool), "nonzero"),
        (torch.zeros(2, 2, dtype=torch.int64), r"\[2, 2\]"),
    ],
)
def test_take_refuses(indices: object, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        make_set().take(indices)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, 11, -1])
def test_first_refuses_what_is_not_there(n: int) -> None:
    with pytest.raises(SpecError, match=rf"n must lie in 1\.\.10 \(the set's size\), got {n}"):
        make_set().first(n)


def test_fingerprint_changes_with_pixel_label_split_shape_normalization_and_classes() -> None:
    data = make_set()
    pixel, label = data.images.clone(), data.labels.clone()
    pixel[9, 2, 3, 4] ^= 1
    label[0] = 2
    others = [
        replace(data, images=pixel),
        replace(data, labels=label),
        replace(data, split="valid"),
        replace(data, images=data.images.reshape(10, 3, 5, 4)),
        data.first(9),
        replace(data, mean=(0.5, 0.25, 0.2)),
        replace(data, std=(0.2, 0.3, 0.5)),
        replace(data, mean=STD, std=MEAN),
        replace(data, classes=("a", "b", "d")),
        replace(data, classes=("a", "b", "c", "d")),
    ]
    prints = {data.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 1 + len(others)
    assert len(data.fingerprint) == 64


def test_fingerprint_depends_on_contents_alone() -> None:
    data = make_set()
    last = replace(data, images=data.images.contiguous(memory_format=torch.channels_last), name="other")
    assert last.fingerprint == make_set().fingerprint
    assert data.fingerprint is data.fingerprint


def test_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        make_set().split = "test"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"split": "dev"}, SpecError, "one of train, valid, test, got 'dev'"),
        ({"images": torch.zeros(10, 3, 4, 5)}, DataError, r"uint8 of shape \[N, C, H, W\], got torch.float32"),
        ({"images": torch.zeros(10, 4, 5, dtype=torch.uint8)}, DataError, r"\[10, 4, 5\]"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, DataError, "10 samples and 9 labels"),
        ({"labels": torch.zeros(10, dtype=torch.int32)}, DataError, "int64 of shape"),
        ({"labels": torch.full((10,), 3)}, DataError, r"0\.\.2, got 3"),
        ({"labels": torch.full((10,), -1)}, DataError, r"0\.\.2, got -1"),
        ({"mean": (0.5,)}, DataError, "one value a channel, got 1 and 3 for 3 channels"),
        ({"std": (1.0, 1.0, 0.0)}, DataError, "std must be above 0"),
        (
            {"images": torch.zeros(0, 3, 4, 5, dtype=torch.uint8), "labels": torch.zeros(0, dtype=torch.int64)},
            DataError,
            "at least one sample",
        ),
    ],
)
def test_refuses_parts_that_do_not_fit(changes: dict, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        replace(make_set(), **changes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_a_gpu() -> None:
    data = make_set()
    for stored in (data, data.to("cuda")):
        for host, gpu in zip(data.batches(4), stored.batches(4, "cuda"), strict=True):
            assert gpu[0].device.type == gpu[1].device.type == "cuda"
            torch.testing.assert_close(gpu[0].cpu(), host[0])
    assert data.to("cuda").fingerprint == data.fingerprint
