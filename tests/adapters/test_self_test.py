"""The self-test tells a hook that does nothing from a neuron on which it hardly shows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import Adapter, Layout, MembraneMixin, adapter_of, register, run_self_test, unregister
from isofire.errors import ModelError
from isofire.neurons import LIF, CubaLIF, PerStep, Recurrent

PLACEMENTS: list[Any] = ["pre_fire", "post_reset"]


class Leaky(nn.Module):
    """Keeps the part `beta` of its state from step to step; a quantizer may change it in `look`."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            v = self.look(self.beta * v + step, "pre_fire")
            spikes.append((v >= 1.0).float())
            v = self.look(v - spikes[-1], "post_reset")
        return torch.stack(spikes)

    def look(self, v: Tensor, placement: str) -> Tensor:
        return v


class Heard(MembraneMixin):
    def look(self, v: Tensor, placement: str) -> Tensor:
        return self.membrane(v) if self.membrane.placement == placement else v


class Ignored(MembraneMixin):
    def look(self, v: Tensor, placement: str) -> Tensor:
        if self.membrane.placement == placement:
            self.membrane(v)
        return v


class LeakyAdapter(Adapter):
    def __init__(self, host: type[MembraneMixin]) -> None:
        self._host = host

    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.tensor(1.0)

    def v_reset(self, neuron: nn.Module) -> None:
        return None

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        return self._host


@pytest.fixture
def registered() -> Iterator[Callable[[type[MembraneMixin]], None]]:
    yield lambda host: register(Leaky, LeakyAdapter(host))
    unregister(Leaky)


def check(neuron: nn.Module, placement: Any) -> None:
    adapter = adapter_of(neuron)
    assert adapter is not None
    run_self_test("n", neuron, adapter, placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("beta", [1e-5, 1e-3, 0.01, 0.1, 0.5, 0.99, 1.0])
def test_a_result_is_heard_however_little_of_the_state_is_kept(registered: Any, beta: float, placement: Any) -> None:
    registered(Heard)
    check(Leaky(beta), placement)
    registered(Ignored)
    with pytest.raises(ModelError, match=r"what the quantizer returns has no effect on spikes \(train mode\)"):
        check(Leaky(beta), placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("tau", [1.0001, 1.01, 1.1, 2.0, 100.0, 5000.0])
def test_isofires_own_neurons_pass_with_every_leak(tau: float, placement: Any) -> None:
    for v_reset in (0.0, -0.5, None):
        check(LIF(tau, v_reset=v_reset), placement)
        check(LIF(tau, v_reset=v_reset, decay_input=False, v_threshold=0.1), placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("leak", [1.0001, 1.01, 1.05, 1.1, 2.0, 100.0, 5000.0])
@pytest.mark.parametrize("v_reset", [0.0, -5.0, None])
def test_spikingjellys_nodes_pass_with_every_leak(leak: float, v_reset: Any, placement: Any) -> None:
    kinds: Any = pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
    check(kinds.LIFNode(tau=leak, v_reset=v_reset, step_mode="m"), placement)
    # release 0.0.0.0.14 cannot run a KLIFNode with a soft reset
    node = kinds.KLIFNode(v_reset=v_reset or 0.0, step_mode="m")
    for k in torch.arange(0.2, 3.0, 0.2 + leak % 0.01):
        node.k.data.fill_(k)
        check(node, placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("beta", [1e-5, 1e-3, 0.01, 0.05, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("mechanism", ["zero", "subtract"])
def test_snntorchs_neurons_pass_with_every_leak(beta: float, mechanism: str, placement: Any) -> None:
    snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)
    check(snntorch.Leaky(beta=beta, reset_mechanism=mechanism, reset_delay=False), placement)


class Broken(Leaky):
    """Its own code fails, in train or eval mode."""

    def __init__(self, training: bool) -> None:
        super().__init__(0.5)
        self.fails_in = training

    def look(self, v: Tensor, placement: str) -> Tensor:
        if self.training is self.fails_in:
            raise KeyError("v_reset")
        return v


class Careless(MembraneMixin):
    def look(self, v: Tensor, placement: str) -> Tensor:
        return v[0, 0, 0, 0, 0]


@pytest.mark.parametrize("training", [True, False])
def test_an_error_of_the_neurons_own_code_is_told_as_such(training: bool) -> None:
    register(Broken, LeakyAdapter(Heard))
    try:
        mode = "train" if training else "eval"
        told = (
            rf"'n' \(Broken\) .* its own forward fails .* without a quantizer too \(KeyError: 'v_reset'\) \({mode} mode"
        )
        with pytest.raises(ModelError, match=told):
            check(Broken(training), "pre_fire")
    finally:
        unregister(Broken)


def test_an_error_of_the_hook_is_told_apart_from_one_of_the_neuron() -> None:
    register(Leaky, LeakyAdapter(Careless))
    try:
        with pytest.raises(ModelError, match=r"with a quantizer, though not without \(IndexError"):
            check(Leaky(0.5), "pre_fire")
    finally:
        unregister(Leaky)


@pytest.mark.parametrize(
    ("layer", "neuron", "shape"),
    [
        (lambda: nn.Linear(6, 20), lambda: CubaLIF(torch.linspace(2.0, 5.0, 20)), (6,)),
        (lambda: nn.Linear(6, 20), lambda: Recurrent(LIF(), nn.Linear(20, 20)), (6,)),
        (lambda: nn.Conv2d(1, 4, 3), lambda: Recurrent(LIF(), nn.Conv2d(4, 4, 3, padding=1)), (1, 8, 8)),
        (lambda: nn.Conv2d(1, 4, 3), lambda: CubaLIF(torch.linspace(2.0, 5.0, 4).view(4, 1, 1)), (1, 8, 8)),
    ],
)
def test_neurons_of_sizes_of_their_own_get_currents_of_that_size(
    layer: Any, neuron: Any, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(layer()), neuron()).eval()
    x = torch.rand(6, 5, *shape)
    spec = isofire.QuantSpec(membrane={"bits": 3, "range": [-1, 1], "placement": "post_reset"})
    quantized = isofire.quantize_(copy.deepcopy(net), spec, x)
    assert quantized(x).shape == net(x).shape
    assert not torch.equal(quantized(4 * x), net(4 * x))
