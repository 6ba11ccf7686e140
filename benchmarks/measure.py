"""Timing alternatives side by side in one process, so that a ratio holds when the machine's speed drifts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int = 9, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each case in each round; every round runs all cases once, in order."""
    for _ in range(warmup):
        for run in cases.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Per case: median seconds, and minimum, median and maximum of base / case round by round (higher is faster)."""
    result = {}
    for name, values in seconds.items():
        faster = [b / v for b, v in zip(seconds[base], values, strict=True)]
        result[name] = {
            "seconds_median": statistics.median(values),
            "ratio_min": min(faster),
            "ratio_median": statistics.median(faster),
            "ratio_max": max(faster),
            "rounds": len(values),
        }
    return result
