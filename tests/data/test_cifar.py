from __future__ import annotations

import hashlib
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isofire.data import CIFAR10, CIFAR100, CifarSpec, load_cifar
from isofire.errors import DataError, SpecError

SPECS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
PER_FILE = 12


class Contents:
    """Made-up pixels and labels for every file of a spec."""

    def __init__(self, spec: CifarSpec) -> None:
        generator = np.random.default_rng(7)
        files = [(s, i) for s, names in spec.binary_files.items() for i in range(len(names))]
        self.pixels = {key: generator.integers(0, 256, (PER_FILE, 3072), np.uint8) for key in files}
        self.fine = {key: generator.integers(0, len(spec.classes), PER_FILE, np.uint8) for key in files}
        self.coarse = {key: generator.integers(0, 20, PER_FILE, np.uint8) for key in files}


def write_binary(root: Path, spec: CifarSpec, contents: Contents) -> None:
    folder = spec.binary.target(root)
    folder.mkdir()
    for split, names in spec.binary_files.items():
        for i, name in enumerate(names):
            key = (split, i)
            label_columns = (
                [contents.fine[key]] if not spec.coarse_classes else [contents.coarse[key], contents.fine[key]]
            )
            np.column_stack([*label_columns, contents.pixels[key]]).tofile(folder / name)


def write_pickled(root: Path, spec: CifarSpec, contents: Contents) -> None:
    folder = spec.pickled.target(root)
    folder.mkdir()
    for split, names in spec.pickled_files.items():
        for i, name in enumerate(names):
            key = (split, i)
            lists = {"labels": contents.fine[key]}
            if spec.coarse_classes:
                lists = {"fine_labels": contents.fine[key], "coarse_labels": contents.coarse[key]}
            (folder / name).write_bytes(python2_pickle(contents.pixels[key], lists))


def python2_pickle(pixels: np.ndarray, lists: dict[str, np.ndarray]) -> bytes:
    """Write a batch with the opcodes that Python 2's cPickle, the archives' writer, uses in protocol 2."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    rows, columns = pixels.shape
    u1 = (
        b"cnumpy\ndtype\n"
        + text("u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text("|")
        + b"NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    raw = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    array += b"(K\x01" + number(rows) + number(columns) + b"\x86" + u1 + b"\x89" + raw + b"tb"
    items = text("data") + array + text("batch_label") + text("training batch 1 of 5")
    for name, labels in lists.items():
        items += text(name) + b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return b"\x80\x02}(" + items + b"u."


def with_checksums(root: Path, spec: CifarSpec) -> CifarSpec:
    """Put the checksums of the made-up files in the place of the published ones."""
    folders = [layout.target(root) for layout in (spec.binary, spec.pickled) if layout.target(root).is_dir()]
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for folder in folders for path in folder.iterdir()}
    return replace(spec, checksums=sums, per_file=dict.fromkeys(spec.per_file, PER_FILE))


@pytest.fixture(params=["cifar10", "cifar100"])
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, CifarSpec, Contents]:
    """Both layouts of a small made-up set, each under a root of its own: binary/ and pickled/."""
    spec = SPECS[request.param]
    contents = Contents(spec)
    for name, write in (("binary", write_binary), ("pickled", write_pickled)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, spec, contents)
    return tmp_path, spec, contents


def test_the_made_up_pickle_is_what_python_reads() -> None:
    pixels = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)
    batch = pickle.loads(python2_pickle(pixels, {"labels": np.array([3, 250])}), encoding="latin1")
    np.testing.assert_array_equal(batch["data"], pixels)
    assert batch["labels"] == [3, 250]


@pytest.mark.parametrize("layout", ["binary", "pickled"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_loads_every_record(toy: tuple[Path, CifarSpec, Contents], layout: str, split: str) -> None:
    root, spec, contents = toy
    data = load_cifar(root / layout, split, with_checksums(root / layout, spec))
    keys = [(split, i) for i in range(len(spec.binary_files[split]))]
    pixels = np.concatenate([contents.pixels[key] for key in keys]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(data.images.numpy(), pixels)
    assert data.labels.tolist() == [label for key in keys for label in contents.fine[key].tolist()]
    assert (data.name, data.split, data.classes, data.mean) == (spec.name, split, spec.classes, spec.mean)


def test_both_layouts_give_the_same_set(toy: tuple[Path, CifarSpec, Contents]) -> None:
    root, spec, _ = toy
    sets = [load_cifar(root / name, "train", with_checksums(root / name, spec)) for name in ("binary", "pickled")]
    assert sets[0].fingerprint == sets[1].fingerprint


@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_coarse_labels(toy: tuple[Path, CifarSpec, Contents], layout: str) -> None:
    root, spec, contents = toy
    known = with_checksums(root / layout, spec)
    if not spec.coarse_classes:
        with pytest.raises(SpecError, match="cifar10 has none"):
            load_cifar(root / layout, "train", known, coarse=True)
        return
    data = load_cifar(root / layout, "train", known, coarse=True)
    assert data.labels.tolist() == contents.coarse["train", 0].tolist()
    assert (data.name, len(data.classes)) == ("cifar100-coarse", 20)


def test_a_record_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(bytes([6]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes(range(256)) * 4)
    spec = replace(CIFAR10, per_file={"test": 1})
    data = load_cifar(tmp_path, "test", spec, verify=False)
    assert data.classes[int(data.labels[0])] == "frog"
    assert data.images[0].float().mean((1, 2)).tolist() == [1, 2, 127.5]
    assert data.images[0, 2, 1, :3].tolist() == [32, 33, 34]


def test_altered_bytes_fail_the_checksum_and_binary_can_do_without(toy: tuple[Path, CifarSpec, Contents]) -> None:
    root, spec, _ = toy
    for layout, files in (("binary", spec.binary_files), ("pickled", spec.pickled_files)):
        known = with_checksums(root / layout, spec)
        path = next((root / layout).iterdir()) / files["test"][0]
        data = bytearray(path.read_bytes())
        data[2000] ^= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match="md5 must be") as caught:
            load_cifar(root / layout, "test", known)
        assert str(path) in str(caught.value)
    assert len(load_cifar(root / "binary", "test", known, verify=False)) == PER_FILE
    with pytest.raises(SpecError, match="verify=False is for the binary layout only"):
        load_cifar(root / "pickled", "test", known, verify=False)


def test_bad_binaries_are_refused_without_the_checksum_too(toy: tuple[Path, CifarSpec, Contents]) -> None:
    root, spec, _ = toy
    known = with_checksums(root / "binary", spec)
    path = spec.binary.target(root / "binary") / spec.binary_files["test"][0]
    whole = path.read_bytes()
    record = len(whole) // PER_FILE
    for data, match in (
        (whole[:-1], f"got {len(whole) - 1} "),
        (whole[:-record], f"must hold 12 records of {record} bytes"),
        (whole + whole[:record], f"{len(whole):,} are the most that can be right"),
        (b"", "got 0 "),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=match):
            load_cifar(root / "binary", "test", known, verify=False)
    label = len(spec.classes)
    path.write_bytes(bytes([label]) * (record - 3072) + whole[record - 3072 :])
    with pytest.raises(DataError, match=rf"labels must lie in 0\.\.{label - 1}, got {label}") as caught:
        load_cifar(root / "binary", "test", known, verify=False)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=f"cannot read .*{path.name}.*{spec.binary.md5}"):
        load_cifar(root / "binary", "test", known, verify=False)


def test_a_malicious_pickle_is_never_opened_and_would_run_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match=r"md5 must be 40351d587109b95175f43aff81a1287e.*it is not opened"):
        load_cifar(tmp_path, "test", CIFAR10)
    with pytest.raises(DataError, match="mkdir, which no CIFAR batch needs"):
        load_cifar(tmp_path, "test", with_checksums(tmp_path, CIFAR10))
    with pytest.raises(DataError, match="no checksum is known for test_batch"):
        load_cifar(tmp_path, "test", replace(CIFAR10, checksums={}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({}, "'data' must be a uint8 array"),
        ({b"data": [1]}, "'data' must be a uint8 array"),
        ({b"data": np.zeros((PER_FILE, 3071), np.uint8)}, r"shape \(12, 3072\)"),
        ({b"data": np.zeros((PER_FILE, 3072), np.int64)}, "'data' must be a uint8 array"),
        ({b"data": np.zeros((PER_FILE, 3072), np.uint8)}, "'labels' must be a list of 12"),
        ({b"data": np.zeros((PER_FILE, 3072), np.uint8), b"labels": [1] * 11}, "'labels' must be a list of 12"),
        ({b"data": np.zeros((PER_FILE, 3072), np.uint8), b"labels": ["1"] * 12}, "'labels' must be a list of 12"),
        ({b"data": np.zeros((PER_FILE, 3072), np.uint8), b"labels": [10] * 12}, r"0\.\.9, got 10"),
        ({b"data": np.zeros((PER_FILE, 3072), np.uint8), b"labels": [-1] * 12}, r"0\.\.9, got -1"),
    ],
)
def test_a_pickle_must_hold_a_batch(tmp_path: Path, batch: dict, match: str) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match=match):
        load_cifar(tmp_path, "test", with_checksums(tmp_path, CIFAR10))


@pytest.mark.parametrize("spec", [CIFAR10, CIFAR100])
def test_says_what_to_fetch(tmp_path: Path, spec: CifarSpec) -> None:
    with pytest.raises(DataError) as caught:
        load_cifar(tmp_path, "train", spec)
    for part in (spec.binary.url, spec.binary.md5, str(tmp_path / spec.binary.name), f"{spec.binary.unpacks_to}/"):
        assert part in str(caught.value)
    with pytest.raises(SpecError, match="hold_out"):
        load_cifar(tmp_path, "valid", spec)


def test_class_lists_are_complete_and_sorted() -> None:
    assert (len(CIFAR10.classes), len(CIFAR100.classes), len(CIFAR100.coarse_classes)) == (10, 100, 20)
    for names in (CIFAR10.classes, CIFAR100.classes):
        assert list(names) == sorted(set(names))


@pytest.mark.slow
def test_real_cifar10(cifar10_root: Path) -> None:
    train, test = (load_cifar(cifar10_root, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (50_000, 10_000)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    values = np.arange(256) / 255
    for channel, published in enumerate((0.49140, 0.48216, 0.44653)):
        planes = train.images[:, channel].numpy()
        counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.array_split(planes, 10))
        mean = np.average(values, weights=counts)
        assert mean == pytest.approx(published, abs=5e-6)
        assert mean == pytest.approx(train.mean[channel], abs=5e-6)
        spread = np.average((values - mean) ** 2, weights=counts) ** 0.5
        assert spread == pytest.approx(train.std[channel], abs=5e-6)
