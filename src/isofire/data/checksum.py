"""Published checksums, checked before a file's contents are trusted."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isofire.errors import DataError

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
    digest = _new_digest(expected)
    digest.update(data)
    _compare(digest, expected, place, cure)


def check_file(path: Path, expected: str, cure: str) -> None:
    """Like `check_bytes` for a file too large to hold in memory."""
    digest = _new_digest(expected)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    _compare(digest, expected, str(path), cure)


def _new_digest(expected: str) -> hashlib._Hash:
    # the published checksums are md5 and sha1, which a FIPS build refuses unless told that they guard integrity only
    return hashlib.new(_ALGORITHMS[len(expected)], usedforsecurity=False)


def _compare(digest: hashlib._Hash, expected: str, place: str, cure: str) -> None:
    if digest.hexdigest() != expected.lower():
        raise DataError(f"{digest.name} must be {expected}, got {digest.hexdigest()} ({place}); {cure}")
