"""Writing files so that a final name never holds half a file."""

from __future__ import annotations

import os
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
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe."):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


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
