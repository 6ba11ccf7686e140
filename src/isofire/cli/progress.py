"""How far a list of named jobs has come: a bar on a terminal, a line per job elsewhere; on stderr."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Jobs:
    """A context in which `start` names the next job and `advance` counts its units of work.

    Parameters
    ----------
    units
        All work, in units of about the same time.
    """

    def __init__(self, units: float) -> None:
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=units)
        self._console, self._units, self._done, self._began = console, units, 0.0, time.perf_counter()

    def __enter__(self) -> Jobs:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, name: str) -> None:
        """Name what is done now."""
        if self._bar is not None:
            self._bar.update(self._task, description=name.ljust(38))

    def advance(self, units: float) -> None:
        """Count work that is done."""
        self._done += units
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def finish(self, text: str) -> None:
        """Say what came of a job."""
        share = f"{100 * self._done / self._units:3.0f} %  {time.perf_counter() - self._began:4.0f} s  "
        self._console.print(
            text if self._bar is not None else share + text, soft_wrap=True, markup=False, highlight=False
        )


def count_networks(done: int, total: int) -> None:
    """Show on the terminal how many of the networks that a command makes and compares are done."""
    print(f"\rnetwork {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
