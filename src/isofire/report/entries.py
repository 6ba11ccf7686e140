"""Settings of a sweep: the rows that differ in their seed alone, with mean, spread and verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from isofire.report.reference import DRIFT, Reference, controls_of, reference_of
from isofire.study import is_control

Row = Mapping[str, Any]

LABELS = ("baseline", "model", "data", "target", "method", "bits", "range", "granularity", "placement", "options",
          "mode", "spec")  # fmt: skip

KEPT = ("both", "accuracy", "firing", "neither")
"""What a setting may keep, the best first."""


@dataclass(frozen=True)
class Entry:
    """One setting and its rows, one a seed.

    Attributes
    ----------
    number
        Position in the report, from 0.
    rows, references
        As many as there are seeds.
    """

    number: int
    rows: tuple[Row, ...]
    references: tuple[Reference | None, ...]

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
        return statistics.fmean(_number(row.get(key)) for row in self.rows)

    def spread(self, key: str) -> float | None:
        """Standard deviation over seeds (divided by n - 1); None for one seed."""
        values = [_number(row.get(key)) for row in self.rows]
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
    def standard_error(self) -> float:
        """Of the baseline's accuracy on one seed's test images: sqrt(p (1 - p) / n)."""
        share = self.mean("accuracy_fp")
        return math.sqrt(max(0.0, share * (1 - share)) / self.mean("n_images"))

    @property
    def multiple(self) -> float | None:
        """Mean drift in units of the mean reference; None if a seed has no reference."""
        known = [reference.value for reference in self.references if reference is not None]
        if len(known) < self.n:
            return None
        return self.mean(DRIFT) / statistics.fmean(known)

    @property
    def reference(self) -> str | None:
        """What drift is held against, as `Reference.kind`; None if a seed has no reference."""
        return _one_name({None if reference is None else reference.kind for reference in self.references})

    @property
    def same_steps(self) -> bool:
        """Whether the references went through the same steps as the cells."""
        return all(reference is None or reference.same_steps for reference in self.references)

    @property
    def keeps_accuracy(self) -> bool:
        """Whether the accuracy lost is at most one standard error."""
        return self.drop <= self.standard_error

    @property
    def keeps_firing(self) -> bool | None:
        """Whether the setting drifts no more than its reference; None without one."""
        return None if self.multiple is None else self.multiple <= 1

    @property
    def kept(self) -> str:
        """One of `KEPT`; firing without a reference is not known to be kept."""
        both = self.keeps_accuracy, self.keeps_firing is True
        return {(True, True): "both", (True, False): "accuracy", (False, True): "firing"}.get(both, "neither")


def entries_of(rows: Sequence[Row]) -> tuple[Entry, ...]:
    """Rows gathered by setting, in the order in which the settings first occur."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(key)) for key in LABELS), []).append(row)
    controls = controls_of(rows)
    return tuple(
        Entry(number, tuple(found), tuple(reference_of(row, controls) for row in found))
        for number, found in enumerate(groups.values())
    )


def family_of(row: Row) -> str:
    """What shares a colour: what is quantized, and how."""
    return "control" if is_control(dict(row)) else f"{row.get('target')}: {row.get('method')}"


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


def bits_text(bits: Any) -> str:
    """Bits without needless decimals; a dash for none."""
    if bits is None:
        return "-"
    return f"{bits:.3g}" if isinstance(bits, int | float) else str(bits)


def bits_order(bits: Any) -> tuple[float, str]:
    """For sorting bits that may be numbers or text such as "2 | 4"."""
    if isinstance(bits, int | float):
        return float(bits), ""
    head = str(bits).partition("|")[0].strip()
    return (float(head) if head.replace(".", "", 1).isdigit() else math.inf), str(bits)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _one_name(kinds: Set[str | None]) -> str | None:
    if None in kinds or not kinds:
        return None
    return "reference" if len(kinds) > 1 else next(iter(kinds))
