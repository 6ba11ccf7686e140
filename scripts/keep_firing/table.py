"""All goals side by side: each on every network and number of steps that it was tried on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median

from scripts.keep_firing.goals import AFTER_TRAINING, COMPENSATED, ONE_EPOCH, Goal
from scripts.keep_firing.losses import Beside, by_loss
from scripts.keep_firing.run import Group, Interval, stored
from scripts.keep_firing.studies import RESULTS, STUDIES

TIMES = RESULTS.parent / "benchmarks" / "results" / "calibration.json"
TWO_BITS = "isofire, keep-firing-2bit, 256 images"
FOLDERS = {study.config: study.folder for study in STUDIES}


@dataclass(frozen=True)
class Line:
    """A goal on one network.

    Parameters
    ----------
    network
        In a few words.
    studies
        Those that hold its settings; of all that fit, the one of least EMD counts.
    asked
        False where nothing was asked of this number of steps: it stands there for the curve.
    """

    goal: Goal
    network: str
    studies: tuple[str, ...]
    asked: bool = True

    def best(self) -> tuple[str, Group] | None:
        """The study and the setting that come nearest; None where none was run."""
        found = [(name, self.goal.best(stored(FOLDERS[name]))) for name in self.studies]
        return min(((name, group) for name, group in found if group), key=lambda pair: pair[1].emd, default=None)


SEW8, SEW8_16 = "SEW-ResNet-8, CIFAR-10, T = 4", "SEW-ResNet-8, CIFAR-10, T = 16"
CSNN, EVENTS = "SpikingJelly's form, Fashion-MNIST, T = 4", "the NIR paper's, N-MNIST, T = 300"
_TWO, _ONE, _THREE_BEFORE, _TWO_BEFORE = AFTER_TRAINING[:4]
_WEIGHTS = ("gptq", "reconstruct")
LINES = (
    Line(_TWO, SEW8, ("keep-firing",)),
    Line(_TWO, CSNN, ("csnn",)),
    Line(_TWO, SEW8_16, ("steps",)),
    Line(_TWO, EVENTS, ("nmnist",)),
    Line(_ONE, SEW8, ("keep-firing",)),
    Line(_ONE, CSNN, ("csnn",)),
    Line(_ONE, SEW8_16, ("steps",), asked=False),
    Line(_ONE, EVENTS, ("nmnist",), asked=False),
    Line(_THREE_BEFORE, SEW8, ("keep-firing",)),
    Line(_TWO_BEFORE, SEW8, ("keep-firing",)),
    *(Line(goal, SEW8, _WEIGHTS) for goal in COMPENSATED),
    *(Line(goal, f"{SEW8}, one epoch", ("one-epoch-seeds",)) for goal in ONE_EPOCH),
)


def losses() -> list[Beside]:
    """What a loss on firing adds, of the settings that have one."""
    return [beside for beside in by_loss(stored(FOLDERS["digits-losses"])) if beside.loss]


def seconds() -> tuple[float, float] | None:
    """Wall and CPU time of the recipe at two bits, medians; None before it was timed."""
    times = json.loads(TIMES.read_text(encoding="utf-8"))["times"].get(TWO_BITS)
    if times is None:
        return None
    return median(times["wall_ms"]) / 1000, median(times["cpu_ms"]) / 1000


def drop(goal: Goal, group: Group) -> str:
    """The points of accuracy that a goal is about."""
    interval = group.behind_control_interval if goal.lost_to == "control" else group.drop_interval
    return _shown(goal.lost(group), interval)


def over_images(group: Group) -> str:
    """EMD over the floor of images."""
    return _shown(group.over_images, group.over_images_interval)


def over_control(group: Group) -> str:
    """EMD over the control's; nothing without one."""
    interval = group.over_control_interval
    return "" if interval is None else _shown(group.over_control, interval)


def _shown(value: float, interval: Interval) -> str:
    return f"{value:.2f} ({interval[0]:.2f} .. {interval[1]:.2f})"
