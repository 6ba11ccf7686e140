"""What a cell's drift is held against: the one place that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.study import is_control

DRIFT = "emd_layer_mean"
_SAME_RUN = ("baseline", "mode", "seed")


@dataclass(frozen=True)
class Reference:
    """A drift that says nothing about a quantizer.

    Attributes
    ----------
    value
        In the unit of `emd_layer_mean`, spikes per neuron per step; above 0.
    kind
        "floor" (a measured noise floor) or "control" (a cell that quantized nothing).
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


def reference_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Reference | None:
    """The reference of a row: its own column `floor` if it has one, else the control of the same mode, baseline and seed.

    None for a control, without a control, and where the control did not drift at all.
    """
    floor = row.get("floor")
    if _is_positive(floor):
        return Reference(float(floor), "floor")
    if is_control(dict(row)):
        return None
    controls = [other for other in rows if is_control(dict(other)) and _belongs(other, row)]
    controls.sort(key=lambda other: other.get("options") != row.get("options"))
    if not controls or not _is_positive(controls[0][DRIFT]):
        return None
    return Reference(float(controls[0][DRIFT]), "control", _same_steps(row))


def keeps_firing(row: Mapping[str, Any], reference: Reference | None) -> bool | None:
    """Whether a row drifts no more than its reference; None without one. A column `within_noise` has the last word."""
    within = row.get("within_noise")
    if within is not None:
        return bool(within)
    return None if reference is None else row[DRIFT] <= reference.value


def _belongs(control: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(control.get(key) == row.get(key) for key in _SAME_RUN)


def _same_steps(row: Mapping[str, Any]) -> bool:
    options = str(row.get("options") or "")
    if row.get("mode") != "ptq" or "reestimate_bn=always" in options:
        return True
    return row.get("target") != "membrane" and "reestimate_bn=never" not in options


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
