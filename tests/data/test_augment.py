from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.data import Augment
from isofire.errors import DataError, SpecError

HEIGHT, WIDTH = 6, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, channels: int = 2, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """Equal images whose pixels all differ and are above 0."""
    image = torch.arange(1, channels * height * width + 1, dtype=torch.uint8).view(1, channels, height, width)
    return image.repeat(count, 1, 1, 1)


def all_crops(image: np.ndarray, pad: int, border: str) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of the padded image, plain and mirrored, made by NumPy."""
    mode = {"zeros": "constant", "reflect": "reflect"}[border]
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode=mode)  # type: ignore[call-overload]
    crops = {}
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            crop = padded[:, y : y + HEIGHT, x : x + WIDTH]
            crops[crop.tobytes()] = (y, x, False)
            crops[crop[:, :, ::-1].tobytes()] = (y, x, True)
    return crops


@pytest.mark.parametrize("border", ["zeros", "reflect"])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_every_result_is_a_crop_of_the_padded_image_and_all_are_as_likely(border: str, pad: int) -> None:
    images = numbered(4000)
    crops = all_crops(images[0].numpy(), pad, border)
    kinds = 2 * (2 * pad + 1) ** 2
    assert len(crops) == kinds
    results = Augment(pad=pad, border=border)(images, generator()).numpy()  # type: ignore[arg-type]
    hits = Counter(crops[result.tobytes()] for result in results)
    expected = 4000 / kinds
    assert set(hits) == set(crops.values())
    assert all(abs(hit - expected) < 6 * expected**0.5 for hit in hits.values())


def test_without_settings_nothing_changes() -> None:
    images = numbered(5)
    result = Augment(pad=0, flip=False)(images, generator())
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


@given(st.integers(1, 8), st.integers(0, 2**31), st.booleans())
@settings(max_examples=60, deadline=None)
def test_cutout_is_one_clipped_square(side: int, seed: int, last: bool) -> None:
    images = numbered(20).float()
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    results = Augment(pad=0, flip=False, cutout=side)(images, generator(seed))
    for before, after in zip(images.numpy(), results.numpy(), strict=True):
        gone = after == 0
        assert (gone == gone[:1]).all(), "every channel loses the same pixels"
        rows, columns = np.flatnonzero(gone[0].any(1)), np.flatnonzero(gone[0].any(0))
        assert gone[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        for inside, size in ((rows, HEIGHT), (columns, WIDTH)):
            centres = range(size)
            squares = [[i for i in centres if c - side // 2 <= i < c - side // 2 + side] for c in centres]
            assert inside.tolist() in squares
        assert (after[~gone] == before[~gone]).all()


def test_cutout_centres_are_spread_evenly() -> None:
    results = Augment(pad=0, flip=False, cutout=1)(numbered(8400), generator())
    hits = (results[:, 0] == 0).sum(0)
    assert hits.sum() == 8400
    # multinomial over 42 pixels: mean 200, standard deviation 14
    assert (hits.sub(200).abs() < 80).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int16])
@pytest.mark.parametrize("augment", [Augment(2), Augment(2, cutout=3), Augment(2, border="reflect", cutout=2)])
def test_types_and_layouts_change_nothing_but_themselves(dtype: torch.dtype, augment: Augment) -> None:
    images = numbered(30).to(dtype)
    plain = augment(images, generator(4))
    last = augment(images.contiguous(memory_format=torch.channels_last), generator(4))
    assert plain.dtype == last.dtype == dtype
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)
    assert torch.equal(plain.double(), augment(numbered(30).double(), generator(4)))


def test_strided_input_and_one_channel() -> None:
    images = numbered(10, channels=1)
    strided = torch.cat([images, images], dim=3)[..., ::2][..., :WIDTH]
    assert torch.equal(Augment(2)(strided, generator()), Augment(2)(strided.contiguous(), generator()))


def test_the_generator_is_the_only_randomness() -> None:
    images = numbered(50)
    augment = Augment(2, cutout=3)
    state = torch.random.get_rng_state()
    first, again, other = (augment(images, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    same = generator(5)
    assert torch.equal(augment(images, same), first)
    assert not torch.equal(augment(images, same), first)


def test_the_input_is_left_alone() -> None:
    images = numbered(5)
    Augment(2, cutout=4)(images, generator())
    assert torch.equal(images, numbered(5))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"pad": -1}, "pad must be 0 pixels or more, got -1"),
        ({"cutout": -2}, "cutout must be 0 pixels or more, got -2"),
        ({"border": "wrap"}, "border must be 'zeros' or 'reflect', got 'wrap'"),
    ],
)
def test_refuses_bad_settings(settings: dict, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        Augment(**settings)


def test_refuses_what_it_cannot_augment() -> None:
    with pytest.raises(DataError, match=r"\[N, C, H, W\], got \[2, 6, 7\]"):
        Augment()(numbered(1)[0], generator())
    with pytest.raises(DataError, match="larger than pad=6, got 6x7"):
        Augment(6, border="reflect")(numbered(1), generator())
    with pytest.raises(SpecError, match="the generator must be on meta"):
        Augment()(numbered(1).to("meta"), generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_works_on_a_gpu() -> None:
    images = numbered(200)
    crops = all_crops(images[0].numpy(), 2, "zeros")
    results = Augment(2)(images.cuda(), torch.Generator("cuda").manual_seed(0))
    assert results.device.type == "cuda"
    assert {result.tobytes() for result in results.cpu().numpy()} <= set(crops)
