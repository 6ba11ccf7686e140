"""How busy the machine is with other work, and waiting until it is not."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = 0.05
"""Share of the machine's CPU time that others may use in a run that is called quiet."""

_STAT = Path("/proc/stat")
_LOOK_S = 2.0


@dataclass(frozen=True)
class Moment:
    """Seconds of CPU time since the start, of the whole machine (None where it does not tell) and of this process with
    its finished children, and the time."""

    all: float | None
    own: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """This one."""
        return cls(_used(), sum(os.times()[:4]), time.perf_counter())


def others(start: Moment, end: Moment) -> float | None:
    """Share of the machine's CPU time that other processes, or other guests of its host, used between two moments."""
    if start.all is None or end.all is None:
        return None
    spent = (end.all - start.all) - (end.own - start.own)
    return max(0.0, spent / max(1e-9, end.wall - start.wall) / (os.cpu_count() or 1))


def wait_for_quiet(limit_s: float) -> float:
    """Wait until others leave the machine alone for two seconds, or `limit_s` are over; the seconds waited."""
    began = time.perf_counter()
    while (waited := time.perf_counter() - began) < limit_s:
        start = Moment.now()
        time.sleep(_LOOK_S)
        share = others(start, Moment.now())
        if share is None or share <= QUIET:
            break
    return waited


class Watch:
    """Around a run: how busy others were.

    Examples
    --------
    >>> with Watch() as watch:
    ...     pass
    >>> sorted(watch.said())
    ['cpus', 'load_before', 'others_share', 'quiet']
    """

    def __enter__(self) -> Watch:
        self.load, self.start = os.getloadavg()[0], Moment.now()
        return self

    def __exit__(self, *_: object) -> None:
        self.share = others(self.start, Moment.now())

    def said(self) -> dict[str, Any]:
        """JSON values: `quiet` is None where the machine does not tell."""
        return {
            "cpus": os.cpu_count(),
            "load_before": round(self.load, 2),
            "others_share": None if self.share is None else round(self.share, 4),
            "quiet": None if self.share is None else self.share <= QUIET,
        }


def _used() -> float | None:
    """CPU seconds that all processors have worked, time that the host gave to other guests included."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _wait, *rest = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
