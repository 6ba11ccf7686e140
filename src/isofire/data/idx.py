"""The idx format of MNIST: a header with type and sizes, then the bytes."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from isofire.data.checksum import check_blocks
from isofire.data.other_formats import other_format
from isofire.errors import DataError
from isofire.files import open_file
from isofire.formats import packed_by

_UINT8 = 0x08
_BLOCK = 1 << 20
MOST_BYTES = 640 << 20
"""The largest published set of this kind, EMNIST's 697,932 images, has 547 million bytes."""


def read_idx(
    path: str | os.PathLike[str],
    dims: int,
    checksum: str | None = None,
    *,
    shape: Sequence[int] | None = None,
    most: int = MOST_BYTES,
) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    The header is two zero bytes, a type byte (8: unsigned byte), the number of dimensions, and each dimension's size
    as a big-endian 32-bit word (LeCun, Cortes and Burges, "The MNIST database of handwritten digits").

    Parameters
    ----------
    path
        The file, compressed by gzip or not, whatever its name.
    dims
        The number of dimensions wanted: 3 for images [N, H, W], 1 for labels [N].
    checksum
        md5 of the uncompressed bytes, so that a file compressed anew passes too. None: not checked.
    shape
        The sizes that the file must have, checked before anything but the header is read. None: any.
    most
        Bytes that it may hold uncompressed.

    Returns
    -------
    numpy.ndarray
        uint8, writable.

    Raises
    ------
    DataError
        If the file cannot be read, or magic, dimensions, length or checksum are wrong.
    """
    file = Path(path)
    try:
        with open_file(file) as raw:
            packed = packed_by(raw.read(8)) == "gzip"
            raw.seek(0)
            if not packed:
                return _parse(raw, dims, str(file), checksum, shape, most)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(stream, dims, str(file), checksum, shape, most)  # type: ignore[arg-type]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} is compressed by gzip, and damaged: {error}; take a whole copy of it") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error


def _parse(
    stream: BinaryIO, dims: int, place: str, checksum: str | None, wanted: Sequence[int] | None, most: int
) -> np.ndarray:
    magic = stream.read(4)
    start = bytes((0, 0, _UINT8, dims))
    if magic != start:
        wanted_format = f"idx files of unsigned bytes with {dims} axes"
        told = other_format(magic + stream.read(508), wanted_format, guess=True)
        raise DataError(
            f"an idx file starts with {start.hex(' ')}, got {magic.hex(' ') or 'nothing'} ({place}); it is "
            + ("empty, altered or of another format" if told is None else f"another format, {told}")
        )
    header = stream.read(4 * dims)
    if len(header) != 4 * dims:
        raise DataError(f"the header must name {dims} sizes, got {len(header)} bytes ({place}); the file is truncated")
    shape = struct.unpack(f">{dims}I", header)
    size = math.prod(shape)
    if wanted is not None and shape != tuple(wanted):
        raise DataError(f"the file must have shape {tuple(wanted)}, got {shape} ({place}); it belongs to another set")
    if size > most:
        raise DataError(
            f"an idx file may hold {most:,} bytes, the header says {shape} ({place}); it is altered, or needs most=..."
        )
    body = _read_body(stream, size)
    if len(body) != size:
        got = f"{len(body)}" if len(body) < size else "more"
        raise DataError(f"shape {shape} needs {size} bytes, got {got} ({place}); the file is truncated or altered")
    if checksum is not None:
        check_blocks((magic, header, body), checksum, place, "fetch it again, or pass verify=False for your own data")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _read_body(stream: BinaryIO, size: int) -> bytearray:
    """At most `size` + 1 bytes, so that a file that is too long shows; room is taken as they come, not as promised."""
    body = bytearray()
    while len(body) <= size and (block := stream.read(min(_BLOCK, size + 1 - len(body)))):
        body += block
    return body
