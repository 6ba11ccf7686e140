"""Claims: of all processes on all machines that work on one folder, at most one computes a part."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import tempfile
import threading
import uuid
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec
from filelock import lock_descriptor
from msgspec import Meta, Struct

from isofire.errors import OutputError
from isofire.files import check_file
from isofire.toml_json import parse_json

BEAT = 15.0
"""Seconds between signs of life of a claim."""

_LOCKED_BYTE = b" "
"""Windows locks bytes of a file against reading; a blank before the text is the one that is locked."""

STALE = 20 * BEAT
"""Seconds without one, after which a claim from another machine counts as given up."""


class Owner(Struct, frozen=True, kw_only=True):
    """Who holds a claim.

    Attributes
    ----------
    host, pid
        The process; a claim whose text is damaged has none, and is held all the same.
    machine
        What processes that share a kernel, and so its locks, have in common.
    """

    host: str = "unknown"
    pid: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    machine: str = ""


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
            os.write(handle, _LOCKED_BYTE + msgspec.json.encode(_own()))
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
                _unlink(self._handle, self._path)
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
                os.utime(self._handle if os.utime in os.supports_fd else self._path)


def owner_of(path: Path) -> Owner | None:
    """Whoever holds a claim; None if nobody does any more."""
    try:
        handle = _open(path)
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
        handle = _open(path)
    except FileNotFoundError:
        return True
    try:
        if not _is_stale(handle, path):
            return False
        # The lock is ours now, so that nobody on this machine can do the same. Two machines that find a claim stale in
        # the same millisecond may both go on; the second then finds the part finished when it renames its folder.
        if _is_named(handle, path):
            _unlink(handle, path)
        return True
    finally:
        os.close(handle)


def _is_stale(handle: int, path: Path) -> bool:
    lock = _try_lock(handle)
    if lock == "held":
        return False
    owner = _read(handle)
    if owner.machine == _machine() and (lock == "ours" or _is_dead(owner)):
        return True
    return now(path.parent) - os.fstat(handle).st_mtime > STALE


def _is_dead(owner: Owner) -> bool:
    """Whether a process of this machine is known to be gone; containers of one kernel have hosts of their own."""
    # on Windows locks always work, and signal 0 would end the process
    if owner.host != platform.node() or owner.pid is None or os.name == "nt":
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # another user's, so it is there
        return False
    return False


def _try_lock(handle: int) -> Literal["ours", "held", "unsupported"]:
    try:
        return "ours" if lock_descriptor(handle, blocking=False) else "held"
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return "unsupported"


def _is_named(handle: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(handle))


def _open(path: Path) -> int:
    """A claim to look at; anything but a file, such as a pipe, is told at once."""
    check_file(path)
    return os.open(path, os.O_RDWR)


def _unlink(handle: int, path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        # Windows removes no file that is open; a claim that another made meanwhile is open too, and so stays
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, handle)
        os.close(nothing)
        path.unlink(missing_ok=True)


def _read(handle: int) -> Owner:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        text = os.read(handle, 4096)
    except PermissionError:
        # where a lock also keeps others from reading, which is the first byte's alone
        os.lseek(handle, len(_LOCKED_BYTE), os.SEEK_SET)
        text = os.read(handle, 4096)
    try:
        return msgspec.convert(parse_json(text), Owner)
    except (ValueError, msgspec.ValidationError):
        return Owner()


def _own() -> Owner:
    return Owner(host=platform.node(), pid=os.getpid(), machine=_machine())


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
