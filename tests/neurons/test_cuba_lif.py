"""Current-based LIF by hand and against a chip's table; its fast paths against the reference; the leaky integrator."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isofire.errors import ModelError, SpecError
from isofire.neurons import LI, LIF, ATan, CubaLIF, MembraneQuantizer, Recurrent, Sigmoid, Triangle, native
from isofire.neurons.registry import NEURONS
from isofire.quantizers import Levels, Uniform

NO_KERNELS = pytest.mark.skipif(native.library() is None, reason="kernels not built")
FAST = ["torch", pytest.param("native", marks=NO_KERNELS)]
ALL = ["reference", *FAST]
SYNAPSES = ["before_decay", "after_decay", "before_input"]


@pytest.mark.parametrize("backend", ALL)
def test_the_published_step_of_loihi(backend: Any) -> None:
    # du 1023 and dv 511 of 4096, threshold 200 << 6, weights << 6: the spike times of lava, nengo-loihi and
    # brian2_loihi, whose integers round to zero, far from every tie
    arrivals = torch.zeros(12, 1, 2)
    arrivals[[0, 3, 4], 0, 0] = 1.0
    arrivals[[1, 6], 0, 1] = 1.0
    weights = torch.tensor([[124.0, -60.0], [36.0, 100.0]]) * 64
    neuron = CubaLIF(4096 / 511, 4.0, v_threshold=200.0 * 64, backend=backend)
    spikes = neuron(arrivals @ weights.T)
    assert spikes[:, 0, 0].nonzero().flatten().tolist() == [3, 4, 6]
    assert spikes[:, 0, 1].nonzero().flatten().tolist() == [2, 4, 6, 8]


def by_hand(
    x: list[float], tau_mem: float, tau_syn: float, synapse: str, decay_input: bool, reset: float | None
) -> list:
    v, i, out = reset or 0.0, 0.0, []
    rest = reset or 0.0
    for value in x:
        if synapse == "before_decay":
            i = i * (1 - 1 / tau_syn) + value
            used = i
        elif synapse == "after_decay":
            i = (i + value) * (1 - 1 / tau_syn)
            used = i
        else:
            used, i = i, i * (1 - 1 / tau_syn) + value
        h = rest + (v - rest) * (1 - 1 / tau_mem) + used / (tau_mem if decay_input else 1)
        s = float(h >= 0.75)
        v = (h - 0.75 * s) if reset is None else (reset if s else h)
        out.append(s)
    return out


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("synapse", SYNAPSES)
def test_each_synapse_by_hand(synapse: Any, backend: Any) -> None:
    # halves and quarters are exact in float32, so that ties are ties
    x = torch.randint(-3, 9, (9, 2, 7), generator=torch.Generator().manual_seed(3)) / 2
    for decay_input, reset in product((False, True), (0.0, -0.5, None)):
        options = {"synapse": synapse, "decay_input": decay_input, "v_reset": reset, "v_threshold": 0.75}
        spikes = CubaLIF(4.0, 2.0, backend=backend, **options)(x)
        assert 0.02 < spikes.mean() < 0.9
        for n, unit in product(range(2), range(7)):
            expected = by_hand(x[:, n, unit].tolist(), 4.0, 2.0, synapse, decay_input, reset)
            assert spikes[:, n, unit].tolist() == expected


@pytest.mark.parametrize("backend", ALL)
def test_a_synapse_that_forgets_at_once_is_a_plain_lif(backend: Any, currents: Any) -> None:
    x = currents(6, 3, 4, 5)
    for decay_input in (False, True):
        plain = LIF(3.0, decay_input=decay_input, backend="reference")(x)
        assert torch.equal(CubaLIF(3.0, 1.0, decay_input=decay_input, backend=backend)(x), plain)


def test_gradient_of_two_steps_by_hand() -> None:
    # tau 2 both, undecayed, threshold 1, detached hard reset, triangle's slope max(0, 1 - |h - 1|). x1 = .5 -> h1 = .5,
    # x2 = .5 -> i = .75, h2 = .25 + .75 = 1. d h2 / d x1 = .5 (through v) + .5 (through i); d h1 / d x1 = 1
    for backend in ("reference", "torch", "auto"):
        x = torch.tensor([0.5, 0.5]).view(2, 1, 1).requires_grad_()
        CubaLIF(surrogate=Triangle(), detach_reset=True, backend=backend)(x).sum().backward()
        assert x.grad is not None
        assert x.grad.flatten().tolist() == [0.5 + 1.0, 1.0]


def tensors_of(shape: tuple[int, ...], which: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(which)
    return {
        "tau_mem": 1.0 + 4 * torch.rand(shape, generator=draw),
        "tau_syn": 1.0 + 3 * torch.rand(shape[:1] + (1,) * (len(shape) - 1), generator=draw),
        "v_threshold": 0.5 + torch.rand(shape, generator=draw),
    }


MEMBRANES: list[Any] = [
    None,
    (Uniform(3, range=(-1.0, 1.5)), "pre_fire"),
    (Levels([-0.5, 0.0, 0.2, 0.7, 1.1], ste="clipped"), "post_reset"),
]


@pytest.mark.parametrize("path", FAST)
@pytest.mark.parametrize("synapse", SYNAPSES)
@pytest.mark.parametrize(("shape", "last"), [((5, 3, 7), False), ((4, 2, 3, 5, 6), False), ((4, 2, 3, 5, 6), True)])
def test_fast_paths_equal_the_reference(
    shape: Any, last: bool, synapse: Any, path: Any, currents: Any, run: Any, assert_close: Any
) -> None:
    x = currents(*shape, channels_last=last) * 0.6
    cases = product((False, True), (0.0, -0.5, None), (False, True), MEMBRANES)
    for k, (decay_input, reset, detach, membrane) in enumerate(cases):
        own = tensors_of(shape[2:], k) if k % 2 else {"tau_mem": 2.5, "tau_syn": 1.5}
        slope = (Sigmoid(3.0), ATan(), Triangle())[k % 3]
        options = {"v_reset": reset, "detach_reset": detach, "surrogate": slope, "decay_input": decay_input}
        neuron = CubaLIF(synapse=synapse, **own, **options)
        if membrane is not None:
            neuron.membrane = MembraneQuantizer(*membrane)
        neuron.backend = "reference"
        expected, gradients = run(neuron, x)
        neuron.backend = path
        spikes, got = run(neuron, x)
        assert torch.equal(spikes, expected), (k, neuron)
        assert_close(got[0], gradients[0], note=neuron)


@NO_KERNELS
@settings(max_examples=40)
@given(data=st.data())
def test_any_layer(data: st.DataObject, currents: Any, run: Any, assert_close: Any) -> None:
    space = data.draw(st.lists(st.integers(1, 40), max_size=2))
    synapse = data.draw(st.sampled_from(SYNAPSES))
    # at T = 1 an input that acts a step later reaches no spike: see the next test
    shape = (
        data.draw(st.integers(1 + (synapse == "before_input"), 8)),
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 5)),
        *space,
    )
    x = currents(*shape, seed=data.draw(st.integers(0, 1 << 20)), channels_last=len(space) == 2)
    own = tensors_of(shape[2:], data.draw(st.integers(0, 99)))
    neuron = CubaLIF(synapse=synapse, **own, backend="reference")
    expected, gradients = run(neuron, x)
    neuron.backend = "native"
    neuron.counting = True
    spikes, got = run(neuron, x)
    assert torch.equal(spikes, expected)
    assert torch.equal(neuron.spike_counts.float(), expected.sum(0))
    assert_close(got[0], gradients[0])


@pytest.mark.parametrize("path", FAST)
def test_an_input_that_reaches_no_spike_has_no_gradient(path: Any) -> None:
    x = torch.ones(1, 2, 3, requires_grad=True)
    spikes = CubaLIF(synapse="before_input", backend=path)(x)
    assert spikes.tolist() == torch.zeros(1, 2, 3).tolist()
    spikes.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_several_spikes_and_a_floor_run_on_torch(currents: Any, run: Any, assert_close: Any) -> None:
    x = currents(5, 2, 6)
    options = {"v_reset": None, "several": True, "v_floor": -0.25}
    (spikes, got), (expected, gradients) = (run(CubaLIF(backend=b, **options), x) for b in ("auto", "reference"))
    assert spikes.max() > 1
    assert torch.equal(spikes, expected)
    assert_close(got[0], gradients[0], tolerance=1e-7)
    with pytest.raises(ModelError, match="backend 'native' knows neither v_floor nor several"):
        CubaLIF(backend="native", **options)(x)


def test_its_constants_are_saved_with_it_and_follow_it() -> None:
    neuron = CubaLIF(torch.tensor([2.0, 3.0]), 4.0, v_threshold=torch.tensor([1.0, 0.5]))
    again = CubaLIF(torch.ones(2), 1.0, v_threshold=torch.ones(2))
    again.load_state_dict(neuron.state_dict())
    x = torch.rand(5, 3, 2) * 2
    assert torch.equal(again(x), neuron(x))
    assert neuron.threshold.tolist() == [1.0, 0.5]
    assert list(neuron.parameters()) == []
    assert torch.equal(neuron.double()(x.double()).float(), neuron(x))
    assert NEURONS["cuba_lif"] is CubaLIF
    assert "tau_mem=2..3, tau_syn=4, synapse='before_decay'" in repr(neuron)
    # what is shown, and what others ask for, is what was loaded, also inside a network and a recurrent layer
    assert again.dynamics.v_threshold == 0.5
    assert repr(again) == repr(neuron)
    one, other = (nn.Sequential(Recurrent(CubaLIF(v_threshold=v), nn.Linear(2, 2))) for v in (0.25, 3.0))
    other.load_state_dict(one.state_dict())
    assert other[0].dynamics.v_threshold == 0.25
    assert repr(other) == repr(one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_mem": 0.5}, "tau_mem must be at least 1"),
        ({"tau_syn": torch.tensor([2.0, 0.0])}, "tau_syn must be at least 1 .*got 0"),
        ({"tau_syn": float("nan")}, "tau_syn must be finite"),
        ({"v_threshold": torch.tensor([1.0, -2.0])}, "v_reset must be finite and lie below v_threshold"),
        ({"v_threshold": torch.tensor([])}, "v_threshold must be finite"),
        ({"synapse": "early"}, "synapse must be one of before_decay, after_decay, before_input, got 'early'"),
    ],
)
def test_bad_constants(options: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CubaLIF(**options)


def test_constants_that_do_not_fit_the_layer() -> None:
    with pytest.raises(ModelError, match=r"tau_mem of shape \[3\] does not fit a layer of \[4\] neurons"):
        CubaLIF(torch.full((3,), 2.0))(torch.zeros(2, 1, 4))


def test_leaky_integrator_by_hand_and_its_gradient() -> None:
    x = torch.tensor([1.0, 0.0, 4.0]).view(3, 1, 1).requires_grad_()
    assert LI(4.0)(x).flatten().tolist() == [0.25, 0.1875, 1.140625]
    out = LI(4.0, decay_input=False)(x)
    assert out.flatten().tolist() == [1.0, 0.75, 4.5625]
    out[2].sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.5625, 0.75, 1.0]
    with pytest.raises(SpecError, match="tau must be finite and at least 1"):
        LI(0.5)
    with pytest.raises(ModelError, match="needs inputs"):
        LI()(torch.zeros(3))
