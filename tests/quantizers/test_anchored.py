"""Grids hung on the threshold: the rest is a level, V_th an edge, decisions before the threshold are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isofire.adapters import adapter_of
from isofire.errors import SpecError
from isofire.neurons import IF, LIF, MembraneQuantizer, Neuron
from isofire.quantizers import MEMBRANES, NeuronFacts
from isofire.quantizers.anchored import anchored_table, split

METHODS = ("anchored", "lsq", "lqnet")
"""At pre_fire, those whose highest code means "fires"."""
NEURONS = (LIF(), LIF(3.0, v_threshold=0.1, v_reset=-0.25), IF(v_threshold=1.5, v_reset=None))


def facts(neuron: Neuron) -> NeuronFacts:
    adapter = adapter_of(neuron)
    assert adapter is not None
    return adapter.facts(neuron)


@pytest.mark.parametrize(("below", "above"), [(0, 1), (1, 2), (2, 1), (3, 4), (127, 128)])
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_levels_are_multiples_of_a_step_that_puts_the_threshold_between_two(below, above, neuron) -> None:
    own = facts(neuron)
    threshold, rest = own.threshold, own.rest
    step = (threshold - rest) / (above + 0.5)
    wanted = rest + step * np.arange(-below, above + 1)
    found = anchored_table(below, above, own, fires=False)
    np.testing.assert_allclose(found.levels[0].double(), wanted, atol=1e-6)
    assert rest == pytest.approx(float(found.levels[0, below]), abs=0)
    # half a step above the highest level, where the next would begin
    assert float(found.levels[0, -1]) + step / 2 == pytest.approx(threshold)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("strict", [False, True])
def test_before_the_threshold_decisions_are_exact_to_the_last_bit(method, bits, neuron, strict) -> None:
    own = facts(neuron)
    own = NeuronFacts(thresholds=own.thresholds, v_reset=own.v_reset, fires_at_threshold=not strict)
    quantizer = MEMBRANES[method](bits=bits, placement="pre_fire").build_for(1, own)
    threshold = np.float32(own.threshold)
    states = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)) * 2 * own.reach + own.rest
    quantizer.calibrate(states) if method != "anchored" else None
    around = [threshold, np.nextafter(threshold, np.float32(9)), np.nextafter(threshold, np.float32(-9))]
    v = torch.cat([states[:, 0], torch.tensor(np.array(around))])
    with torch.no_grad():
        q = quantizer(v.unsqueeze(1)).squeeze(1)
    fires = (v > float(threshold)) if strict else (v >= float(threshold))
    assert torch.equal((q > float(threshold)) if strict else (q >= float(threshold)), fires)
    codes = quantizer.codes(v.unsqueeze(1)).squeeze(1)
    assert torch.equal(codes == 2**bits - 1, fires)
    # the rest is stored as it is
    rest = torch.full((1, 1), own.rest)
    with torch.no_grad():
        assert torch.equal(quantizer(rest), rest)
    if own.v_reset is None:
        left = q[fires] - torch.tensor(own.threshold)
        assert float(left.abs().max()) < 1e-6


def test_the_first_step_of_a_layer_fires_as_in_full_precision() -> None:
    x = torch.randn(1, 64, 3, 5, generator=torch.Generator().manual_seed(0)) * 3
    for neuron in (LIF(), LIF(v_reset=-0.5), IF(v_reset=None)):
        expected = neuron(x)
        for method in METHODS:
            quantizer = MEMBRANES[method](bits=2, placement="pre_fire").build_for(1, facts(neuron))
            if method != "anchored":
                quantizer.calibrate(torch.randn(64, 3))
            neuron.membrane = MembraneQuantizer(quantizer, "pre_fire")
            with torch.no_grad():
                assert torch.equal(neuron(x), expected)


def test_a_state_after_the_reset_is_never_lifted_over_the_threshold() -> None:
    v = torch.linspace(-3, 0.999999, 5001).unsqueeze(1)
    for method in METHODS:
        quantizer = MEMBRANES[method](bits=2).build_for(1, NeuronFacts())
        if method != "anchored":
            quantizer.calibrate(v)
        with torch.no_grad():
            low, high = quantizer(v).aminmax()
        if method == "lsq":
            # its top level is learned, up to half a threshold above
            assert high <= 1.5
        else:
            assert high < 1.0
        assert low < 0


@pytest.mark.parametrize("method", METHODS)
def test_what_leaves_nothing_to_remember_is_refused(method) -> None:
    with pytest.raises(SpecError, match=r"1 bits at pre_fire leave one level for the state.*take another bit"):
        MEMBRANES[method](bits=1, placement="pre_fire")
    assert MEMBRANES[method](bits=1).build(1) is not None


def test_levels_above_the_rest() -> None:
    assert split(7, None, "3 bits") == (3, 3)
    levels = MEMBRANES["anchored"](bits=2, above=1).build(1).levels()
    assert levels[0].tolist() == pytest.approx([-4 / 3, -2 / 3, 0, 2 / 3])
    for above in (0, 4, -1):
        with pytest.raises(SpecError, match=rf"above must be 1 to 3 for 2 bits at post_reset .*, got {above}"):
            MEMBRANES["anchored"](bits=2, above=above)


def test_neurons_that_no_grid_can_be_hung_on() -> None:
    several = NeuronFacts(kind="Own", thresholds=(0.5, 1.0))
    for method in (*METHODS, "squat", "spquant"):
        setting = MEMBRANES[method](**({} if method == "spquant" else {"bits": 2}))
        with pytest.raises(SpecError, match=r"need one for the layer, this Own has 2, from 0\.5 to 1; take method"):
            setting.build_for(1, several)
    with pytest.raises(SpecError, match=r"one above the rest, this LIF fires at 0\.5 and rests at 0\.5"):
        MEMBRANES["anchored"](bits=2).build_for(1, NeuronFacts(thresholds=(0.5,), v_reset=0.5))
    for method in METHODS:
        with pytest.raises(SpecError, match=f"one code of {method} means 'fires', but this LIF may fire several"):
            MEMBRANES[method](bits=2, placement="pre_fire").build_for(1, NeuronFacts(v_reset=None, several=True))
