"""Which noise floor a row's drift is held against: the one place that chooses it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.firing.evidence.kept import Kept, drift_of, kept, measure_of, own_floor
from isofire.firing.evidence.noise_floor import FloorValue
from isofire.firing.evidence.outcome import Margins
from isofire.study.cell import is_control

_SAME_RUN = ("baseline", "mode", "seed")
_FLOORS = {"images": "image floor", "seeds": "seed floor", "control": "control"}

Row = Mapping[str, Any]
Controls = Mapping[tuple[Any, ...], Sequence[Row]]


@dataclass(frozen=True)
class Reference:
    """A drift that cannot be attributed to the quantizer.

    Attributes
    ----------
    floor
        Its value, above 0, in spikes per neuron per step, with its interval.
    kind
        "control" (a cell that quantized nothing), "image floor" (the baseline against itself on other images) or
        "seed floor" (networks of other seeds), see `isofire.firing.evidence.noise_floor`.
    same_steps
        Whether the cell went through the control's steps. Membranes that are quantized after training leave batch norm
        alone, and without quantizing would drift by 0.
    """

    floor: FloorValue
    kind: str
    same_steps: bool = True

    @property
    def value(self) -> float:
        """Of the floor."""
        return self.floor.value

    def multiple(self, drift: float) -> float:
        """The drift in units of this reference."""
        return drift / self.value


def controls_of(rows: Sequence[Row]) -> Controls:
    """The rows that quantized nothing, by baseline, mode and seed."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if is_control(dict(row)):
            found.setdefault(_run_of(row), []).append(row)
    return found


def reference_of(row: Row, controls: Controls, measure: str) -> Reference | None:
    """The larger of the row's noise floor and the drift of its control: less cannot be attributed to the quantizer.

    The floor is the row's own, in its columns; by default the image floor of 1,000 images. The control is that of the
    same mode, baseline and seed; one that went through other steps than the row is taken only where there is no floor.
    A control has its own floor alone. None without floor and control, or where neither drifts at all.
    """
    floor = _floor(row, measure)
    control = None if is_control(dict(row)) else _control(row, controls, measure)
    if floor is None or control is None:
        return floor or control
    return control if control.same_steps and control.value > floor.value else floor


def judged(rows: Sequence[Row], margins: Margins | None = None) -> list[dict[str, Any]]:
    """Rows with the columns of their verdict, each held against its reference among these rows.

    A control has a verdict too: what the procedure does to firing without quantizing.
    """
    controls, measure = controls_of(rows), measure_of(rows)
    found = []
    for row in rows:
        reference = reference_of(row, controls, measure)
        verdict = _kept(row, reference, margins, measure)
        known = {"reference": None if reference is None else reference.kind}
        found.append({**row, **verdict.columns(), **known})
    return found


def _kept(row: Row, reference: Reference | None, margins: Margins | None, measure: str) -> Kept:
    return kept([row], [None if reference is None else reference.floor], margins, measure)


def _floor(row: Row, measure: str) -> Reference | None:
    found = own_floor(row, measure)
    return None if found is None else Reference(found, _FLOORS.get(str(row.get("floor")), "noise floor"))


def _control(row: Row, controls: Controls, measure: str) -> Reference | None:
    found = sorted(controls.get(_run_of(row), ()), key=lambda other: other.get("options") != row.get("options"))
    if not found:
        return None
    drift = drift_of(found[0], measure)
    if not (math.isfinite(drift.estimate) and drift.estimate > 0):
        return None
    floor = FloorValue(value=drift.estimate, low=drift.low, high=drift.high, noise=drift.noise)
    return Reference(floor, "control", _same_steps(row))


def _run_of(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in _SAME_RUN)


def _same_steps(row: Row) -> bool:
    options = str(row.get("options") or "")
    if row.get("mode") != "ptq" or "reestimate_bn=always" in options:
        return True
    return row.get("target") != "membrane" and "reestimate_bn=never" not in options
