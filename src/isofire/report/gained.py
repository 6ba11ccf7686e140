"""What quantizing gained, beside what it kept: memory, operations and energy, and memory against drift as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.report.axes import BOTTOM, LEFT, RIGHT, TOP, Axis, log_axis
from isofire.report.entries import Entry, Row, title_of
from isofire.report.numbers import significant, times
from isofire.report.palette import Palette
from isofire.report.summary import drift_name


@dataclass(frozen=True)
class Gain:
    """A cost of an inference that rows have, of the quantized network and of its baseline.

    Attributes
    ----------
    key, heading, title
        Of the column.
    of
        The value in a row, with an ending: "" for the quantized network, "_fp" for the baseline; None: not known.
    """

    key: str
    heading: str
    title: str
    of: Callable[[Row, str], float | None]

    def mean(self, entry: Entry, ending: str = "") -> float | None:
        """Over seeds; None if a seed has none."""
        values = [self.of(row, ending) for row in entry.rows]
        known = [value for value in values if value is not None and not math.isnan(value)]
        return sum(known) / len(known) if len(known) == len(values) else None

    def text(self, entry: Entry) -> str:
        """Such as "24.1 (0.13×)", the share of the baseline's in brackets; a dash where it is not known."""
        value, before = self.mean(entry), self.mean(entry, "_fp")
        if value is None:
            return significant(None)
        number = f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value:,.0f}" if value >= 1000 else significant(value)
        return number if not before else f"{number} ({times(value / before)})"


def _column(name: str) -> Callable[[Row, str], float | None]:
    return lambda row, ending: row.get(name + ending)


def _memory(row: Row, ending: str) -> float | None:
    parts = [row.get(f"{name}{ending}") for name in ("weight_kib", "state_kib")]
    return None if None in parts else float(sum(parts))  # type: ignore[arg-type]


MEMORY = Gain("memory_kib", "KiB", "memory of weights and neurons' states, in KiB", _memory)
_GAINS = (
    MEMORY,
    Gain("synops_p50", "SynOps", "synaptic operations of an inference, median over images", _column("synops_p50")),
    Gain("synops", "SynOps", "synaptic operations of an inference, mean over images", _column("synops")),
    Gain("energy_uj", "µJ", "energy of an inference, estimated at 45 nm, in microjoule", _column("energy_uj")),
)


def gains_of(entries: Sequence[Entry]) -> list[Gain]:
    """The costs that any row has; SynOps once, by their median where that is known."""
    found = [gain for gain in _GAINS if any(gain.of(row, "") is not None for entry in entries for row in entry.rows)]
    median = any(gain.key == "synops_p50" for gain in found)
    return [gain for gain in found if not (median and gain.key == "synops")]


def memory_figure(name: str, entries: Sequence[Entry], palette: Palette) -> dict[str, Any] | None:
    """Memory against drift of one baseline's settings, with the baseline at its place; None without memory.

    Left is less memory, down is firing closer to the baseline's; the baseline drifts by nothing, so it lies on the
    lower edge.
    """
    known = [(entry, size) for entry in entries if not entry.is_control and (size := MEMORY.mean(entry)) is not None]
    before = next((size for entry, _ in known if (size := MEMORY.mean(entry, "_fp")) is not None), None)
    if not known or before is None:
        return None
    x = log_axis([*(size for _, size in known), before], LEFT, RIGHT)
    y = log_axis([entry.drift for entry, _ in known], BOTTOM, TOP)
    front = _front(known)
    return {
        "name": name,
        "title": f"Memory against drift of firing: {name}",
        "desc": "Left is less memory, down is firing closer to the baseline's. Pareto front, the least memory first: "
        + "; ".join(f"{title_of(e.rows[0])}: {significant(size)} KiB, EMD {significant(e.drift)}" for e, size in front),
        "x_label": "memory of weights and states (KiB, log scale)",
        "y_label": f"EMD, {drift_name(entries)} (log scale)",
        "x_ticks": x.marked(),
        "y_ticks": y.marked(),
        "marks": [_mark(entry, size, x, y, palette) for entry, size in known],
        "front": [(x.at(size), y.at(max(entry.drift, y.low))) for entry, size in front],
        "several": False,
        "shades": [],
        "base": {"x": x.at(before), "y": BOTTOM, "text": f"{significant(before)} KiB"},
    }


def _front(known: Sequence[tuple[Entry, float]]) -> list[tuple[Entry, float]]:
    """Settings of which no other has both less memory and less drift, from the least memory on."""
    front: list[tuple[Entry, float]] = []
    for entry, size in sorted(known, key=lambda item: (item[1], item[0].drift)):
        if not front or entry.drift < front[-1][0].drift:
            front.append((entry, size))
    return front


def _mark(entry: Entry, size: float, x: Axis, y: Axis, palette: Palette) -> dict[str, Any]:
    row = entry.rows[0]
    return {
        "x": x.at(size),
        "y": y.at(max(entry.drift, y.low)),
        "ends": None,
        **palette.mark(row),
        "cell": row["cell"],
        "entry": entry.number,
        "text": f"{title_of(row)}\n{MEMORY.text(entry)} KiB\nEMD {significant(entry.drift)}\n{entry.verdict}",
    }
