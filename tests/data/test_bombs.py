"""Files that promise, or unpack to, more than their set can have are refused before memory is taken."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isofire.data import CIFAR10, MNIST, load_cifar, load_idx, load_nmnist, load_nmnist_small, read_events, read_idx
from isofire.data.tar import read_tar
from isofire.errors import DataError

MIB = 1 << 20
HEADER = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28)


@contextmanager
def little_memory(most: int = 16 * MIB) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def sparse(path: Path, size: int, start: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(size)
    return path


def zeros_gz(path: Path, start: bytes, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as stream:
        stream.write(start)
        for _ in range(size // MIB):
            stream.write(bytes(MIB))
    return path


def test_idx_of_another_size_than_its_set(tmp_path: Path) -> None:
    other = struct.pack(">4B3I", 0, 0, 8, 3, 2_000_000, 28, 28)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        sparse(tmp_path / "mnist" / name, 2_000_000 * 784 + 16, other)
    with little_memory(), pytest.raises(DataError, match=r"shape \(60000, 28, 28\), got \(2000000, 28, 28\)"):
        load_idx(tmp_path, "train", MNIST, verify=False)


def test_idx_without_a_known_size(tmp_path: Path) -> None:
    path = zeros_gz(tmp_path / "images.gz", struct.pack(">4B3I", 0, 0, 8, 3, 0xFFFF, 0xFFFF, 0xFFFF), 64 * MIB)
    with little_memory(), pytest.raises(DataError, match="may hold 671,088,640 bytes"):
        read_idx(path, 3)
    with little_memory(), pytest.raises(DataError, match="may hold 1,000 bytes"):
        read_idx(zeros_gz(tmp_path / "b.gz", HEADER, 64 * MIB), 3, most=1000)
    # room is taken as bytes come
    short = tmp_path / "short.gz"
    short.write_bytes(gzip.compress(HEADER + bytes(100)))
    with little_memory(4 * MIB), pytest.raises(DataError, match="needs 47040000 bytes, got 100"):
        read_idx(short, 3)


def test_more_in_an_idx_file_than_its_header_says(tmp_path: Path) -> None:
    small = struct.pack(">4B3I", 0, 0, 8, 3, 1, 28, 28)
    with little_memory(), pytest.raises(DataError, match="needs 784 bytes, got more"):
        read_idx(zeros_gz(tmp_path / "images.gz", small, 256 * MIB), 3)


def test_cifar_of_twenty_gigabytes(tmp_path: Path) -> None:
    for name in CIFAR10.binary_files["test"]:
        sparse(CIFAR10.binary.target(tmp_path) / name, 20 << 30)
    with little_memory(), pytest.raises(DataError, match="21,474,836,480 bytes, where 30,730,000 are the most"):
        load_cifar(tmp_path, "test", verify=False)
    root = tmp_path / "pickled"
    for name in CIFAR10.pickled_files["test"]:
        sparse(CIFAR10.pickled.target(root) / name, 20 << 30)
    with little_memory(), pytest.raises(DataError, match="are the most that can be right"):
        load_cifar(root, "test")


def test_a_recording_of_many_gigabytes(tmp_path: Path) -> None:
    with little_memory(), pytest.raises(DataError, match="are the most that can be right"):
        read_events(sparse(tmp_path / "a.bin", 5 << 32))


def sparse_member(name: str, size: int) -> bytes:
    """A member of which the archive holds nothing, and which unpacks to `size` zeros (old GNU form)."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def test_a_sparse_tar(tmp_path: Path) -> None:
    path = tmp_path / "n-mnist" / "nmnist-small.tar"
    path.parent.mkdir()
    path.write_bytes(sparse_member("7.bs2", 6 << 30))
    with tarfile.open(path) as tar:
        assert [(member.size, member.issparse()) for member in tar] == [(6 << 30, True)]
    with little_memory(), pytest.raises(DataError, match=r"7\.bs2 has holes"):
        load_nmnist_small(tmp_path, "train")


@pytest.mark.parametrize("name", ["7.bs2", "other"])
def test_a_compressed_tar_that_unpacks_to_much(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 256 * MIB
        tar.addfile(info, io.BufferedReader(Zeros()))
    with little_memory(128 * MIB), pytest.raises(DataError, match="unpacks to more than 33,554,432 bytes"):
        read_tar(path, (".bs2",), 32 * MIB)


class Zeros(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        return len(buffer)


def test_a_tar_that_is_damaged_inside_its_compression(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("7.bs2")
        info.size = 100_000
        tar.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(100_000)))
    whole = (tmp_path / "a.tar.gz").read_bytes()
    for data in (whole[:-50_000], whole[:50_000] + b"\xff" * 40 + whole[50_040:], whole[:20], whole[:3]):
        (tmp_path / "a.tar.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read .*a\.tar\.gz"):
            read_tar(tmp_path / "a.tar.gz", (".bs2",), MIB)


def test_headers_of_a_tar_that_call_each_other(tmp_path: Path) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "a.tar").write_bytes((name.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 5000)
    with pytest.raises(DataError, match="cannot read"):
        read_tar(tmp_path / "a.tar", (".bs2",), 64 * MIB)


def test_a_list_that_names_one_recording_a_million_times(tmp_path: Path) -> None:
    folder = tmp_path / "n-mnist" / "nmnist-small"
    folder.mkdir(parents=True)
    (folder / "7.bs2").write_bytes(bytes(5) * 10_000)
    (folder / "test100.txt").write_text("7 4\n" * 100_000)
    with little_memory(64 * MIB), pytest.raises(DataError, match="must hold 100 recordings, got 100000"):
        load_nmnist_small(tmp_path, "test")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX has these kinds of files")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("mnist/t10k-images-idx3-ubyte", lambda root: load_idx(root, "test", MNIST)),
        ("mnist/t10k-images-idx3-ubyte.gz", lambda root: load_idx(root, "test", MNIST)),
        ("cifar-10-batches-bin/test_batch.bin", lambda root: load_cifar(root, "test")),
        ("cifar-10-batches-py/test_batch", lambda root: load_cifar(root, "test")),
        ("n-mnist/Test/4/1.bin", lambda root: load_nmnist(root, "test")),
        ("n-mnist/nmnist-small.tar", lambda root: load_nmnist_small(root, "test")),
        ("n-mnist/nmnist-small/test100.txt", lambda root: load_nmnist_small(root, "test")),
    ],
)
def test_pipes_and_loops_in_place_of_files(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    (tmp_path / "mnist").mkdir(exist_ok=True)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is a pipe"):
        read(tmp_path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(DataError):
        read(tmp_path)


def test_roots_that_no_file_system_has(tmp_path: Path) -> None:
    for root in (tmp_path / ("a" * 300), "a\0b"):
        for read in (
            lambda root: load_idx(root, "test", MNIST),
            lambda root: load_cifar(root, "test"),
            lambda root: load_nmnist(root, "test"),
            lambda root: load_nmnist_small(root, "test"),
        ):
            with pytest.raises(DataError, match=r"is not (in|at)"):
                read(root)


def test_folders_are_taken_as_text(tmp_path: Path) -> None:
    spec = replace(MNIST, counts={"train": 2, "test": 2}, side=2)
    for where in ("mnist", "."):
        folder = tmp_path / where
        folder.mkdir(exist_ok=True)
        (folder / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2, 2, 2) + bytes(range(8)))
        (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\1\2")
        found = load_idx(str(tmp_path), "test", spec, verify=False)
        assert found.images.flatten().tolist() == list(range(8))
        assert read_idx(str(folder / "t10k-labels-idx1-ubyte"), 1).tolist() == [1, 2]
        # the second time they lie in the root itself, beside no folder of the set
        if where == "mnist":
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    (tmp_path / "a.bin").write_bytes(bytes([3, 5, 0x80, 1, 0]))
    assert read_events(str(tmp_path / "a.bin")).t_us.tolist() == [256]


@pytest.mark.parametrize(
    ("name", "start", "told"),
    [
        ("a.bin", b"#!AER-DAT2.0\r\n# This is a raw AE data file", "AEDAT 2"),
        ("a.bin", b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "AEDAT 3"),
        ("a.bin", b"#!AER-DAT4.0\r\n", "AEDAT 4"),
        ("a.bin", b"% Data file containing CD events.\n% Version 2\n", "ATIS"),
        ("a.bin", b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "MATLAB"),
        ("a.bin", b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
        ("a.mat", bytes(5), "by its name"),
        ("a.aedat4", bytes(5), "by its name"),
    ],
)
def test_other_formats_of_event_cameras_are_named(tmp_path: Path, name: str, start: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(DataError, match=rf"is another format.*{told}.*this reads N-MNIST's \.bin") as caught:
        read_events(tmp_path / name)
    assert "altered" not in str(caught.value)


def test_a_folder_of_another_format(tmp_path: Path) -> None:
    folder = tmp_path / "n-mnist" / "Test" / "4"
    folder.mkdir(parents=True)
    (folder / "1.dat").write_bytes(b"% ")
    with pytest.raises(DataError, match=r"no \.bin files .*1\.dat there is another format"):
        load_nmnist(tmp_path, "test")
