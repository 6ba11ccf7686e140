"""What was aimed for, and whether the stored cells reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scripts.keep_firing.run import Group

Groups = dict[tuple[Any, ...], Group]


@dataclass(frozen=True)
class Goal:
    """One line of the table.

    Parameters
    ----------
    name
        What is quantized.
    columns
        Columns of the rows that it is about; of several such settings the one of least EMD counts.
    points
        Accuracy that may be lost, in points; None asks for a loss that cannot be told from none.
    times, of
        Drift that is allowed, as a multiple of the "control"'s or of the "images" floor; no multiple asks for a drift
        that cannot be told from the floor.
    """

    name: str
    columns: dict[str, Any]
    points: float | None = None
    times: float | None = None
    of: str = "images"

    def best(self, groups: Groups) -> Group | None:
        """The setting that comes nearest; None if the study has none."""
        fitting = [group for group in groups.values() if all(group.rows[0][k] == v for k, v in self.columns.items())]
        return min(fitting, key=lambda group: group.emd, default=None)

    def asked(self) -> str:
        """The goal in words."""
        accuracy = "accuracy within noise" if self.points is None else f"within {self.points:g} points"
        what = "of the control" if self.of == "control" else "of the image floor"
        drift = "within noise of the image floor" if self.times is None else f"at most {self.times:g}x that {what}"
        return f"{accuracy}, EMD {drift}"

    def reached(self, group: Group) -> str:
        """ "yes", or what is missed."""
        missed = []
        if self.points is None and not group.keeps_accuracy:
            missed.append("accuracy")
        elif self.points is not None and group.drop > self.points:
            missed.append(f"accuracy by {group.drop - self.points:.2f} points")
        multiple = group.over_control if self.of == "control" else group.over_images
        if self.times is None and not group.keeps_firing:
            missed.append("EMD")
        elif self.times is not None and multiple > self.times:
            missed.append(f"EMD by {multiple - self.times:.2f}x")
        return "yes" if not missed else "no: " + ", ".join(missed)


_POST = {"mode": "ptq", "placement": "post_reset"}
_PRE = {"target": "membrane", "mode": "ptq", "placement": "pre_fire"}
GOALS = (
    Goal("2-bit states", {**_POST, "target": "membrane", "bits": 2}),
    Goal("1-bit states", {**_POST, "target": "membrane", "bits": 1}, points=0.5, times=1.5),
    Goal("3-bit states, pre_fire", {**_PRE, "bits": 3}),
    Goal("2-bit states, pre_fire", {**_PRE, "bits": 2}, points=1.0, times=2.5, of="control"),
    Goal("2-bit weights", {"mode": "ptq", "target": "weights", "bits": 2}, points=1.5, times=2.5, of="control"),
    Goal("2-bit weights, 2-bit states", {**_POST, "target": "both", "bits": 2}, points=1.5, times=2.5, of="control"),
    Goal("4-bit weights, 1-bit states", {**_POST, "target": "both", "bits": "4 | 1"}),
)
