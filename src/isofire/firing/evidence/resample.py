"""Every drift measure of two recordings, computed anew for each of many draws of image blocks.

A draw is a row of weights, so resampled counts are one matrix product of small whole numbers, exact in float32. From
there a layer costs two histograms a draw: EMD, dead shares and ranks are all read from the cumulated histograms, as in
`emd_from_counts`. Where rates cannot share a short histogram, or neurons are few, they are sorted instead; the results
are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isofire.errors import DataError
from isofire.firing.counts import SpikeCounts
from isofire.firing.drift import check_match
from isofire.firing.evidence.draws import Draws
from isofire.firing.evidence.ranks import Values, rank_correlation, rank_correlations
from isofire.firing.measures import BUILT_IN, CHANGE, CUTS, FP, MEASURES, Combine, Firing, quantities
from isofire.firing.rates import is_dead

_EXACT = 2**24
_CHUNK = 2**21
_MAX_LEVELS = 2**17
_FEW = 1000
"""Neurons of a layer that are sorted for all draws at once before a histogram of each draw is made."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """Measures of R draws.

    Parameters
    ----------
    layers
        Layer -> measure -> float64 [R]. Measures are named as in `LayerDrift`; `mfr_change` and `dead_*_change` are
        the quantized network's minus the baseline's.
    overall
        Measure -> float64 [R], combined over layers as `overall_drift` does.
    images
        Images behind each draw: int64 [R], of the baseline.
    neurons
        Neurons of each layer: float64 [layers].
    """

    layers: Mapping[str, Mapping[str, Values]]
    overall: Mapping[str, Values]
    images: NDArray[np.int64]
    neurons: Values

    def get(self, measure: str, layer: str | None = None) -> Values:
        """Values [R] of a measure, over all layers or of one."""
        return self.overall[measure] if layer is None else self.layers[layer][measure]

    def combined(self, measure: str, layer: str | None, how: Combine | None) -> Values:
        """Values [R] of a measure of layers: those of a layer, or of all combined in a way that is not "pooled"."""
        if layer is not None:
            return self.layers[layer][measure]
        return _combined(how or "neurons", [values[measure] for values in self.layers.values()], self.neurons)


def resample(
    baseline: SpikeCounts,
    quantized: SpikeCounts,
    draws: Draws,
    draws_quantized: Draws | None = None,
    *,
    ranks: bool = True,
    unchanged: bool = False,
) -> Resampled:
    """Compute every measure for every draw.

    Parameters
    ----------
    baseline, quantized
        Recordings of the same neurons. Blocks without images are left out, see `used_blocks`.
    draws, draws_quantized
        int64 [R, used blocks]: how often each block counts. The same for both networks if left out (paired, which
        needs both to have seen the same images in the same blocks).
    ranks
        Whether to compute `spearman`, about a third of the time, and other measures that are `slow`; NaN otherwise.
    unchanged
        Resample a world in which no neuron changed its rate: the quantized network's counts are moved, neuron by
        neuron, so that over all blocks they equal the baseline's. What distance is left, and what an order lacks, is
        noise; rates and dead shares mean nothing there and are NaN.

    Raises
    ------
    ModelError
        If the recordings are of different neurons.
    DataError
        If blocks and draws do not fit, or a draw holds no image.
    """
    paired = draws_quantized is None
    if paired:
        check_match(baseline, quantized)
        runs = {baseline.run, quantized.run} - {None}
        if len(runs) > 1 or not np.array_equal(baseline.images_per_block.numpy(), quantized.images_per_block.numpy()):
            raise DataError("both networks must have seen the same images in the same blocks; record both alike")
    elif (difference := baseline.difference(quantized)) is not None:
        raise DataError(f"only recordings of the same neurons can be resampled together: {difference}")
    second = draws if draws_quantized is None else draws_quantized
    worker = _Worker(baseline, quantized, draws, second, ranks, unchanged)
    return worker.run()


def used_blocks(counts: SpikeCounts) -> int:
    """Number of blocks that hold images."""
    return int((counts.images_per_block > 0).sum())


class _Side:
    """One network's counts and draws."""

    def __init__(self, counts: SpikeCounts, draws: Draws) -> None:
        used = (counts.images_per_block > 0).numpy()
        if draws.ndim != 2 or draws.shape[1] != int(used.sum()) or draws.size == 0 or draws.min() < 0:
            raise DataError(
                f"draws must be whole numbers >= 0 [R, {int(used.sum())} blocks that hold images], got "
                f"{list(draws.shape)}"
            )
        self.images = draws @ counts.images_per_block.numpy()[used]
        if self.images.min() < 1:
            raise DataError("every draw must hold at least one image")
        self.denominators = counts.steps * self.images
        blocks = {name: counts.counts[name].flatten(1).numpy()[used] for name in counts.layers}
        top = max(int(block.max()) for block in blocks.values()) * int(draws.sum(1).max())
        # sums of whole numbers are exact in either type up to its own limit
        kind = np.float32 if top < _EXACT else np.float64
        self.blocks = {name: np.ascontiguousarray(block, dtype=kind) for name, block in blocks.items()}
        self.draws = draws.astype(kind)
        self.top = top

    def chunk(self, name: str, rows: slice) -> NDArray[Any]:
        """Counts [rows, n] of a layer."""
        return self.draws[rows] @ self.blocks[name]


class _Worker:
    def __init__(
        self, baseline: SpikeCounts, quantized: SpikeCounts, first: Draws, second: Draws, ranks: bool, unchanged: bool
    ) -> None:
        if len(first) != len(second):
            raise DataError(f"both networks need as many draws, got {len(first)} and {len(second)}")
        self.a, self.b = _Side(baseline, first), _Side(quantized, second)
        self.names, self.slow = baseline.layers, ranks
        self.neurons = np.array([baseline.n_neurons(name) for name in self.names], dtype=np.float64)
        self.same = np.array_equal(self.a.denominators, self.b.denominators)
        # the move of counts is one of whole numbers only in draws of as many images as were recorded
        whole = not unchanged or bool((self.a.denominators == baseline.denominator).all())
        many = self.neurons.mean() > _FEW
        self.by_histogram = self.same and whole and many and max(self.a.top, self.b.top) < _MAX_LEVELS
        self.moves = {name: _move(baseline, quantized, name) for name in self.names} if unchanged else None
        self.recorded = baseline.denominator
        self.others = [measure for measure in MEASURES.values() if measure not in BUILT_IN]
        self.values = {name: _empty(len(first)) for name in self.names}
        self.pooled = _empty(len(first))

    def run(self) -> Resampled:
        for rows in _chunks(len(self.a.images), int(self.neurons.sum())):
            counts = {name: (self.a.chunk(name, rows), self.b.chunk(name, rows)) for name in self.names}
            (self._by_histogram if self.by_histogram else self._by_sorting)(rows, counts)
            self._one_by_one(rows, counts)
        for values in self.values.values():
            _derive(values)
            if self.moves is not None:
                for key in [key for key, item in quantities(layer=True).items() if item.measure.unchanged is None]:
                    values[key] = np.full_like(values[key], np.nan)
        return Resampled(self.values, self._overall(), self.a.images, self.neurons)

    def _by_histogram(self, rows: slice, counts: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        denominators = self.a.denominators[rows]
        if self.moves is not None:
            counts = {name: _from_zero(a, b - self.moves[name]) for name, (a, b) in counts.items()}
        levels = int(max(max(a.max(), b.max()) for a, b in counts.values())) + 1
        gaps = np.zeros((len(denominators), levels), dtype=np.int64)
        for name, (first, second) in counts.items():
            values, n = self.values[name], first.shape[1]
            unit = denominators * float(n)
            values["mfr_fp"][rows] = first.sum(1, dtype=np.float64) / unit
            values["mfr"][rows] = second.sum(1, dtype=np.float64) / unit
            values["paired_mae"][rows] = np.abs(first - second).sum(1, dtype=np.float64) / unit
            # of a layer; ranks are added up over as many levels in all layers
            mine = levels if self.slow else int(max(first.max(), second.max())) + 1
            for i, denominator in enumerate(denominators):
                row = rows.start + i
                a, b = first[i].astype(np.intp), second[i].astype(np.intp)
                at_a, at_b = np.bincount(a, minlength=mine), np.bincount(b, minlength=mine)
                gap = (at_a - at_b).cumsum()
                # beyond a layer's largest count its gap is 0
                gaps[i, :mine] += gap
                values["emd"][row] = int(np.abs(gap, out=gap).sum()) / unit[i]
                for key, cut in CUTS.items() if self.moves is None else ():
                    level = _dead_levels(cut, int(denominator))
                    values[f"{key}_fp"][row] = at_a[:level].sum() / n
                    values[key][row] = at_b[:level].sum() / n
                if self.slow:
                    values["spearman"][row] = rank_correlation(a, b, at_a.cumsum(), at_b.cumsum())
        self.pooled["emd"][rows] = np.abs(gaps).sum(1) / (denominators * self.neurons.sum())

    def _by_sorting(self, rows: slice, counts: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        denominators = self.a.denominators[rows, None], self.b.denominators[rows, None]
        all_a, all_b = [], []
        for name, (first, second) in counts.items():
            values = self.values[name]
            # counts as long as they share a denominator, so that their sums are exact
            a, b = (first, second) if self.same else (first / denominators[0], second / denominators[1])
            unit = (self.a.denominators[rows] if self.same else 1) * float(first.shape[1])
            if self.moves is not None:
                b = b - self.moves[name] / self.recorded * (denominators[0] if self.same else 1)
            else:
                for key, cut in CUTS.items():
                    values[f"{key}_fp"][rows] = is_dead(first / denominators[0], cut).mean(1)
                    values[key][rows] = is_dead(second / denominators[1], cut).mean(1)
            values["mfr_fp"][rows], values["mfr"][rows] = (x.sum(1, dtype=np.float64) / unit for x in (a, b))
            values["paired_mae"][rows] = np.abs(a - b).sum(1, dtype=np.float64) / unit
            values["emd"][rows] = _gap(a, b) / unit
            if self.slow:
                # moved rates that were equal stay so but for rounding
                values["spearman"][rows] = rank_correlations(a.round(9), b.round(9))
            all_a.append(a)
            all_b.append(b)
        unit = (self.a.denominators[rows] if self.same else 1) * self.neurons.sum()
        self.pooled["emd"][rows] = _gap(np.concatenate(all_a, 1), np.concatenate(all_b, 1)) / unit

    def _one_by_one(self, rows: slice, counts: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Measures of which only the function is known."""
        found = [measure for measure in self.others if self.moves is None or measure.unchanged is not None]
        found = [measure for measure in found if self.slow or not measure.slow]
        if not found:
            return
        moved = counts
        if self.moves is not None:
            # spikes cannot be fewer than none
            share = self.a.denominators[rows, None] / self.recorded
            moved = {name: (a, np.maximum(b - share * self.moves[name], 0)) for name, (a, b) in counts.items()}
        layers = [*((self.values[name], pair) for name, pair in moved.items())]
        if any("pooled" in measure.overall.values() for measure in found):
            everywhere = tuple(np.concatenate([pair[i] for pair in moved.values()], 1) for i in (0, 1))
            layers.append((self.pooled, (everywhere[0], everywhere[1])))
        for values, (first, second) in layers:
            for i, row in enumerate(range(rows.start, rows.stop)):
                before = Firing(first[i], int(self.a.denominators[row]))
                after = Firing(second[i], int(self.b.denominators[row]))
                for measure in found:
                    for key, value in measure.layer_values(before, after, drawn=True).items():
                        values[key][row] = value

    def _overall(self) -> dict[str, Values]:
        layers = list(self.values.values())
        found: dict[str, Values] = {}
        for measure in MEASURES.values():
            for column, how in measure.overall.items():
                for end in (*measure.endings, *([CHANGE] if measure.networks == 1 else [])):
                    key = measure.name + end
                    values = self.pooled[key] if how == "pooled" else None
                    found[column + end] = (
                        values if values is not None else _combined(how, [x[key] for x in layers], self.neurons)
                    )
        return found


def _gap(a: NDArray[Any], b: NDArray[Any]) -> Values:
    """Sum of the differences between the sorted rows."""
    return np.abs(np.sort(a, 1) - np.sort(b, 1)).sum(1, dtype=np.float64)


def _move(baseline: SpikeCounts, quantized: SpikeCounts, layer: str) -> Values:
    """How many spikes more each neuron has in the quantized network."""
    return (quantized.per_neuron(layer) - baseline.per_neuron(layer)).numpy().astype(np.float64)


def _from_zero(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both moved alike, so that none is negative."""
    low = min(float(b.min()), 0.0)
    return a - low, b - low


def _empty(resamples: int) -> dict[str, Values]:
    return {name: np.full(resamples, np.nan) for name in quantities(layer=True)}


def _derive(values: dict[str, Values]) -> None:
    values["shift"] = np.abs(values["mfr"] - values["mfr_fp"])
    # rounding alone can make a part of 0 negative
    values["shape"] = np.maximum(values["emd"] - values["shift"], 0)
    values["reshuffle"] = np.maximum(values["paired_mae"] - values["emd"], 0)
    for key, item in quantities(layer=True).items():
        if item.part == "change":
            values[key] = values[item.measure.name] - values[item.measure.name + FP]


def _combined(how: Combine, layers: list[Values], neurons: Values) -> Values:
    """`isofire.firing.aggregate.combined` for each draw."""
    if how == "neurons":
        return _weighted(layers, neurons)
    if how == "layers":
        return _weighted(layers, np.ones(len(layers)))
    values = np.stack(layers)
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, -np.inf).max(0), np.nan)


def _weighted(layers: list[Values], neurons: Values) -> Values:
    """`neuron_weighted` for each draw: layers where the value is NaN are left out."""
    values = np.stack(layers)
    known = ~np.isnan(values)
    weights = known * neurons[:, None]
    total = weights.sum(0)
    sums = (np.where(known, values, 0) * weights).sum(0)
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


def _chunks(resamples: int, neurons: int) -> Iterator[slice]:
    size = max(1, _CHUNK // neurons)
    for start in range(0, resamples, size):
        yield slice(start, min(start + size, resamples))


def _dead_levels(cut: float, denominator: int) -> int:
    """How many of the counts 0, 1, 2, ... are rates that `is_dead` calls dead."""
    if cut <= 0:
        return 1
    level = max(1, int(cut * denominator) - 1)
    while level / denominator < cut:
        level += 1
    return level
