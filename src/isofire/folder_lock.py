"""One process a folder: results of two runs must not end up beside each other under one name."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from isofire.errors import OutputError

_UNABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def hold(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep others that ask for it out of a folder. The lock is the kernel's: it ends with the process, however it ends.

    On a file system without locks a warning says so, and nobody is kept out.

    Raises
    ------
    OutputError
        If somebody is in it, or it cannot be written.
    """
    path = Path(folder) / ".lock"
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{folder} is in use by another run, which would mix with this one; wait until it ends, or choose another "
            "folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNABLE:
            raise OutputError(f"cannot write {path}: {error}; choose another folder") from error
        warnings.warn(f"{folder} cannot be locked; see to it that no other run writes there", stacklevel=2)
    try:
        yield
    finally:
        lock.release()
