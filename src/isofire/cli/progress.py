"""How far a command is, on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch

from isofire.quantization import Step


def networks_shown() -> Callable[[int, int], None] | None:
    """What shows on a terminal how many of a command's networks are done, and the time left; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    began = time.perf_counter()

    def show(done: int, total: int) -> None:
        left = clock((time.perf_counter() - began) / done * (total - done))
        text = f"network {done} of {total}" + (f", about {left} left" if done < total else "")
        print(f"\r{text:<60}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


class LayersTold:
    """A context that tells each step of a calibration layer by layer on a line, with the time left, about.

    A step that takes longer than was expected moves the time left with it: a line says so every `every` seconds.

    Parameters
    ----------
    say
        Takes a line.
    """

    def __init__(self, say: Callable[[str], None], every: float = 20.0) -> None:
        self._say, self._every = say, every
        self._began, self._worked = time.perf_counter(), time.process_time()
        self._last: Step | None = None
        self._hinted = False
        self._over = threading.Event()
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> LayersTold:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._told.set()
        self._thread.join()

    def __call__(self, step: Step) -> None:
        """Tell a step."""
        self._last = step
        self._told.set()
        left = _left(time.perf_counter() - self._began, step.share)
        self._say(f"{step}{f'; about {left} left' if left else ''}")

    def _watch(self) -> None:
        while not self._over.is_set():
            self._told.clear()
            if self._told.wait(self._every):
                continue
            spent = time.perf_counter() - self._began
            left = "" if self._last is None else _left(spent, self._last.share)
            after = "" if self._last is None else f" after {self._last.layer}"
            said = f"working{after}, for {clock(spent)} now{f'; about {left} left' if left else ''}"
            self._say(said + self._hint(spent))

    def _hint(self, spent: float) -> str:
        """Once, where the threads of this process wait for cores that others use."""
        threads, worked = torch.get_num_threads(), time.process_time() - self._worked
        if self._hinted or threads == 1 or worked > _BUSY * threads * spent:
            return ""
        self._hinted = True
        return (
            f"; its {threads} threads get {worked / spent:.1f} of {threads} cores, since other programs use them: "
            "--threads 1 may be several times faster"
        )


_BUSY = 0.6
"""Share of its cores that a process has where nothing else runs, at least."""


def _left(spent: float, share: float) -> str:
    """The time left, if what is to do goes on as what was done; "" where that is not known."""
    return clock(spent * (1 - share) / share) if 0 < share < 1 else ""


def clock(seconds: float) -> str:
    """Such as "1:02:03"."""
    return str(timedelta(seconds=round(seconds)))
