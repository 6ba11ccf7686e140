"""The stored studies, their cells grouped over seeds."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from isofire.study import read_rows

IDENTITY = ("baseline", "target", "method", "bits", "range", "granularity", "placement", "options", "mode")

Row = dict[str, Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Group:
    """One setting, over the seeds that choose its calibration images.

    Parameters
    ----------
    rows
        A row for each seed.
    drops
        For each seed, (low, estimate, high) of the accuracy lost, in points: the 95 % interval over images.
    controls
        A row for each seed of what was not quantized, of the same mode and without a loss on firing; none where that is
        the baseline itself.
    control_drops
        `drops` of those.
    """

    rows: list[Row]
    drops: list[tuple[float, float, float]]
    controls: list[Row]
    control_drops: list[tuple[float, float, float]]

    @property
    def drop(self) -> float:
        """Points of accuracy lost, mean over seeds."""
        return mean(estimate for _, estimate, _ in self.drops)

    @property
    def accuracy(self) -> float:
        """Share of the test images, mean over seeds."""
        return mean(row["accuracy"] for row in self.rows)

    @property
    def accuracy_fp(self) -> float:
        """The baseline's, mean over seeds."""
        return mean(row["accuracy_fp"] for row in self.rows)

    @property
    def agreement(self) -> float:
        """Share of the test images that get the baseline's class, mean over seeds."""
        return mean(row["agreement"] for row in self.rows)

    @property
    def emd(self) -> float:
        """Mean over seeds."""
        return mean(row["emd_layer_mean"] for row in self.rows)

    @property
    def paired(self) -> float:
        """Mean absolute change of a neuron's rate, mean over seeds."""
        return mean(row["paired_mae"] for row in self.rows)

    @property
    def behind_control(self) -> float:
        """Points of accuracy below the control's, mean over seeds."""
        return self.drop - mean(estimate for _, estimate, _ in self.control_drops)

    @property
    def over_control(self) -> float:
        """EMD as a multiple of the control's, means over seeds; nan without a control."""
        return self.emd / mean(row["emd_layer_mean"] for row in self.controls) if self.controls else math.nan

    @property
    def over_images(self) -> float:
        """EMD as a multiple of the baseline's on as many other images, mean over seeds."""
        return mean(_over_images(row)[0] for row in self.rows)

    @property
    def keeps_accuracy(self) -> bool:
        """Whether every seed's interval of the accuracy lost reaches down to 0."""
        return all(low <= 0 for low, _, _ in self.drops)

    @property
    def keeps_accuracy_of_control(self) -> bool:
        """The same against the control, with the intervals of both against the baseline taken for independent, which
        is on the wide side: they share the baseline."""
        return all(low <= 0 for low, _ in self._behind_control())

    def _behind_control(self) -> list[tuple[float, float]]:
        return [
            (
                mine[1] - other[1] - math.hypot(mine[1] - mine[0], other[2] - other[1]),
                mine[1] - other[1] + math.hypot(mine[2] - mine[1], other[1] - other[0]),
            )
            for mine, other in zip(self.drops, self.control_drops, strict=True)
        ]

    @property
    def drop_interval(self) -> Interval:
        """From the least to the greatest end of the seeds' 95 % intervals of the accuracy lost, in points."""
        return _around((low, high) for low, _, high in self.drops)

    @property
    def behind_control_interval(self) -> Interval:
        """The same of the points below the control, as in `keeps_accuracy_of_control`."""
        return _around(self._behind_control())

    @property
    def over_images_interval(self) -> Interval:
        """The same of EMD over its floor of images, which is taken for known."""
        return _around((row["emd_low"] / row["emd_floor"], row["emd_high"] / row["emd_floor"]) for row in self.rows)

    @property
    def over_control_interval(self) -> Interval | None:
        """The same of EMD over the control's, each at the end that makes it wider; None without a control."""
        pairs = [*zip(self.rows, self.controls, strict=True)] if self.controls else []
        ends = [(row["emd_low"] / other["emd_high"], row["emd_high"] / other["emd_low"]) for row, other in pairs]
        return _around(ends) if ends else None

    @property
    def keeps_firing(self) -> bool:
        """Whether no seed's drift can be told from the baseline on as many other images."""
        return all(_over_images(row)[1] for row in self.rows)

    @property
    def keeps_firing_of_control(self) -> bool:
        """Whether every seed's interval of EMD reaches down to that of the control."""
        return all(row["emd_low"] <= other["emd_high"] for row, other in zip(self.rows, self.controls, strict=True))

    def span(self, column: str) -> tuple[float, float]:
        """Least and greatest value over seeds."""
        values = [row[column] for row in self.rows]
        return min(values), max(values)


def _around(intervals: Iterable[Interval]) -> Interval:
    lows, highs = zip(*intervals, strict=True)
    return min(lows), max(highs)


def _over_images(row: Row) -> tuple[float, bool]:
    """EMD over its floor of images; and whether drift can be told from its own, by the columns of the row's version.

    Older rows judged by the mean over layers, later ones by all neurons alike.
    """
    if "drift_over_floor" in row:
        return row["emd_layer_mean"] / row["emd_floor"], row["drift_over_floor_low"] <= 1
    return row["emd_over_floor"], row["within_noise"]


def identity(row: Row) -> tuple[Any, ...]:
    """What a setting's rows share, whatever their seed."""
    return tuple(row[name] for name in IDENTITY)


def groups(rows: Iterable[Row], decisions: dict[str, Any]) -> dict[tuple[Any, ...], Group]:
    """The rows by setting, in their order."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    controls: dict[tuple[str, str, int], Row] = {}
    for row in rows:
        found[identity(row)].append(row)
        if row["target"] == "none" and not row["options"]:
            controls[row["baseline"], row["mode"], row["seed"]] = row

    def drop(row: Row) -> tuple[float, float, float]:
        interval = decisions[row["cell"]]["accuracy_drop"]
        return 100 * interval["low"], 100 * interval["estimate"], 100 * interval["high"]

    def group(some: list[Row]) -> Group:
        beside = [controls[key] for row in some if (key := (row["baseline"], row["mode"], row["seed"])) in controls]
        return Group(some, [drop(row) for row in some], beside, [drop(row) for row in beside])

    return {key: group(some) for key, some in found.items()}


def commits(folder: Path) -> dict[str, int]:
    """Commit -> cells of a stored study that were run on it."""
    decisions = json.loads((folder / "decisions.json").read_text(encoding="utf-8"))
    return dict(Counter(cell["commit"][:12] for cell in decisions.values()))


def stored(folder: Path) -> dict[tuple[Any, ...], Group]:
    """The groups of a stored study."""
    rows = [dict(row) for row in read_rows(folder / "results.json")]
    return groups(rows, json.loads((folder / "decisions.json").read_text(encoding="utf-8")))
