"""Accuracy against drift: one mark a cell, the Pareto front of the settings, the reference shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from isofire.firing.evidence.kept import drift_of
from isofire.report.axes import BOTTOM, LEFT, RIGHT, TOP, Axis, accuracy_ticks, error_axis, far_below, log_axis
from isofire.report.entries import Entry, Row, title_of
from isofire.report.numbers import percent, points, significant, span, times, whole
from isofire.report.palette import Palette
from isofire.report.summary import drift_name, pareto_front


def scatter(name: str, entries: Sequence[Entry], palette: Palette) -> dict[str, Any]:
    """Places and texts of the figure of one baseline, which the page and `isofire.report.figures` draw.

    Parameters
    ----------
    name
        Of the baseline.
    entries
        Its settings, controls included.
    """
    rows = [row for entry in entries for row in entry.rows]
    measure, margins = entries[0].measure, entries[0].margins
    drifts = [float(row[measure]) for row in rows]
    references = _references(entries)
    ends = [end for row in rows for end in (drift_of(row, measure).low, drift_of(row, measure).high)]
    x = log_axis([*drifts, *ends, *(value for _, value in references)], LEFT, RIGHT)
    level, error = _baseline(rows)
    images = max(int(row["n_images"]) for row in rows)
    least = level - margins.accuracy
    shares, anchors = [float(row["accuracy"]) for row in rows], [min(level - error, least), level + error]
    cut = far_below(shares, anchors, images)
    y = error_axis([*(p for p in shares if cut is None or p > cut), *anchors], images, BOTTOM, TOP)
    marks = sorted(
        (_mark(entry, row, x, y, palette, cut) for entry in entries for row in entry.rows),
        # controls last, so that no mark hides them
        key=lambda mark: mark["kind"] == "cross",
    )
    below = dict.fromkeys((m["x"], m["y"], m["below"], m["x"] > (LEFT + RIGHT) / 2) for m in marks if m["below"])
    upper, lower = _height(y, level + error), _height(y, level - error)
    return {
        "name": name,
        "title": f"Accuracy against drift of firing: {name}",
        "desc": _description(entries),
        "sample": sample_text(rows),
        "x_label": f"EMD to the baseline's firing, {drift_name(entries)} (spikes per neuron per step, log scale"
        + ("; 0 at the left edge)" if min(drifts, default=1) <= 0 else ")"),
        "y_label": "accuracy (%), log scale of the error",
        "x_ticks": x.marked(),
        "y_ticks": accuracy_ticks(y),
        "marks": marks,
        "below": list(below),
        "front": [(x.at(max(e.drift, x.low)), _height(y, e.mean("accuracy"))) for e in pareto_front(entries)],
        # the front's corners are no marks themselves
        "several": any(entry.n > 1 for entry in entries),
        "shades": [
            {
                "edge": x.at(value),
                "width": round(x.at(value) - LEFT, 1),
                "label": label,
                "high": _hidden(marks, x.at(value), label, BOTTOM) > _hidden(marks, x.at(value), label, TOP),
            }
            for label, value in references
        ],
        "band": {"y": upper, "height": round(lower - upper, 1), "line": _height(y, level)},
        "base": f"baseline {percent(level, 1)} %",
        "kept": {"height": round(_height(y, least) - TOP, 1)} if references else None,
    }


def _hidden(marks: Sequence[dict[str, Any]], edge: float, label: str, end: float) -> int:
    """How many marks a label along an edge would lie on, if it began at an end."""
    return sum(edge - 26 < mark["x"] < edge + 8 and abs(mark["y"] - end) < 9 * len(label) for mark in marks)


def sample_text(rows: Sequence[Row]) -> str:
    """How many images, steps and seeds."""
    images, steps = (span(whole, [int(row[key]) for row in rows]) for key in ("n_images", "T"))
    seeds = sorted({row.get("seed") for row in rows}, key=str)
    shown = ", ".join(str(seed) for seed in seeds[:6]) + (", ..." if len(seeds) > 6 else "")
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({shown})"
    return f"n = {images} test images, T = {steps}, {count}"


_FOOT = 9
"""Where marks of cells that lie below the axis stand above its end."""


def _height(y: Axis, accuracy: float) -> float:
    return y.at(100 * (1 - accuracy))


def _baseline(rows: Sequence[Row]) -> tuple[float, float]:
    """Mean accuracy of the baselines of all seeds, and the standard error of one."""
    seeds = {(row.get("seed"), row["accuracy_fp"], row["n_images"]) for row in rows}
    mean = sum(p for _, p, _ in seeds) / len(seeds)
    return mean, math.sqrt(sum(p * (1 - p) / n for _, p, n in seeds) / len(seeds))


def _references(entries: Sequence[Entry]) -> list[tuple[str, float]]:
    """The most drift by each kind of reference (of controls: of each mode), at its mean, the widest first."""
    found: dict[str, list[float]] = {}
    for entry in entries:
        for row, reference in zip(entry.rows, entry.references, strict=True):
            if reference is not None:
                mode = f" ({row.get('mode')})" if reference.kind == "control" else ""
                found.setdefault(f"{reference.kind}{mode}", []).append(reference.value)
    most = entries[0].margins.firing
    means = {f"{most:g}× {label}": most * sum(values) / len(values) for label, values in found.items()}
    return sorted(means.items(), key=lambda item: -item[1])


def _mark(entry: Entry, row: Row, x: Axis, y: Axis, palette: Palette, cut: float | None) -> dict[str, Any]:
    below = cut is not None and row["accuracy"] <= cut
    reference, drift, ends = entry.references[entry.rows.index(row)], row[entry.measure], drift_of(row, entry.measure)
    lines = [
        f"{title_of(row)}, seed {row.get('seed')}",
        f"accuracy {percent(row['accuracy'])} % ({points(row['accuracy'] - row['accuracy_fp'])} points)",
        f"EMD {significant(drift)}"
        + (f", {times(reference.multiple(drift))} the {reference.kind}" if reference else ""),
        entry.verdict,
    ]
    return {
        "x": x.at(max(drift, x.low)),
        "y": BOTTOM - _FOOT if below else _height(y, row["accuracy"]),
        # of what lies below the axis, how far
        "below": f"↓ {percent(row['accuracy'], 1)} %" if below else None,
        "ends": None if math.isnan(ends.low) else (x.at(max(ends.low, x.low)), x.at(ends.high)),
        **palette.mark(row),
        "cell": row.get("cell"),
        "entry": entry.number,
        "text": "\n".join(lines),
    }


def _description(entries: Sequence[Entry]) -> str:
    front = "; ".join(
        f"{title_of(e.rows[0])}: {percent(e.mean('accuracy'), 1)} %, EMD {significant(e.drift)}"
        for e in pareto_front(entries)
    )
    return (
        "Up is more accuracy, left is firing closer to the baseline's. Colour and shape as in the legend. "
        f"Pareto front from the least drift on: {front or 'none'}."
    )
