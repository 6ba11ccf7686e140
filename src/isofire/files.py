"""Writing files so that a final name never holds half a file, and opening none that would hang or fill the memory."""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from isofire.errors import OutputError


def write_atomic(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Write a file under a temporary name beside `path`, flush it to disk, then rename it.

    Parameters
    ----------
    path
        The final name. Its folder is created if it is missing.
    write
        Called with the temporary path; whatever it leaves there becomes `path`.

    Raises
    ------
    OutputError
        If the folder cannot be made or written to (read-only, full disk). Nothing is left behind.
    """
    final = Path(path)
    try:
        _check_name(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(final, error) from error
    part = Path(name)
    try:
        write(part)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(final)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) or _is_io_failure(error):
            raise _cannot_write(final, error) from error
        raise
    return final


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text atomically; see `write_atomic`."""

    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    return write_atomic(path, write)


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder if need be and prove that a file can be written there, before any long work starts.

    Raises
    ------
    OutputError
        If it cannot.
    """
    folder = Path(path)
    try:
        _check_name(path)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe."):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def open_file(path: str | os.PathLike[str], most: int | None = None) -> io.BufferedReader:
    """Open a file for reading, if it is one: what a reader takes in is decided before it reads.

    Parameters
    ----------
    most
        Bytes that it may have; None: as many as it likes, for readers that need little memory whatever the size.

    Raises
    ------
    OSError
        If it is missing, larger, or anything but a file: a folder, a pipe that never ends, a device. Its `strerror`
        says so.
    """
    _check_name(path)
    # first by name, since opening a device may already do something
    _check_kind(os.stat(path), path, most)
    # without waiting for the other end, should it have become a pipe since
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_kind(os.fstat(handle), path, most)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file of at most `most` bytes; errors as `open_file`."""
    with open_file(path, most) as stream:
        # a file that grows meanwhile is cut
        return stream.read(most)


def check_file(path: str | os.PathLike[str], most: int | None = None) -> None:
    """Raise what `open_file` would, for readers that take a path and open it themselves."""
    open_file(path, most).close()


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two names, of which either may not exist yet, lead to the same place."""
    try:
        return os.path.realpath(first) == os.path.realpath(second)
    except (OSError, ValueError):
        return False


_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def _check_kind(found: os.stat_result, path: str | os.PathLike[str], most: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "thing of another kind")
        number = errno.EISDIR if kind == "folder" else errno.EINVAL
        raise OSError(number, f"it is a {kind}, not a file", os.fspath(path))
    if most is not None and found.st_size > most:
        told = f"it has {found.st_size:,} bytes, where {most:,} are the most that can be right"
        raise OSError(errno.EFBIG, told, os.fspath(path))


def _check_name(path: str | os.PathLike[str]) -> None:
    # which the operating system's functions refuse with a ValueError
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "no name of a file holds a NUL character", os.fspath(path))


def _cannot_write(path: Path, error: BaseException) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"cannot write {path}: {reason}; choose another place or make room there, then run again")


def _is_io_failure(error: BaseException) -> bool:
    # safetensors reports a full disk as its own error class with the OS text inside
    return type(error).__name__ == "SafetensorError" and ("I/O" in str(error) or "IoError" in str(error))


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
