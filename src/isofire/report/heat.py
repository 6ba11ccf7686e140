"""Heat maps, bits by range: accuracy lost, drift, dead share and mean rate of each method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.firing.measures import FP, RATE_UNIT, Measure, shown_in
from isofire.report.entries import Entry, range_of
from isofire.report.numbers import points
from isofire.report.palette import bits_order, bits_text
from isofire.report.table import measure_text

CELL_WIDTH, CELL_HEIGHT, _CHARACTER, _WIDEST = 68, 30, 6.1, 142


@dataclass(frozen=True)
class Map:
    """What a heat map shows: a number, its text, and how far it is from the baseline (0: equal)."""

    title: str
    unit: str
    value: Callable[[Entry], float]
    text: Callable[[float], str]
    away: Callable[[Entry], float]


_ACCURACY = Map("accuracy lost", "points", lambda e: e.drop, lambda v: points(v, 1), lambda e: max(0.0, e.drop))


def maps_of(entries: Sequence[Entry]) -> list[Map]:
    """Accuracy, then the measures that are shown as maps."""
    present = {key for entry in entries for row in entry.rows for key in row}
    return [_ACCURACY, *(_map_of(measure) for measure in shown_in("maps") if measure.headline in present)]


def _map_of(measure: Measure) -> Map:
    key = measure.headline

    def away(entry: Entry) -> float:
        if measure.networks == 1:
            return abs(entry.mean(key) - entry.mean(key + FP))
        return abs(entry.mean(key) - (measure.high if measure.worse == "lower" else measure.low))

    unit = "%" if measure.percent else measure.unit
    return Map(
        measure.heading.removesuffix(" %"), unit, lambda e: e.mean(key), lambda v: measure_text(measure, v), away
    )


def heat_maps(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A group for each baseline, target, method and mode, with a map a measure.

    The same shade means the same distance from the baseline in all maps of a measure and baseline.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if not entry.is_control:
            key = tuple(str(entry.label(name)) for name in ("baseline", "target", "method", "mode"))
            groups.setdefault(key, []).append(entry)
    maps = maps_of(entries)
    ends: dict[tuple[str, str], float] = {}
    for key, found in groups.items():
        for measure in maps:
            name = key[0], measure.title
            ends[name] = max([ends.get(name, 0.0), *(d for d in map(measure.away, found) if math.isfinite(d))])
    # one grid for all, so that maps of different methods lie below each other
    numbers = {bits_text(e.label("bits")): e.label("bits") for found in groups.values() for e in found}
    columns = sorted(numbers, key=lambda text: bits_order(numbers[text]))
    left = 12 + round(_CHARACTER * max((len(_line(e)) for found in groups.values() for e in found), default=0))
    return [
        {
            "name": f"{key[1]}, {key[2]}, {key[3]}",
            "baseline": key[0],
            "maps": [_map(measure, found, ends[key[0], measure.title], columns, left, key) for measure in maps],
        }
        for key, found in groups.items()
    ]


def _map(
    measure: Map, entries: Sequence[Entry], end: float, columns: Sequence[str], left: int, key: tuple[str, ...]
) -> dict[str, Any]:
    lines = list(dict.fromkeys(_line(e) for e in entries))
    cells = []
    for i, line in enumerate(lines):
        for j, column in enumerate(columns):
            found = [e for e in entries if _line(e) == line and bits_text(e.label("bits")) == column]
            cells.append(_cell(measure, found, end, left + j * CELL_WIDTH, 34 + i * CELL_HEIGHT))
    return {
        "title": f"{measure.title} ({measure.unit}): {key[1]} {key[2]}, {key[3]}, baseline {key[0]}",
        "desc": "; ".join(
            f"{_line(e)}, {bits_text(e.label('bits'))} bit: {measure.text(measure.value(e))}" for e in entries
        ),
        "name": measure.title if measure.unit in ("", RATE_UNIT) else f"{measure.title} ({measure.unit})",
        "width": left + max(len(columns) * CELL_WIDTH, _WIDEST) + 2,
        "left": left,
        "height": 36 + len(lines) * CELL_HEIGHT,
        "columns": [(left + (j + 0.5) * CELL_WIDTH, column) for j, column in enumerate(columns)],
        "lines": [(left - 8, 34 + (i + 0.5) * CELL_HEIGHT, line) for i, line in enumerate(lines)],
        "cells": cells,
    }


def _cell(measure: Map, found: Sequence[Entry], end: float, x: float, y: float) -> dict[str, Any]:
    """One field; where settings differ in what has no axis (such as granularity), the first is shown and marked."""
    if not found:
        return {"x": x, "y": y, "entry": None}
    value, away = measure.value(found[0]), measure.away(found[0])
    share = away / end if end > 0 and math.isfinite(away) else 0.0
    return {
        "x": x,
        "y": y,
        "text": measure.text(value) + ("*" if len(found) > 1 else ""),
        # text stays readable in one colour up to this shade, in light and dark
        "shade": round(0.04 + 0.6 * share, 2),
        "entry": found[0].number,
    }


def _line(entry: Entry) -> str:
    row = entry.rows[0]
    per = {"tensor": " per tensor", "layer": ""}.get(str(row.get("granularity")), "")
    return range_of(row) + per
