"""The files of a small tar archive, read into memory without trusting what it says about itself."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from isofire.data.other_formats import other_format
from isofire.errors import DataError, IsofireError
from isofire.files import open_file

_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


def read_tar(archive: Path, suffixes: tuple[str, ...], most: int) -> dict[str, bytes]:
    """Name without folders -> bytes, of the files of an archive whose names end in one of `suffixes`.

    The members' own paths are never used to write anything, so only their last parts matter.

    Parameters
    ----------
    archive
        A tar file, also one that is compressed as a whole.
    most
        Bytes that it may unpack to, all in all.

    Raises
    ------
    DataError
        If it cannot be read, unpacks to more than `most`, or a member has holes (a sparse file).
    """
    start = b""
    try:
        with open_file(archive) as raw:
            start = raw.read(512)
            raw.seek(0)
            opener = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), None)
            if opener is None:
                return _members(raw, archive, suffixes, most)
            with opener(raw) as stream:
                return _members(stream, archive, suffixes, most)
    except IsofireError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError, RecursionError) as error:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        other = None if start.startswith(tuple(_PACKED)) else other_format(start, "tar archives")
        if other is not None:
            raise DataError(f"{archive} is another format, {other}") from error
        raise DataError(f"cannot read {archive} as a tar archive: {told}; take a whole copy of it") from error


def _members(stream: IO[bytes], archive: Path, suffixes: tuple[str, ...], most: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    # as a stream, whose every byte is counted, those of headers too
    counted = _Counted(stream, archive, most)
    with tarfile.open(fileobj=counted, mode="r|") as tar:  # type: ignore[arg-type]
        for member in tar:
            name = PurePosixPath(member.name).name
            if not member.isfile() or not name.endswith(suffixes):
                continue
            if member.issparse():
                raise DataError(f"{member.name} has holes, as no archive of this kind does ({archive}); fetch it again")
            content = tar.extractfile(member)
            assert content is not None
            found[name] = content.read()
    # the checksum of a compressed archive comes at its very end
    while counted.read(1 << 16):
        pass
    return found


class _Counted:
    """A stream that ends in an error after `most` bytes."""

    def __init__(self, stream: IO[bytes], archive: Path, most: int) -> None:
        self._stream, self._archive, self._most, self._left = stream, archive, most, most

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"{self._archive} unpacks to more than {self._most:,} bytes; fetch it again")
        return data
