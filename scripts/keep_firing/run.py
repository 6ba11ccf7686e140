"""The stored study, its cells grouped over seeds."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from isofire.study import read_rows

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "2026-11-28_keep-firing"
IDENTITY = ("target", "method", "bits", "range", "granularity", "placement", "options", "mode")

Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """One setting, over the seeds that choose its calibration images.

    Parameters
    ----------
    rows
        A row for each seed.
    drops
        For each seed, (low, estimate, high) of the accuracy lost, in points: the 95 % interval over images.
    control
        EMD of the control of the same mode, its mean over seeds.
    """

    rows: list[Row]
    drops: list[tuple[float, float, float]]
    control: float

    @property
    def drop(self) -> float:
        """Points of accuracy lost, mean over seeds."""
        return mean(estimate for _, estimate, _ in self.drops)

    @property
    def emd(self) -> float:
        """Mean over seeds."""
        return mean(row["emd_layer_mean"] for row in self.rows)

    @property
    def over_control(self) -> float:
        return self.emd / self.control

    @property
    def over_images(self) -> float:
        """EMD as a multiple of the baseline's on other images, mean over seeds."""
        return mean(row["emd_over_floor"] for row in self.rows)

    @property
    def keeps_accuracy(self) -> bool:
        """Whether every seed's interval of the accuracy lost reaches down to 0."""
        return all(low <= 0 for low, _, _ in self.drops)

    @property
    def keeps_firing(self) -> bool:
        """Whether no seed's drift can be told from the baseline on other images."""
        return all(row["within_noise"] for row in self.rows)

    def span(self, column: str) -> tuple[float, float]:
        """Least and greatest value over seeds."""
        values = [row[column] for row in self.rows]
        return min(values), max(values)


def identity(row: Row) -> tuple[Any, ...]:
    """What a setting's rows share, whatever their seed."""
    return tuple(row[name] for name in IDENTITY)


def groups(rows: Iterable[Row], decisions: dict[str, Any]) -> dict[tuple[Any, ...], Group]:
    """The rows by setting, in their order."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    controls: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[identity(row)].append(row)
        if row["target"] == "none":
            controls[row["mode"]].append(row["emd_layer_mean"])
    return {
        key: Group(
            rows=some,
            drops=[_points(decisions[row["cell"]]["accuracy_drop"]) for row in some],
            control=mean(controls[some[0]["mode"]]),
        )
        for key, some in found.items()
    }


def _points(interval: dict[str, float]) -> tuple[float, float, float]:
    return 100 * interval["low"], 100 * interval["estimate"], 100 * interval["high"]


def commits() -> dict[str, int]:
    """Commit -> cells of the stored study that were run on it."""
    decisions = json.loads((FOLDER / "decisions.json").read_text(encoding="utf-8"))
    return dict(Counter(cell["commit"][:12] for cell in decisions.values()))


def stored() -> dict[tuple[Any, ...], Group]:
    """The groups of the stored study."""
    rows = [dict(row) for row in read_rows(FOLDER / "results.json")]
    return groups(rows, json.loads((FOLDER / "decisions.json").read_text(encoding="utf-8")))
