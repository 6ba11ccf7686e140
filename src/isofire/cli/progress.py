"""How far a command is, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta

from isofire.quantization import OnStep, Step


def networks_shown() -> Callable[[int, int], None] | None:
    """What shows on a terminal how many of a command's networks are done, and the time left; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    began = time.perf_counter()

    def show(done: int, total: int) -> None:
        left = timedelta(seconds=round((time.perf_counter() - began) / done * (total - done)))
        text = f"network {done} of {total}" + (f", about {left} left" if done < total else "")
        print(f"\r{text:<60}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def layers_told(say: Callable[[str], None]) -> OnStep:
    """What tells each step of a calibration layer by layer on a line, with the time left, about."""
    began = time.perf_counter()

    def tell(step: Step) -> None:
        left = ""
        if 0 < step.share < 1:
            seconds = (time.perf_counter() - began) * (1 - step.share) / step.share
            left = f"; about {timedelta(seconds=round(seconds))} left"
        say(f"{step}{left}")

    return tell
