"""A file that is simply another one than what is read is named, with the way in; nobody is told to remove it."""

from __future__ import annotations

import bz2
import gzip
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from isofire.data import MNIST, load, load_nmnist, load_nmnist_small, read_events, read_idx
from isofire.data.other_formats import other_format
from isofire.errors import DataError

EVENT = bytes([3, 5, 0x80, 1, 0])
IDX = struct.pack(">4B3I", 0, 0, 8, 3, 2, 2, 2) + bytes(range(8))
LABELS = struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\1\2"
FLOATS = struct.pack(">4B3I", 0, 0, 13, 3, 2, 2, 2) + bytes(32)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(EVENT * 9, mtime=0), "compressed by gzip; unpack it first"),
        (bz2.compress(EVENT * 9), "compressed by bzip2; unpack it first"),
        (b"\xfd7zXZ\0" + bytes(50), "compressed by xz; unpack it first"),
        (b"(\xb5/\xfd" + bytes(50), "compressed by Zstandard; unpack it first"),
        (b"12 3 1 100\n13 4 0 200\n", "a text file; this reads N-MNIST's .bin; convert it"),
        (b"x,y,t,p\n1,2,3,4\n9,8,7,6\n1\n", "a text file"),
        (IDX, "an idx file of unsigned bytes with 3 axes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG image"),
    ],
)
@pytest.mark.parametrize("name", ["a.bin", "a.bin.gz", "a"])
def test_events(tmp_path: Path, content: bytes, told: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_events(tmp_path / name)
    assert f"{tmp_path / name} is another format, {told}" in str(caught.value)
    assert not [word for word in ("altered", "truncated", "fetch", "remove", "delete") if word in str(caught.value)]


def test_a_recording_without_events_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.bin is empty; copy it again, or leave it out"):
        read_events(tmp_path / "a.bin")


def test_events_of_a_larger_sensor_are_not_called_altered_alone(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(EVENT + bytes([200, 100, 0x80, 2, 0]))
    with pytest.raises(DataError, match=r"x must lie in 0\.\.33, got 200 .* or of a larger sensor"):
        read_events(tmp_path / "a.bin")
    assert read_events(tmp_path / "a.bin", height=180, width=240).x.tolist() == [3, 200]


@pytest.mark.parametrize("name", ["a.gz", "a.idx", "a"])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_is_read_whatever_its_name(tmp_path: Path, name: str, packed: bool) -> None:
    (tmp_path / name).write_bytes(gzip.compress(IDX, mtime=0) if packed else IDX)
    assert read_idx(tmp_path / name, 3).ravel().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (LABELS, "an idx file of unsigned bytes with 1 axis; this reads idx files of unsigned bytes with 3 axes"),
        (FLOATS, "an idx file of float32 with 3 axes; this reads idx files of unsigned bytes"),
        (gzip.compress(LABELS, mtime=0), "an idx file of unsigned bytes with 1 axis"),
        (bz2.compress(IDX), "compressed by bzip2; unpack it first"),
        (b"\x93NUMPY\1\0" + bytes(60), "a NumPy array; this reads idx files .* convert it, or give data of your own"),
        (b"PK\3\4" + bytes(60), "a zip or .npz archive"),
        (b"5,0,0,12\n", "a text file"),
    ],
)
def test_idx(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=rf"starts with 00 00 08 03, .*/a\); it is another format, {told}"):
        read_idx(tmp_path / "a", 3)


def test_damaged_gzip_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(np.random.default_rng(0).bytes(4000))[:-9])
    with pytest.raises(DataError, match=r"it is|compressed by gzip, and damaged"):
        read_idx(tmp_path / "a", 3)
    (tmp_path / "a").write_bytes(gzip.compress(IDX, mtime=0)[:-9])
    with pytest.raises(DataError, match=r"compressed by gzip, and damaged: .*; take a whole copy"):
        read_idx(tmp_path / "a", 3)


def test_what_cannot_be_opened_is_no_reason_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is a folder, not a file") as caught:
        read_idx(tmp_path, 3)
    assert "fetch" not in str(caught.value)


def test_compressed_recordings_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "n-mnist" / "Test" / "4"
    folder.mkdir(parents=True)
    (folder / "1.bin.gz").write_bytes(gzip.compress(EVENT, mtime=0))
    with pytest.raises(DataError, match=r"no \.bin files .*1\.bin\.gz there is compressed: unpack it first"):
        load_nmnist(tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"PK\3\4" + bytes(600), "a zip or .npz archive"), (b"7z\xbc\xaf" + bytes(600), "compressed by 7-Zip")],
)
def test_an_archive_that_is_no_tar(tmp_path: Path, content: bytes, told: str) -> None:
    place = tmp_path / "n-mnist" / "nmnist-small.tar"
    place.parent.mkdir()
    place.write_bytes(content)
    with pytest.raises(DataError, match=rf"nmnist-small\.tar is another format, {told}") as caught:
        load_nmnist_small(tmp_path, "train")
    assert "fetch" not in str(caught.value)
    # one that is a tar is not
    with tarfile.open(place, "w:gz"):
        pass
    with pytest.raises(DataError, match=r"train1K\.txt is not in"):
        load_nmnist_small(tmp_path, "train")


def test_a_file_as_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    for name in ("mnist", "cifar10", "nmnist"):
        with pytest.raises(DataError, match=r"the data root must be a folder, .* is a file"):
            load(name, "test", tmp_path / "train-images-idx3-ubyte.gz")


def test_an_archive_that_is_not_unpacked_is_seen(tmp_path: Path) -> None:
    (tmp_path / "n-mnist").mkdir()
    (tmp_path / "n-mnist" / "Test.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"unpack it there \(it makes Test/\); a file of that name is there already"):
        load_nmnist(tmp_path, "test")
    assert MNIST.name == "mnist"


def test_files_of_the_format_are_not_guessed_away() -> None:
    # what a recording may begin with by chance is looked at only once it turned out to be none
    assert other_format(IDX, "x") is None
    assert other_format(b"\t\n\r !", "x") is None
    assert other_format(EVENT, "x", guess=True) is None
    assert other_format(b"", "x", guess=True) is None
