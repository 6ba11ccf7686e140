"""Drawing drift: distribution functions of the rates per layer, and each layer's EMD split in shift and shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isofire.errors import OutputError
from isofire.firing.counts import SpikeCounts
from isofire.firing.drift import LayerDrift
from isofire.firing.evidence.summary import Evidence
from isofire.firing.rates import PAPER_CUT
from isofire.text_table import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart in every common form of colour blindness and in grey
_BASELINE, _QUANTIZED, _SHIFT, _SHAPE, _GREY = "#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#666666"
_FLOOR = "#AA3377"
_COLUMNS = 5
_POINTS = 600
_UNIT = "spikes per neuron per step"


def drift_figure(
    baseline: SpikeCounts, quantized: SpikeCounts, layers: Sequence[LayerDrift], evidence: Evidence | None = None
) -> Figure:
    """Small multiples of the two networks' rate distributions above a bar per layer, with its interval and floor.

    Raises
    ------
    OutputError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise OutputError("a figure needs matplotlib, which is not installed; pip install matplotlib") from error

    columns = min(len(layers), max(3, math.ceil(math.sqrt(len(layers)))), _COLUMNS)
    rows = math.ceil(len(layers) / columns)
    heights = [1.75 * rows + 0.5, 0.23 * len(layers) + 0.9]
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(2.35 * max(columns, 3) + 0.5, sum(heights) + 0.5), facecolor="white", layout=layout)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    upper, lower = parts
    _draw_distributions(upper, (rows, columns), baseline, quantized, layers)
    bars = lower.subplots()
    _draw_bars(bars, layers)
    if evidence is not None:
        _draw_noise(bars, layers, evidence)
    bars.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    sample = f"n = {baseline.n_images:,} images, T = {baseline.steps}"
    figure.suptitle(f"Firing of the quantized network against its baseline  ({sample})", fontsize=11)
    return figure


def _draw_distributions(
    figure: Any, grid: tuple[int, int], baseline: SpikeCounts, quantized: SpikeCounts, layers: Sequence[LayerDrift]
) -> None:
    axes = figure.subplots(*grid, sharex=True, sharey=True, squeeze=False).ravel()
    end, is_cut = _axis_end(baseline.rates().numpy(), quantized.rates().numpy())
    for number, (axis, layer) in enumerate(zip(axes, layers, strict=False)):
        rates = baseline.rates(layer.layer).numpy(), quantized.rates(layer.layer).numpy()
        _draw_layer(axis, rates, end)
        if is_cut and (beyond := [int((values > end).sum()) for values in rates]) != [0, 0]:
            text = f"beyond: {beyond[0]:,} neurons, {beyond[1]:,} quantized"
            axis.text(0.98, 0.04, text, transform=axis.transAxes, fontsize=6.5, ha="right", color=_GREY)
        axis.set_title(f"{shortened(layer.layer, 26)}\n{layer.neurons:,} neurons, EMD {layer.emd:.4f}", fontsize=7.5)
        # with a last row that is not full, the panels above its gaps carry the tick labels
        axis.tick_params(labelsize=7, labelbottom=number + grid[1] >= len(layers))
    for axis in axes[len(layers) :]:
        axis.set_visible(False)
    figure.supxlabel(f"firing rate ({_UNIT})", fontsize=8.5)
    figure.supylabel("share of neurons at or below", fontsize=8.5)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)


def _draw_layer(axis: Axes, rates: tuple[NDArray[np.float64], NDArray[np.float64]], end: float) -> None:
    grid = np.linspace(0, end, _POINTS)
    before, after = (np.searchsorted(np.sort(values), grid, side="right") / values.size for values in rates)
    axis.fill_between(grid, before, after, step="post", color="#BBBBBB", alpha=0.6, linewidth=0, label="area = EMD")
    axis.step(grid, before, where="post", color=_BASELINE, linewidth=1.4, label="baseline")
    dashes = (0, (4, 1.2))
    axis.step(grid, after, where="post", color=_QUANTIZED, linewidth=1.2, linestyle=dashes, label="quantized")
    axis.axvline(PAPER_CUT, color=_GREY, linewidth=0.8, linestyle=":", label=f"dead below {PAPER_CUT}")
    axis.set(xlim=(0, end), ylim=(0, 1.02))
    axis.spines[["top", "right"]].set_visible(False)


def _draw_bars(axis: Axes, layers: Sequence[LayerDrift]) -> None:
    places = np.arange(len(layers))
    shift, shape = np.array([layer.shift for layer in layers]), np.array([layer.shape for layer in layers])
    axis.barh(places, shift, 0.7, color=_SHIFT, label="shift: |change of the mean rate|")
    axis.barh(places, shape, 0.7, left=shift, color=_SHAPE, hatch="///", edgecolor="white", label="shape: the rest")
    axis.set_yticks(places, [shortened(layer.layer, 30) for layer in layers], fontsize=7.5)
    axis.invert_yaxis()
    axis.margins(y=0.5 / (len(layers) + 1))
    _show_to(axis, shift + shape)
    axis.tick_params(axis="x", labelsize=7)
    axis.set_xlabel(f"EMD between the rates of the two networks ({_UNIT})", fontsize=8.5)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_noise(axis: Axes, layers: Sequence[LayerDrift], evidence: Evidence) -> None:
    found = [evidence.against("emd", layer.layer) for layer in layers]
    floors = [math.nan if item.floor is None else item.floor.value for item in found]
    places = np.arange(len(layers))
    ends = np.array([[item.interval.low, item.interval.high] for item in found])
    axis.hlines(places, ends[:, 0], ends[:, 1], color="black", linewidth=1.3, label="95 % interval of EMD")
    _show_to(axis, np.append(ends[:, 1], floors))
    axis.vlines(floors, places - 0.42, places + 0.42, color=_FLOOR, linewidth=2, label=f"floor: {evidence.floor.kind}")


def _show_to(axis: Axes, values: NDArray[np.float64]) -> None:
    """From 0 on, so far that no bar and no interval ends at the edge."""
    known = values[np.isfinite(values)]
    axis.set_xlim(0, max(axis.get_xlim()[1], 1.05 * float(known.max(initial=0.0))))


def _axis_end(*rates: NDArray[np.float64]) -> tuple[float, bool]:
    """Right end that shows all neurons and the dead cut, and whether it does: a few that fire more than twice as fast
    as 99.5 % of all would squeeze the rest, and are left out.
    """
    usual = max(2 * PAPER_CUT, *(float(np.quantile(values, 0.995)) for values in rates))
    fastest = max(float(values.max()) for values in rates)
    return (1.05 * usual, True) if fastest > 2 * usual else (1.05 * max(usual, fastest), False)
