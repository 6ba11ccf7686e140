"""What may come of an input: a result or a documented error, soon, in little memory, and no file left behind half."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from isofire.cli.app import main
from isofire.errors import IsofireError

SECONDS = 10.0
BYTES = 1 << 30


class Wrong(AssertionError):
    """An outcome that no document promises."""


def judge(read: Callable[[], object], folder: Path) -> str:
    """Read one input from `folder`; returns "read" or the name of the error.

    Raises
    ------
    Wrong
        If something else than an IsofireError came out of it, it took too long or too much memory, or files appeared.
    """
    before, began, peak = _names(folder), time.perf_counter(), _peak()
    try:
        outcome = _outcome(read)
    except IsofireError as error:
        if not str(error).strip():
            raise Wrong(f"{type(error).__name__} without a sentence") from error
        # as it would be printed
        str(error).encode()
        outcome = type(error).__name__
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Wrong(f"{type(error).__name__}: {error}") from error
    seconds, grown = time.perf_counter() - began, _peak() - peak
    if seconds > SECONDS:
        raise Wrong(f"{seconds:.1f} s")
    if grown > BYTES:
        raise Wrong(f"{grown / 2**20:.0f} MiB more than before")
    if left := {name for name in _names(folder) - before if ".part" in name or ".probe" in name}:
        raise Wrong(f"left {sorted(left)}")
    return outcome


def command(*words: str) -> Callable[[], object]:
    """A command as a reader: status 0 and 2 are documented, 3 of sweeps too."""

    def run() -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(words))
        if status not in (0, 2, 3):
            raise Wrong(f"status {status}: {err.getvalue()[-600:]}")
        return f"status {status}"

    return run


def _outcome(read: Callable[[], object]) -> str:
    found = read()
    return found if isinstance(found, str) else "read"


def _names(folder: Path) -> set[str]:
    return {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}


def _peak() -> int:
    try:
        import resource
    except ImportError:
        return 0
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024
