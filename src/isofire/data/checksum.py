"""Published checksums, checked before a file's contents are trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from isofire.errors import DataError
from isofire.files import open_file

_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}


def check_bytes(data: bytes, expected: str, place: str, cure: str) -> None:
    """Raise `DataError` unless `data` has the published checksum.

    Parameters
    ----------
    data
        A file's contents.
    expected
        Hexadecimal md5, sha1 or sha256; its length says which.
    place
        The file, for the message.
    cure
        What to do about a mismatch, for the message.

    Examples
    --------
    >>> check_bytes(b"abc", "900150983cd24fb0d6963f7d28e17f72", "abc.txt", "fetch it again")
    """
    check_blocks((data,), expected, place, cure)


def check_blocks(blocks: Iterable[bytes | bytearray], expected: str, place: str, cure: str) -> None:
    """Like `check_bytes` for contents in parts, which are not joined."""
    digest = _new_digest(expected)
    for block in blocks:
        digest.update(block)
    if digest.hexdigest() != expected.lower():
        raise DataError(f"{digest.name} must be {expected}, got {digest.hexdigest()} ({place}); {cure}")


def check_file(path: Path, expected: str, cure: str) -> None:
    """Like `check_bytes` for a file too large to hold in memory."""
    try:
        with open_file(path) as stream:
            check_blocks(iter(lambda: stream.read(1 << 20), b""), expected, str(path), cure)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {cure}") from error


def _new_digest(expected: str) -> hashlib._Hash:
    # the published checksums are md5 and sha1, which a FIPS build refuses unless told that they guard integrity only
    return hashlib.new(_ALGORITHMS[len(expected)], usedforsecurity=False)
