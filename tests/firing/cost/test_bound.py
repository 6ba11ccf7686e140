"""|change in SynOps| <= sum of T n f EMD, for any rates and fan-outs; and why fan-outs must not be mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import ModelError
from isofire.firing import SpikeCounts, emd
from isofire.firing.cost import synops_drift


def recording(layers: dict[str, list[int]], images: int = 10, steps: int = 4) -> SpikeCounts:
    counts = {name: torch.tensor([values], dtype=torch.int32) for name, values in layers.items()}
    return SpikeCounts(counts, torch.tensor([images]), steps)


@st.composite
def networks(draw: st.DrawFn) -> tuple[SpikeCounts, SpikeCounts, dict[str, torch.Tensor]]:
    before, after, fans = {}, {}, {}
    for name in ("a", "b")[: draw(st.integers(1, 2))]:
        n = draw(st.integers(1, 12))
        rates = st.lists(st.integers(0, 40), min_size=n, max_size=n)
        before[name], after[name] = draw(rates), draw(rates)
        chosen = draw(st.lists(st.sampled_from([0, 4, 6, 9]), min_size=n, max_size=n))
        fans[name] = torch.tensor(chosen, dtype=torch.float64)
    return recording(before), recording(after), fans


@settings(max_examples=200, deadline=None)
@given(networks())
def test_no_change_exceeds_the_bound(drawn: tuple[SpikeCounts, SpikeCounts, dict[str, torch.Tensor]]) -> None:
    before, after, fans = drawn
    found = synops_drift(before, after, fans, fans)
    for name, layer in found.layers.items():
        by_hand = float((after.counts[name][0].double() - before.counts[name][0].double()) @ fans[name]) / 10
        assert layer.change == pytest.approx(by_hand, abs=1e-9)
        assert abs(layer.change) <= layer.bound + 1e-9
    assert abs(found.overall.change) <= found.overall.bound + 1e-9


@settings(max_examples=50, deadline=None)
@given(networks(), st.integers(0, 3))
def test_it_is_an_equality_where_every_neuron_fires_more(
    drawn: tuple[SpikeCounts, SpikeCounts, dict[str, torch.Tensor]], more: int
) -> None:
    before, _, fans = drawn
    after = SpikeCounts({k: v + more for k, v in before.counts.items()}, before.images_per_block, before.steps)
    found = synops_drift(before, after, fans, fans).overall
    assert found.change == pytest.approx(found.bound, abs=1e-9)


def test_emd_of_a_whole_layer_with_its_largest_fan_out_would_be_no_bound() -> None:
    """A neuron at the border and one inside swap their rates: EMD is 0, the cost is not."""
    before, after = recording({"lif": [40, 0]}), recording({"lif": [0, 40]})
    fans = {"lif": torch.tensor([4.0, 9.0])}
    found = synops_drift(before, after, fans, fans).overall
    assert emd(before.rates("lif"), after.rates("lif")) == 0
    assert found.change == 40 / 10 * (9 - 4)
    assert found.bound == 40 / 10 * (9 + 4)


def test_other_neurons_are_refused() -> None:
    before = recording({"lif": [1, 2]})
    with pytest.raises(ModelError, match="layer 'lif' is not in both alike"):
        synops_drift(before, before, {"lif": torch.ones(2)}, {"lif": torch.ones(3)})
    fans = {"lif": torch.ones(2)}
    assert np.isclose(synops_drift(before, before, fans, fans).overall.bound, 0)


@settings(max_examples=100, deadline=None)
@given(networks(), st.integers(0, 7))
def test_another_structure_is_told_apart_and_within_the_bound(
    drawn: tuple[SpikeCounts, SpikeCounts, dict[str, torch.Tensor]], more: int
) -> None:
    before, after, fans = drawn
    others = {name: fan.flip(0) + more for name, fan in fans.items()}
    found = synops_drift(before, after, fans, others)
    for name, layer in found.layers.items():
        first, second = before.counts[name][0].double() / 10, after.counts[name][0].double() / 10
        assert layer.baseline == pytest.approx(float(first @ fans[name]))
        assert layer.quantized == pytest.approx(float(second @ others[name]))
        assert layer.structure == pytest.approx(float(second @ (others[name] - fans[name])), abs=1e-9)
        assert abs(layer.change) <= layer.bound + 1e-9
    assert synops_drift(before, before, fans, fans).overall.structure == 0
