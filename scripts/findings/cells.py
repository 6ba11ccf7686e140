"""The cells of the first look by name, as its tables and figures need them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
MODES = ("ptq", "qat")


@dataclass(frozen=True)
class Setting:
    """One column of a table: cells that differ only in bits and mode."""

    name: str
    target: str
    method: str
    range: str
    placement: str | None = None

    def holds(self, row: Row) -> bool:
        """Whether a row is one of its cells."""
        return all(row.get(key) == getattr(self, key) for key in ("target", "method", "range", "placement"))


WEIGHTS = (
    Setting("uniform ±1", "weights", "uniform", "[-1, 1]"),
    Setting("uniform ±10", "weights", "uniform", "[-10, 10]"),
    Setting("uniform MSE", "weights", "uniform", "mse"),
    Setting("LSQ", "weights", "lsq", "learned"),
    Setting("LQ ±1", "weights", "lqnet", "[-1, 1]"),
    Setting("LQ ±10", "weights", "lqnet", "[-10, 10]"),
    Setting("TaWQ", "weights", "tawq", "learned"),
)
MEMBRANES = (
    Setting("pre_fire [0, 1]", "membrane", "uniform", "[0, 1]", "pre_fire"),
    Setting("pre_fire [-1, 1]", "membrane", "uniform", "[-1, 1]", "pre_fire"),
    Setting("post_reset [0, 1]", "membrane", "uniform", "[0, 1]", "post_reset"),
    Setting("post_reset [-1, 1]", "membrane", "uniform", "[-1, 1]", "post_reset"),
)


class Cells:
    """All rows of the study."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def of(self, setting: Setting, mode: str) -> dict[float, Row]:
        """Bits -> row, ascending."""
        found = [row for row in self.rows if setting.holds(row) and row["mode"] == mode]
        return {row["bits"]: row for row in sorted(found, key=lambda row: row["bits"])}

    def get(self, setting: Setting, bits: float, mode: str) -> Row:
        """One cell.

        Raises
        ------
        KeyError
            If the study has no such cell.
        """
        return self.of(setting, mode)[bits]

    def control(self, mode: str) -> Row:
        """The cell that quantizes nothing."""
        (found,) = (row for row in self.rows if row["target"] == "none" and row["mode"] == mode)
        return found

    def both(self, mode: str) -> list[Row]:
        """Cells with weights and membranes quantized."""
        return [row for row in self.rows if row["target"] == "both" and row["mode"] == mode]

    def quantized(self, mode: str | None = None, target: str | None = None) -> list[Row]:
        """Cells that quantize something."""
        return [
            row
            for row in self.rows
            if row["target"] != "none" and mode in (None, row["mode"]) and target in (None, row["target"])
        ]


def emd(row: Row) -> float:
    """Mean over layers, in spikes per neuron per step."""
    return float(row["emd_layer_mean"])


def rank_correlation(a: Iterable[float], b: Iterable[float]) -> float:
    """Spearman's, with mean ranks for ties; NaN if one side is constant."""
    from scipy.stats import spearmanr

    found = spearmanr(list(a), list(b)).statistic
    return float(found) if found is not None else math.nan
