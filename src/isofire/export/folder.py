"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from isofire.errors import OutputError


def write_folder(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Fill a folder under a temporary name beside `path`, then rename it.

    Raises
    ------
    OutputError
        If `path` exists, or cannot be written; nothing is left behind.
    """
    final = Path(path)
    if final.exists() or final.is_symlink():
        raise OutputError(f"{final} is there already; name another folder, or remove it")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    except OSError as error:
        raise OutputError(f"cannot write {final}: {error.strerror or error}; choose another place") from error
    try:
        write(part)
        part.chmod(0o755)
        part.rename(final)
    except OSError as error:
        raise OutputError(f"cannot write {final}: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final
