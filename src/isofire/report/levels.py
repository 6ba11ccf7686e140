"""What a quantizer is given and the levels it offers, as paths of an SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isofire.report.numbers import significant

WIDTH = 240
TOP, BOTTOM = 8, 96
_RUG = 8
_TALL = 20
_ROOM = 36
MOST_DRAWN = 64
"""More levels than this are said, not drawn."""


def levels_panel(found: Mapping[str, Any]) -> dict[str, Any]:
    """Paths and texts of one entry of `isofire.study.distributions`; short keys, since a page holds thousands."""
    edges, counts, levels = found["edges"], found["counts"], found["levels"]
    low, high = edges[0], edges[-1]
    seen = [level for level in levels if low - 1e-9 <= level <= high + 1e-9]
    threshold = found.get("threshold")
    drawn = seen if len(seen) <= MOST_DRAWN else []
    said = f"{len(levels)} levels"
    if len(seen) != len(levels):
        said += f", {len(seen)} in view"
    elif not drawn:
        said += ", too close to draw"
    return {
        "m": found["module"],
        "k": "membrane" if found["target"] == "membrane" else "weights",
        "s": said + (f"; threshold {significant(threshold)}" if threshold is not None else ""),
        "h": _histogram_path(counts),
        "l": "".join(_level_path(_place(level, low, high), len(drawn)) for level in drawn),
        "t": "" if threshold is None else f"M{_place(threshold, low, high):g},{TOP - 6}V{BOTTOM}",
        "a": significant(low, 2),
        "b": "0" if _ROOM < _place(0, low, high) < WIDTH - _ROOM else "",
        "z": f"{_place(0, low, high):g}",
        "c": significant(high, 2),
        "n": found.get("note") or "",
    }


def _place(value: float, low: float, high: float) -> float:
    return round(min(max((value - low) / (high - low), 0), 1) * WIDTH, 1)


def _level_path(x: float, count: int) -> str:
    """The whole height while there are few levels, a short mark at the axis where there are many."""
    return f"M{x:g},{TOP if count <= _TALL else BOTTOM - _RUG}V{BOTTOM}"


def _histogram_path(counts: list[int]) -> str:
    top = max(1, *counts)
    width = WIDTH / len(counts)
    path, level, run = f"M0,{BOTTOM}", BOTTOM, 0.0
    for count in counts:
        # any count at all is at least one unit high
        y = BOTTOM - (max(1, round((BOTTOM - TOP) * count / top)) if count else 0)
        if y != level:
            path += (f"h{run:g}" if run else "") + f"v{y - level}"
            level, run = y, 0.0
        run += width
    return path + f"h{run:g}V{BOTTOM}Z"
