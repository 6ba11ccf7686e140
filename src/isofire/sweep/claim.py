"""Claims: of all processes on all machines that work on one folder, at most one computes a part."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import tempfile
import threading
import uuid
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from isofire.errors import OutputError

BEAT = 15.0
"""Seconds between signs of life of a claim."""

STALE = 20 * BEAT
"""Seconds without one, after which a claim from another machine counts as given up."""


class Claim:
    """A file that exists while its owner works, and is locked by the kernel as long as the owner lives.

    On one machine the lock tells at once that an owner died. Where machines do not see each other's locks, a claim of
    another machine counts until it has shown no sign of life for `STALE` seconds, by the file system's clock.

    Examples
    --------
    >>> claim = Claim.take(path)  # doctest: +SKIP
    >>> Claim.take(path) is None  # doctest: +SKIP
    True
    """

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, name=f"claim {path.name}", daemon=True)
        self._beats.start()

    @classmethod
    def take(cls, path: str | os.PathLike[str]) -> Claim | None:
        """Claim `path`, or return None if somebody else holds it.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        final = Path(path)
        part = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        handle = None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            # locked and filled before it has its name, so that nobody sees a claim without an owner
            _try_lock(handle)
            os.write(handle, json.dumps(_owner()).encode())
            if not _publish(part, final):
                os.close(handle)
                return None
        except OSError as error:
            if handle is not None:
                os.close(handle)
            raise OutputError(
                f"cannot claim {final}: {error.strerror or error}; make room there, or choose a file system that has "
                "hard links"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        return cls(final, handle)

    @property
    def is_held(self) -> bool:
        """Whether it is still this claim that has the name; one that stood still too long may have been replaced."""
        return not self._over.is_set() and _is_named(self._handle, self._path)

    def release(self) -> None:
        """Give it up; a second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        self._beats.join()
        with contextlib.suppress(OSError):
            if _is_named(self._handle, self._path):
                self._path.unlink()
        os.close(self._handle)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._handle)


def owner_of(path: Path) -> dict[str, Any] | None:
    """`host`, `pid` and `machine` of whoever holds a claim; None if nobody does any more."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _is_stale(handle, path) else _read(handle)
    finally:
        os.close(handle)


def _publish(part: Path, final: Path) -> bool:
    while True:
        try:
            os.link(part, final)
            return True
        except FileExistsError:
            # a network file system may have made the link and lost its answer
            if part.stat().st_nlink > 1:
                return True
            if not _remove_stale(final):
                return False


def _remove_stale(path: Path) -> bool:
    """Whether the claim at `path` is gone, removing it if its owner is dead."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        if not _is_stale(handle, path):
            return False
        # The lock is ours now, so that nobody on this machine can do the same. Two machines that find a claim stale in
        # the same millisecond may both go on; the second then finds the part finished when it renames its folder.
        if _is_named(handle, path):
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(handle)


def _is_stale(handle: int, path: Path) -> bool:
    lock = _try_lock(handle)
    if lock == "held":
        return False
    owner = _read(handle)
    if owner is not None and owner.get("machine") == _machine() and (lock == "ours" or _is_dead(owner)):
        return True
    return now(path.parent) - os.fstat(handle).st_mtime > STALE


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine is known to be gone; containers of one kernel have hosts of their own."""
    if owner.get("host") != platform.node() or not isinstance(owner.get("pid"), int):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # another user's, so it is there
        return False
    return False


def _try_lock(handle: int) -> Literal["ours", "held", "unsupported"]:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return "unsupported"
    return "ours"


def _is_named(handle: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(handle))


def _read(handle: int) -> dict[str, Any] | None:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _owner() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid(), "machine": _machine()}


@cache
def _machine() -> str:
    """What processes that share a kernel, and so its locks, have in common."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def now(folder: Path) -> float:
    """The time by the clock of the file system, which other machines share."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as stream:
        return os.fstat(stream.fileno()).st_mtime
