"""Does EMD tell more than the mean rate? What of a sweep's outcomes each drift measure explains.

Every cell of a sweep is a point: how far its firing drifted by several measures, and what came of it. If |dMFR|, one
subtraction, explains as much as EMD, EMD is not worth its name; if paired drift explains more, neurons matter and not
their distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from isofire.errors import DataError
from isofire.firing.cost.bound import synops_drift
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.firing.counts import SpikeCounts

Values = NDArray[np.float64]

BASE = "|dMFR|"
PREDICTORS = (BASE, "shift", "emd_layer_mean", "emd_weighted", "paired_mae")
"""Change of the mean rate over all neurons, mean of the layers' changes, two means of their EMDs, paired drift."""
OUTCOMES = ("synops", "peak_events", "disagreement", "accuracy_change", "noise_kept")
LEAST_CELLS = 8
PERMUTATIONS = 2000


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One predictor and one outcome.

    Parameters
    ----------
    outcome, predictor
        Their names.
    r2, r2_ranks
        Share of the outcome's variance between cells that a straight line explains, in values and in ranks.
    left_out
        The same where each cell is predicted from all others; below 0 where the mean of the others predicts better.
    added, added_ranks
        What the predictor explains of what |dMFR| leaves unexplained (squared partial correlation); NaN for |dMFR|
        itself.
    p, p_ranks
        Share of 2,000 permutations of what |dMFR| leaves (Freedman and Lane) in which chance explains as much.
    """

    outcome: str
    predictor: str
    r2: float
    r2_ranks: float
    left_out: float
    added: float
    added_ranks: float
    p: float
    p_ranks: float


@dataclass(frozen=True, kw_only=True)
class ValueOfEMD:
    """All predictors and outcomes.

    Parameters
    ----------
    explained
        Outcome by outcome, predictors in the order of `PREDICTORS`.
    cells
        Outcome -> cells behind it.
    """

    explained: tuple[Explained, ...]
    cells: Mapping[str, int]

    def get(self, outcome: str, predictor: str) -> Explained:
        """One of them."""
        return next(item for item in self.explained if (item.outcome, item.predictor) == (outcome, predictor))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"cells": dict(self.cells), "explained": [asdict(item) for item in self.explained]}

    def table(self) -> str:
        """A Markdown table; "beyond" is `added`, what the predictor explains beyond |dMFR|."""
        lines = [
            "| outcome | cells | predictor | R² | R², ranks | R², left out | beyond | p | beyond, ranks | p |",
            "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for item in self.explained:
            numbers = [_shown(value) for value in (item.r2, item.r2_ranks, item.left_out)]
            numbers += [_shown(item.added), _shown_p(item.p), _shown(item.added_ranks), _shown_p(item.p_ranks)]
            shown = " | ".join(numbers)
            name = item.predictor.replace("|", "\\|")
            lines.append(f"| {item.outcome} | {self.cells[item.outcome]} | {name} | {shown} |")
        return "\n".join(lines)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _shown_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else _shown(value)


def measured(
    row: Mapping[str, Any], baseline: SpikeCounts, quantized: SpikeCounts, reached: SynopsPerSpike | None = None
) -> dict[str, Any]:
    """A row with `peak_events` and `peak_events_fp`, and with `synops` where it had none and `reached` is given.

    Peak events are those of the busiest layer in its busiest block of images: spikes of an image and step, a mean over
    the block. Stored counts hold no single images; `measure_cost` has their percentiles.
    """
    found = {**row, "peak_events": _peak(quantized), "peak_events_fp": _peak(baseline)}
    if row.get("synops") is None and reached is not None:
        total = synops_drift(baseline, quantized, reached, reached).overall
        found |= {"synops": total.quantized, "synops_fp": total.baseline, "synops_bound": total.bound}
    return found


def value_of_emd(rows: Sequence[Mapping[str, Any]], *, seed: int = 0, controls: bool = False) -> ValueOfEMD:
    """How much of the change in cost and behaviour each drift measure explains, over the cells of a sweep.

    Outcomes: relative change of `synops` and `peak_events`, in size; share of images on which the class changed; change
    of accuracy, in size; change, in size, of the share of decisions that stand noise on the input (`noise_kept` and
    `noise_kept_fp`, see `isofire.study.decisions_kept`). An outcome whose columns a row lacks leaves that row out; one
    with fewer than 8 cells is left out.

    Cells of one baseline share its images and seed, so p values are of these cells, not of networks in general.

    Parameters
    ----------
    rows
        Of finished cells, as `isofire.load_results(DIR)` gives them, with `measured` for peak events.
    seed
        Of the permutations.
    controls
        Whether cells that quantize nothing count too.

    Raises
    ------
    DataError
        If no outcome has enough cells, or a row lacks a drift measure.
    """
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"rows of finished cells are needed, such as load_results(DIR), got a {type(rows).__name__}")
    kept = [row for row in rows if controls or row.get("target") != "none"]
    explained, cells = [], {}
    rng = np.random.default_rng(seed)
    for outcome in OUTCOMES:
        points = [(_predictors(row), value) for row in kept if (value := _outcome(row, outcome)) is not None]
        if len(points) < LEAST_CELLS:
            continue
        cells[outcome] = len(points)
        y = np.array([value for _, value in points])
        columns = {name: np.array([x[name] for x, _ in points]) for name in PREDICTORS}
        explained += [_explained(outcome, name, columns[BASE], columns[name], y, rng) for name in PREDICTORS]
    if not explained:
        raise DataError(
            f"at least {LEAST_CELLS} cells with an outcome are needed, got {len(kept)} cells; run a larger sweep"
        )
    return ValueOfEMD(explained=tuple(explained), cells=cells)


def _predictors(row: Mapping[str, Any]) -> dict[str, float]:
    def number(name: str) -> float:
        value = row.get(name)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise DataError(f"every row needs a number for {name}, got {value!r} (cell {row.get('cell', 'unnamed')})")
        return float(value)

    return {BASE: abs(number("mfr") - number("mfr_fp")), **{name: number(name) for name in PREDICTORS[1:]}}


def _outcome(row: Mapping[str, Any], outcome: str) -> float | None:
    match outcome:
        case "disagreement":
            value = 1 - row["agreement"]
        case "accuracy_change":
            value = abs(row["accuracy"] - row["accuracy_fp"])
        case "noise_kept":
            value = abs(row.get("noise_kept", math.nan) - row.get("noise_kept_fp", math.nan))
        case _:
            after, before = row.get(outcome), row.get(f"{outcome}_fp")
            if after is None or before is None or not before > 0:
                return None
            value = abs(after / before - 1)
    return float(value) if math.isfinite(value) else None


def _peak(counts: SpikeCounts) -> float:
    used = counts.images_per_block > 0
    images = counts.images_per_block[used].double() * counts.steps
    return max(float((tensor.flatten(1)[used].double().sum(1) / images).max()) for tensor in counts.counts.values())


def _explained(outcome: str, predictor: str, base: Values, x: Values, y: Values, rng: np.random.Generator) -> Explained:
    base_ranks, x_ranks, y_ranks = rankdata(base), rankdata(x), rankdata(y)
    nothing = (math.nan, math.nan)
    added, p = nothing if predictor == BASE else _beyond(base, x, y, rng)
    added_ranks, p_ranks = nothing if predictor == BASE else _beyond(base_ranks, x_ranks, y_ranks, rng)
    return Explained(
        outcome=outcome,
        predictor=predictor,
        r2=_square(x, y),
        r2_ranks=_square(x_ranks, y_ranks),
        left_out=_left_out(x, y),
        added=added,
        added_ranks=added_ranks,
        p=p,
        p_ranks=p_ranks,
    )


def _square(x: Values, y: Values) -> float:
    """Squared correlation; NaN where one of them does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    a, b = x - x.mean(), y - y.mean()
    return float(a @ b) ** 2 / float((a @ a) * (b @ b))


def _left_out(x: Values, y: Values) -> float:
    """1 - squared errors of predicting each cell by a line through the others / those of the others' mean."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    n = len(x)
    a = x - x.mean()
    square = float(a @ a)
    rest = _residuals(x, y)
    leverage = 1 / n + a * a / square
    # a cell that alone decides the slope cannot be predicted from the others
    errors = rest / np.maximum(1 - leverage, 1e-12)
    plain = (y - y.mean()) * n / (n - 1)
    return 1 - float(errors @ errors) / float(plain @ plain)


def _residuals(x: Values, y: Values) -> Values:
    a, b = x - x.mean(), y - y.mean()
    square = float(a @ a)
    return b - a * (float(a @ b) / square) if square > 0 else b


def _beyond(base: Values, x: Values, y: Values, rng: np.random.Generator) -> tuple[float, float]:
    """Squared partial correlation of x and y given `base`, and its permutation p value; NaN if y does not vary."""
    if np.ptp(y) == 0:
        return math.nan, math.nan
    rest_x, rest_y = _residuals(base, x), _residuals(base, y)
    # rounding must not pass for something left to explain
    if np.ptp(rest_x) <= 1e-9 * np.ptp(x) or np.ptp(rest_y) <= 1e-9 * np.ptp(y):
        return 0.0, 1.0
    found = _square(rest_x, rest_y)
    shuffled = rng.permuted(np.tile(rest_y, (PERMUTATIONS, 1)), axis=1)
    # Freedman and Lane: the shuffled rest is put back on the fit, so it has to be cleared of `base` anew
    a = base - base.mean()
    if (square := float(a @ a)) > 0:
        shuffled -= np.outer(shuffled @ a / square, a)
    cross = shuffled @ rest_x
    chance = cross**2 / ((shuffled**2).sum(1) * float(rest_x @ rest_x))
    return found, (1 + int((chance >= found - 1e-12).sum())) / (1 + PERMUTATIONS)
