from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isofire.data import read_idx
from isofire.errors import DataError


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_reads_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, zipped: bool) -> None:
    path = tmp_path_factory.getbasetemp() / ("array.gz" if zipped else "array")
    path.write_bytes(gzip.compress(encode(array)) if zipped else encode(array))
    read = read_idx(path, array.ndim, hashlib.md5(encode(array)).hexdigest())
    np.testing.assert_array_equal(read, array)
    assert read.flags.writeable


GOOD = encode(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "starts with 00 00 08 03, got nothing"),
        (b"\x00\x00", "got 00 00 "),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "got 00 00 0d 03"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "got 00 00 08 01"),
        (b"\x01" + GOOD[1:], "got 01 00 08 03"),
        (GOOD[:10], "must name 3 sizes, got 6 bytes"),
        (GOOD[:-1], r"shape \(2, 3, 4\) needs 24 bytes, got 23"),
        (GOOD + b"\x00", "needs 24 bytes, got more"),
        (GOOD[:4] + struct.pack(">3I", 2**31, 2**31, 2**31), "it is altered"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_refuses_a_bad_header_or_length(tmp_path: Path, data: bytes, match: str, zipped: bool) -> None:
    path = tmp_path / ("bad.gz" if zipped else "bad")
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(DataError, match=match) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


def test_refuses_broken_compression(tmp_path: Path) -> None:
    path = tmp_path / "bad.gz"
    whole = gzip.compress(np.random.default_rng(0).bytes(4000))
    for data in (b"plain", gzip.compress(GOOD)[:-9], whole[:100] + b"\xff" * 50 + whole[150:]):
        path.write_bytes(data)
        with pytest.raises(DataError):
            read_idx(path, 3)


def test_refuses_other_contents_than_published(tmp_path: Path) -> None:
    path = tmp_path / "array"
    path.write_bytes(GOOD[:-1] + b"\x00")
    assert read_idx(path, 3)[1, 2, 3] == 0
    with pytest.raises(DataError, match="md5 must be"):
        read_idx(path, 3, hashlib.md5(GOOD).hexdigest())


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path / "absent", 1)
