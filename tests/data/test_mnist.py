from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isofire.data import FASHION_MNIST, MNIST, IdxSpec, load_idx
from isofire.errors import DataError, SpecError


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, IdxSpec, dict[str, np.ndarray]]:
    """Six train and four test images of 5x5, in MNIST's files, one of them not compressed."""
    generator = np.random.default_rng(1)
    arrays = {
        "train-images-idx3-ubyte": generator.integers(0, 256, (6, 5, 5), np.uint8),
        "train-labels-idx1-ubyte": np.array([0, 9, 1, 2, 5, 5], np.uint8),
        "t10k-images-idx3-ubyte": generator.integers(0, 256, (4, 5, 5), np.uint8),
        "t10k-labels-idx1-ubyte": np.array([3, 3, 1, 0], np.uint8),
    }
    folder = tmp_path / "mnist"
    folder.mkdir()
    for stem, array in arrays.items():
        (folder / f"{stem}.gz").write_bytes(gzip.compress(encode(array)))
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    (folder / "t10k-images-idx3-ubyte").write_bytes(encode(arrays["t10k-images-idx3-ubyte"]))
    contents = {stem: hashlib.md5(encode(array)).hexdigest() for stem, array in arrays.items()}
    return tmp_path, replace(MNIST, contents=contents, counts={"train": 6, "test": 4}, side=5), arrays


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_loads_both_splits(toy: tuple[Path, IdxSpec, dict[str, np.ndarray]], split: str, prefix: str) -> None:
    root, spec, arrays = toy
    data = load_idx(root, split, spec)
    np.testing.assert_array_equal(data.images[:, 0].numpy(), arrays[f"{prefix}-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.labels.numpy(), arrays[f"{prefix}-labels-idx1-ubyte"])
    assert (data.name, data.split, data.images.shape[1:]) == ("mnist", split, (1, 5, 5))
    assert (data.mean, data.std) == ((0.1307,), (0.3081,))


def test_altered_contents_need_verify_off(toy: tuple[Path, IdxSpec, dict[str, np.ndarray]]) -> None:
    root, spec, arrays = toy
    changed = arrays["train-labels-idx1-ubyte"][::-1].copy()
    (root / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encode(changed)))
    with pytest.raises(DataError, match="md5 must be"):
        load_idx(root, "train", spec)
    assert load_idx(root, "train", spec, verify=False).labels.tolist() == changed.tolist()


def test_wrong_counts_sizes_and_labels_are_refused(toy: tuple[Path, IdxSpec, dict[str, np.ndarray]]) -> None:
    root, spec, _ = toy
    with pytest.raises(DataError, match=r"shape \(7, 5, 5\), got \(6, 5, 5\)"):
        load_idx(root, "train", replace(spec, counts={"train": 7}))
    with pytest.raises(DataError, match=r"shape \(6, 28, 28\)"):
        load_idx(root, "train", replace(spec, side=28))
    labels = root / "mnist" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(encode(np.zeros(5, np.uint8))))
    with pytest.raises(DataError, match=r"shape \(6,\), got \(5,\)"):
        load_idx(root, "train", spec, verify=False)
    labels.write_bytes(gzip.compress(encode(np.full(6, 10, np.uint8))))
    with pytest.raises(DataError, match=r"0\.\.9, got 10"):
        load_idx(root, "train", spec, verify=False)


@pytest.mark.parametrize("spec", [MNIST, FASHION_MNIST])
def test_says_what_to_fetch(tmp_path: Path, spec: IdxSpec) -> None:
    folder = tmp_path / spec.name
    folder.mkdir()
    (folder / "t10k-labels-idx1-ubyte.gz").touch()
    with pytest.raises(DataError) as caught:
        load_idx(tmp_path, "test", spec)
    message = str(caught.value)
    name = "t10k-images-idx3-ubyte"
    for part in (f"{spec.url}{name}.gz", spec.archives[name], str(folder / f"{name}.gz")):
        assert part in message
    assert "labels" not in message
    with pytest.raises(SpecError, match="hold_out"):
        load_idx(tmp_path, "valid", spec)


@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_real_fashion_mnist(fashion_mnist_root: Path, split: str, count: int) -> None:
    data = load_idx(fashion_mnist_root, split, FASHION_MNIST)
    assert tuple(data.images.shape) == (count, 1, 28, 28)
    assert torch.bincount(data.labels).tolist() == [count // 10] * 10
    if split == "train":
        values, counts = np.arange(256) / 255, np.bincount(data.images.numpy().ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        assert mean == pytest.approx(data.mean[0], abs=5e-5)
        assert np.average((values - mean) ** 2, weights=counts) ** 0.5 == pytest.approx(data.std[0], abs=5e-5)
