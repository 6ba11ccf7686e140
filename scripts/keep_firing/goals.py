"""What was aimed for, and whether the stored cells reach it."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        that cannot be told from it.
    lost_to
        Whose accuracy is to be kept: the "baseline"'s or the "control"'s.
    """

    name: str
    columns: dict[str, Any]
    points: float | None = None
    times: float | None = None
    of: str = "images"
    lost_to: str = "baseline"

    def best(self, groups: Groups) -> Group | None:
        """The setting that comes nearest; None if the study has none."""
        fitting = [group for group in groups.values() if all(group.rows[0][k] == v for k, v in self.columns.items())]
        return min(fitting, key=lambda group: group.emd, default=None)

    def asked(self) -> str:
        """The goal in words."""
        beside = " of the control" if self.lost_to == "control" else ""
        accuracy = "accuracy within noise" if self.points is None else f"within {self.points:g} points"
        what = "of the control" if self.of == "control" else "of the image floor"
        drift = f"within noise {what}" if self.times is None else f"at most {self.times:g}x that {what}"
        return f"{accuracy}{beside}, EMD {drift}"

    def lost(self, group: Group) -> float:
        """Points of accuracy."""
        return group.behind_control if self.lost_to == "control" else group.drop

    def reached(self, group: Group) -> str:
        """ "yes", or what is missed."""
        by_control = self.lost_to == "control"
        missed = []
        if self.points is None:
            if not (group.keeps_accuracy_of_control if by_control else group.keeps_accuracy):
                missed.append("accuracy")
        elif self.lost(group) > self.points:
            missed.append(f"accuracy by {self.lost(group) - self.points:.2f} points")
        if self.times is None:
            if not (group.keeps_firing_of_control if self.of == "control" else group.keeps_firing):
                missed.append("EMD")
        elif (multiple := group.over_control if self.of == "control" else group.over_images) > self.times:
            missed.append(f"EMD by {multiple - self.times:.2f}x")
        return "yes" if not missed else "no: " + ", ".join(missed)


_POST = {"mode": "ptq", "placement": "post_reset"}
_PRE = {"target": "membrane", "mode": "ptq", "placement": "pre_fire"}
AFTER_TRAINING = (
    Goal("2-bit states", {**_POST, "target": "membrane", "bits": 2}),
    Goal("1-bit states", {**_POST, "target": "membrane", "bits": 1}, points=0.5, times=1.5),
    Goal("3-bit states, pre_fire", {**_PRE, "bits": 3}),
    Goal("2-bit states, pre_fire", {**_PRE, "bits": 2}, points=1.0, times=2.5, of="control"),
    Goal("2-bit weights", {"mode": "ptq", "target": "weights", "bits": 2}, points=1.5, times=2.5, of="control"),
    Goal("2-bit weights, 2-bit states", {**_POST, "target": "both", "bits": 2}, points=1.5, times=2.5, of="control"),
    Goal("4-bit weights, 1-bit states", {**_POST, "target": "both", "bits": "4 | 1"}),
)
# the control stands for the floor, which other versions measure on other numbers of images
COMPENSATED = (*AFTER_TRAINING[4:6], replace(AFTER_TRAINING[6], of="control"))

_QAT: dict[str, Any] = {"mode": "qat", "placement": "post_reset"}
_CONTROL: dict[str, Any] = {"of": "control", "lost_to": "control"}
ONE_EPOCH = (
    Goal("1-bit states", {**_QAT, "target": "membrane", "bits": 1}, **_CONTROL),
    Goal("1.58-bit states", {**_QAT, "target": "membrane", "bits": 1.585}, **_CONTROL),
    Goal("2-bit weights, 2-bit states", {**_QAT, "target": "both", "bits": 2}, points=0.7, times=1.5, **_CONTROL),
    Goal("2-bit weights, 1-bit states", {**_QAT, "target": "both", "bits": "2 | 1"}, points=1.0, times=1.5, **_CONTROL),
    Goal("1-bit weights, 1-bit states", {**_QAT, "target": "both", "bits": 1}, points=3.0, **_CONTROL),
)
