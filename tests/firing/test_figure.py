"""The picture of a comparison: nothing that it draws ends at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from isofire.firing import Comparison, SpikeCounts

pytest.importorskip("matplotlib")


def figure_of(*extra: float):
    """Two layers of 400 neurons, firing at rates around 0.05 and 0.1; `extra` are rates of single neurons."""
    rng = np.random.default_rng(0)

    def recording(scale: float) -> SpikeCounts:
        rates = {name: np.append(rng.beta(2, 38, 400), extra or 0.1) * scale for name in ("a", "b")}
        blocks = {name: torch.tensor(rng.binomial(400, np.clip(x, 0, 1), (8, x.size))) for name, x in rates.items()}
        return SpikeCounts({name: x.to(torch.int32) for name, x in blocks.items()}, torch.full((8,), 100), 4)

    before, after = recording(1), recording(1.9)
    found = Comparison.of(before, after, accuracy=0.5, accuracy_fp=0.6, agreement=0.7)
    figure = found.figure()
    FigureCanvasAgg(figure).draw()
    return found, figure


def test_intervals_and_bars_end_within_the_axis():
    found, figure = figure_of()
    bars = next(axis for axis in figure.axes if "EMD between" in axis.get_xlabel())
    low, high = bars.get_xlim()
    ends = [point for line in bars.collections for path in line.get_paths() for point in path.vertices[:, 0]]
    assert len(ends) >= 8
    assert low == 0
    assert high > max([*ends, *(layer.emd for layer in found.layers)])


def test_distributions_share_an_axis_that_shows_all_neurons():
    found, figure = figure_of()
    panels = [axis for axis in figure.axes if "neurons, EMD" in axis.get_title()]
    fastest = max(float(counts.rates().max()) for counts in (found.baseline, found.quantized))
    assert len({axis.get_xlim() for axis in panels}) == 1
    assert panels[0].get_xlim()[1] > fastest
    assert not any("beyond" in text.get_text() for axis in panels for text in axis.texts)


def test_few_much_faster_neurons_are_left_out_and_counted():
    _, figure = figure_of(0.5)
    panels = [axis for axis in figure.axes if "neurons, EMD" in axis.get_title()]
    assert panels[0].get_xlim()[1] < 0.5
    assert [text.get_text() for text in panels[0].texts] == ["beyond: 1 neurons, 1 quantized"]
