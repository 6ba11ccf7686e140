"""What a cell's drift is held against: the one place that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.study import is_control

DRIFT = "emd_layer_mean"
_SAME_RUN = ("baseline", "mode", "seed")
_FLOORS = {"images": "image floor", "seeds": "seed floor", "control": "control"}


@dataclass(frozen=True)
class Reference:
    """A drift that cannot be attributed to the quantizer.

    Attributes
    ----------
    value
        In the unit of `emd_layer_mean`, spikes per neuron per step; above 0.
    kind
        "control" (a cell that quantized nothing), "image floor" (the baseline against itself on other images) or
        "seed floor" (networks of other seeds), see `isofire.firing.evidence.noise_floor`.
    same_steps
        Whether the cell went through the control's steps. Membranes that are quantized after training leave batch norm
        alone, and without quantizing would drift by 0.
    """

    value: float
    kind: str
    same_steps: bool = True

    def multiple(self, drift: float) -> float:
        """The drift in units of this reference."""
        return drift / self.value


Controls = Mapping[tuple[Any, ...], Sequence[Mapping[str, Any]]]


def controls_of(rows: Sequence[Mapping[str, Any]]) -> Controls:
    """The rows that quantized nothing, by baseline, mode and seed."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if is_control(dict(row)):
            found.setdefault(_run_of(row), []).append(row)
    return found


def reference_of(row: Mapping[str, Any], controls: Controls) -> Reference | None:
    """The larger of the row's noise floor and the drift of its control: less cannot be attributed to the quantizer.

    The floor is the row's own column `emd_floor`, of the kind in its column `floor`. The control is that of the same
    mode, baseline and seed; one that went through other steps than the row is taken only where there is no floor. None
    for a control, and without floor and control or where neither drifts at all.
    """
    if is_control(dict(row)):
        return None
    floor, control = _floor(row), _control(row, controls)
    if floor is None or control is None:
        return floor or control
    return control if control.same_steps and control.value > floor.value else floor


def _floor(row: Mapping[str, Any]) -> Reference | None:
    value = _positive(row.get("emd_floor"))
    return None if value is None else Reference(value, _FLOORS.get(str(row.get("floor")), "noise floor"))


def _control(row: Mapping[str, Any], controls: Controls) -> Reference | None:
    found = sorted(controls.get(_run_of(row), ()), key=lambda other: other.get("options") != row.get("options"))
    drift = _positive(found[0][DRIFT]) if found else None
    return None if drift is None else Reference(drift, "control", _same_steps(row))


def _run_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in _SAME_RUN)


def _same_steps(row: Mapping[str, Any]) -> bool:
    options = str(row.get("options") or "")
    if row.get("mode") != "ptq" or "reestimate_bn=always" in options:
        return True
    return row.get("target") != "membrane" and "reestimate_bn=never" not in options


def _positive(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if known else None
