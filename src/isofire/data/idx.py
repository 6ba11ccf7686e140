"""The idx format of MNIST: a header with type and sizes, then the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from isofire.data.checksum import check_bytes
from isofire.errors import DataError

_UINT8 = 0x08
_MOST_BYTES = 1 << 30


def read_idx(path: Path, dims: int, checksum: str | None = None) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    The header is two zero bytes, a type byte (8: unsigned byte), the number of dimensions, and each dimension's size
    as a big-endian 32-bit word (LeCun, Cortes and Burges, "The MNIST database of handwritten digits").

    Parameters
    ----------
    path
        The file; it is gunzipped if its name ends in .gz.
    dims
        The number of dimensions wanted: 3 for images [N, H, W], 1 for labels [N].
    checksum
        md5 of the uncompressed bytes, so that a file compressed anew passes too. None: not checked.

    Returns
    -------
    numpy.ndarray
        uint8, writable.

    Raises
    ------
    DataError
        If the file cannot be read, or magic, dimensions, length or checksum are wrong.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            return _parse(stream, dims, str(path), checksum)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; fetch it again") from error


def _parse(stream: BinaryIO, dims: int, place: str, checksum: str | None) -> np.ndarray:
    magic = stream.read(4)
    wanted = bytes((0, 0, _UINT8, dims))
    if magic != wanted:
        raise DataError(f"an idx file starts with {wanted.hex(' ')}, got {magic.hex(' ') or 'nothing'} ({place})")
    header = stream.read(4 * dims)
    if len(header) != 4 * dims:
        raise DataError(f"the header must name {dims} sizes, got {len(header)} bytes ({place}); the file is truncated")
    shape = struct.unpack(f">{dims}I", header)
    size = math.prod(shape)
    if size > _MOST_BYTES:
        raise DataError(f"an idx file may hold {_MOST_BYTES} bytes, the header says {shape} ({place}); it is altered")
    # one byte more than promised shows a file that is too long without reading the rest of it
    body = stream.read(size + 1)
    if len(body) != size:
        got = f"{len(body)}" if len(body) < size else "more"
        raise DataError(f"shape {shape} needs {size} bytes, got {got} ({place}); the file is truncated or altered")
    if checksum is not None:
        check_bytes(magic + header + body, checksum, place, "fetch it again, or pass verify=False for your own data")
    return np.frombuffer(bytearray(body), dtype=np.uint8).reshape(shape)
