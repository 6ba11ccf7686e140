"""The settings of a report as flat records: for its CSV, and for its tables' cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isofire.firing.measures import Measure, columns, shown_in
from isofire.report.entries import LABELS, Entry
from isofire.report.gained import gains_of
from isofire.report.numbers import fixed, percent, points, significant, times, with_spread

SCORES = ("accuracy", "accuracy_fp", "agreement")


def records(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A record a setting: labels, n and seeds, `_mean` and `_sd` of each measure, drift in units of the reference."""
    return [_record(entry) for entry in entries]


Places = Mapping[str, int]
"""Decimals of a column, by its key."""


def places_of(entries: Sequence[Entry]) -> Places:
    """Decimals that all settings of a table share: two digits of the least that is not 0, from three to six."""
    found = {"emd": _places([entry.drift for entry in entries])}
    for measure in beside_drift(row for entry in entries for row in entry.rows):
        if not measure.percent:
            found[measure.headline] = _places([entry.mean(measure.headline) for entry in entries])
    return found


def _places(values: Sequence[float]) -> int:
    least = min((abs(value) for value in values if math.isfinite(value) and value), default=1.0)
    return min(6, max(3, 1 - math.floor(math.log10(least))))


def cells_of(entry: Entry, places: Places | None = None) -> dict[str, str]:
    """What the tables of a report say of a setting, as text.

    Parameters
    ----------
    places
        Decimals, for all settings of a table alike; None: `places_of` this one.
    """
    known = places_of([entry]) if places is None else places
    return {
        "accuracy": with_spread(percent(entry.mean("accuracy")), _or_none(percent, entry.spread("accuracy"))),
        "change": points(-entry.drop),
        "emd": with_spread(
            fixed(entry.drift, known["emd"]), _or_none(fixed, entry.spread(entry.measure), known["emd"])
        ),
        "multiple": times(entry.multiple) + ("" if entry.same_steps or entry.multiple is None else "†"),
        "kept": entry.verdict,
        **{measure.headline: _cell(entry, measure, known) for measure in beside_drift(entry.rows)},
    }


def beside_drift(rows: Iterable[Mapping[str, Any]]) -> list[Measure]:
    """The measures that have a column in a report's tables and a value in any of these rows, but for the drift."""
    # a row without the measure, or with null in JSON, has none
    present = {key for row in rows for key, value in row.items() if value is not None}
    return [m for m in shown_in("report") if m.name != "emd" and m.headline in present]


def measure_text(measure: Measure, value: float | None) -> str:
    """A measure's value as a report writes it."""
    return percent(value, 1) if measure.percent else significant(value)


def _cell(entry: Entry, measure: Measure, places: Places) -> str:
    def text(value: float) -> str:
        return percent(value, 1) if measure.percent else fixed(value, places[measure.headline])

    return with_spread(text(entry.mean(measure.headline)), _or_none(text, entry.spread(measure.headline)))


def _record(entry: Entry) -> dict[str, Any]:
    seeds = " ".join(str(row.get("seed")) for row in entry.rows)
    found: dict[str, Any] = {key: entry.label(key) for key in LABELS} | {"n_seeds": entry.n, "seeds": seeds}
    for key in ("n_images", "T"):
        found[key] = entry.label(key)
    for key in (*SCORES, *(key for key in columns() if key in entry.rows[0])):
        found[f"{key}_mean"] = entry.mean(key)
        found[f"{key}_sd"] = entry.spread(key)
    for gain in gains_of([entry]):
        found[f"{gain.key}_mean"], found[f"{gain.key}_fp_mean"] = gain.mean(entry), gain.mean(entry, "_fp")
    found["accuracy_drop_mean"], found["accuracy_drop_sd"] = entry.drop, entry.drop_spread
    found["reference"] = entry.reference
    found["reference_same_steps"] = None if entry.reference is None else entry.same_steps
    found |= entry.kept.columns() | {"undecided_for_want_of": entry.kept.open_by}
    found["cells"] = " ".join(entry.cells)
    return found


def _or_none(form: Any, value: float | None, *arguments: Any) -> str | None:
    return None if value is None else form(value, *arguments)
