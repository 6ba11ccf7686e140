"""Settings of a sweep: the rows that differ in their seed alone, with mean, spread and verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from isofire.firing.evidence.kept import Kept, Spreads, drift_of, kept, measure_of, number
from isofire.firing.evidence.outcome import MARKS, Margins, Outcome
from isofire.report.palette import Row, bits_text
from isofire.study import is_control
from isofire.study.reference import Reference, controls_of, reference_of

LABELS = ("baseline", "model", "data", "target", "method", "bits", "range", "granularity", "placement", "options",
          "mode", "spec")  # fmt: skip

ORDER: dict[Outcome, int] = {"keeps": 0, "undecided": 1, "fails": 2}
"""Outcomes, the best first."""


@dataclass(frozen=True)
class Entry:
    """One setting and its rows, one a seed.

    Attributes
    ----------
    number
        Position in the report, from 0.
    rows, references
        As many as there are seeds.
    measure
        The drift: a column of all rows of the report, see `isofire.firing.evidence.kept.measure_of`.
    margins
        What the verdict allows.
    spreads
        How far seeds of all settings of its baseline and mode differ.
    """

    number: int
    rows: tuple[Row, ...]
    references: tuple[Reference | None, ...]
    measure: str
    margins: Margins
    spreads: Spreads

    def label(self, key: str) -> Any:
        """What all rows of the setting share."""
        return self.rows[0].get(key)

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.rows)

    @property
    def cells(self) -> tuple[str, ...]:
        """Keys of the cells."""
        return tuple(str(row["cell"]) for row in self.rows)

    @property
    def is_control(self) -> bool:
        """Whether nothing was quantized."""
        return is_control(dict(self.rows[0]))

    def mean(self, key: str) -> float:
        """Mean over seeds; NaN where a row has no value."""
        return statistics.fmean(number(row.get(key)) for row in self.rows)

    def spread(self, key: str) -> float | None:
        """Standard deviation over seeds (divided by n - 1); None for one seed."""
        values = [number(row.get(key)) for row in self.rows]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def drop(self) -> float:
        """Mean accuracy lost against the baseline of the same seed, a share."""
        return statistics.fmean(row["accuracy_fp"] - row["accuracy"] for row in self.rows)

    @property
    def drop_spread(self) -> float | None:
        """Standard deviation of `drop` over seeds."""
        values = [row["accuracy_fp"] - row["accuracy"] for row in self.rows]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def drift(self) -> float:
        """Mean drift over seeds, in spikes per neuron per step."""
        return self.mean(self.measure)

    @cached_property
    def kept(self) -> Kept:
        """Whether accuracy and firing are kept: the one rule of `isofire.firing.evidence.kept`."""
        floors = [None if reference is None else reference.floor for reference in self.references]
        return kept(self.rows, floors, self.margins, self.measure, self.spreads)

    @property
    def outcome(self) -> Outcome:
        """Of accuracy and firing together."""
        return self.kept.outcome

    @property
    def verdict(self) -> str:
        """Mark and words, such as "✗ fails firing"."""
        return f"{MARKS[self.outcome]} {self.kept.words}"

    def overlaps(self, other: Entry) -> bool:
        """Whether the intervals of both drifts have a value in common, so that these images do not rank them."""
        (low, high), (least, most) = self._ends, other._ends
        return low <= most and least <= high

    @cached_property
    def _ends(self) -> tuple[float, float]:
        parts = [drift_of(row, self.measure) for row in self.rows]
        ends = min(part.low for part in parts), max(part.high for part in parts)
        return (self.drift, self.drift) if math.isnan(sum(ends)) else ends

    @property
    def multiple(self) -> float | None:
        """Mean drift in units of the mean reference; None if a seed has no reference."""
        return None if self.kept.multiple is None else self.kept.multiple.estimate

    @property
    def reference(self) -> str | None:
        """What drift is held against, as `Reference.kind`; None if a seed has no reference."""
        return _one_name({None if reference is None else reference.kind for reference in self.references})

    @property
    def same_steps(self) -> bool:
        """Whether the references went through the same steps as the cells."""
        return all(reference is None or reference.same_steps for reference in self.references)


def entries_of(rows: Sequence[Row], margins: Margins | None = None) -> tuple[Entry, ...]:
    """Rows gathered by setting, in the order in which the settings first occur."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(key)) for key in LABELS), []).append(row)
    controls, measure, allowed = controls_of(rows), measure_of(rows), margins or Margins()
    procedures: dict[tuple[Any, ...], list[list[Row]]] = {}
    for found in groups.values():
        procedures.setdefault(_procedure(found[0]), []).append(found)
    spreads = {key: Spreads.of(settings, measure) for key, settings in procedures.items()}
    return tuple(
        Entry(
            number=place,
            rows=tuple(found),
            references=tuple(reference_of(row, controls, measure) for row in found),
            measure=measure,
            margins=allowed,
            spreads=spreads[_procedure(found[0])],
        )
        for place, found in enumerate(groups.values())
    )


def _procedure(row: Row) -> tuple[Any, ...]:
    """What seeds do is alike for settings of one baseline and mode."""
    return row.get("baseline"), row.get("mode")


def title_of(row: Row) -> str:
    """A setting in a few words, such as "weights lqnet 4 bit, [-1, 1], per channel, ptq"."""
    if is_control(dict(row)):
        return f"control: {row.get('method')} ({row.get('mode')})"
    span, per = row.get("range"), row.get("granularity")
    parts = [f"{row.get('target')} {row.get('method')} {bits_text(row.get('bits'))} bit"]
    parts += [f"{span} range" if span == "learned" else span, None if per is None else f"per {per}"]
    parts += [row.get("placement"), row.get("options"), row.get("mode")]
    return ", ".join(str(part) for part in parts if part is not None)


def reference_name(entries: Sequence[Entry]) -> str | None:
    """What the drifts of these settings are held against: a kind, or "reference" for several; None for none."""
    return _one_name({entry.reference for entry in entries} - {None})


def range_of(row: Row) -> str:
    """Range, and the placement and options that tell settings of one range apart."""
    parts = [row.get("range"), row.get("placement"), row.get("options")]
    return " ".join(str(part) for part in parts if part is not None) or "none"


def _one_name(kinds: Set[str | None]) -> str | None:
    if None in kinds or not kinds:
        return None
    return "reference" if len(kinds) > 1 else next(iter(kinds))
