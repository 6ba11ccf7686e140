"""Weights that a layer makes of what it stores: what of it is stored, and from which memory the made ones are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire import QuantSpec, quantize_
from isofire.firing.cost import Cost, EnergyConstants, measure_cost
from isofire.neurons import LIF

STEPS, INPUTS, WIDE, OUT, CLASSES = 3, 5, 80, 50, 3
DATA = torch.rand(4, INPUTS, generator=torch.Generator().manual_seed(0)) * 4, torch.arange(4) % CLASSES
AROUND = INPUTS * WIDE + WIDE + OUT * CLASSES + CLASSES
ONLY_READS = EnergyConstants(memory_8kb=64, memory_32kb=64e3, memory_1mb=64e6)
"""A bit costs 1 pJ from 8 KiB, 1000 from 32 KiB; 4000 weights of 32 bits lie in the second, 400 in the first."""


class Between(nn.Module):
    """Spikes go through a layer that makes its weights."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.layer = LIF(), LIF(), layer
        self.into, self.head = nn.Linear(INPUTS, WIDE), nn.Linear(OUT, CLASSES)
        self.spikes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.one(self.into(x).expand(STEPS, -1, -1))
        self.spikes = float(spikes.sum()) / len(x)
        return self.head(self.two(self.layer(spikes)))


class Made(nn.Module):
    def __init__(self, make: Callable[[Any], Tensor], **held: Any) -> None:
        super().__init__()
        self.make = make
        for name, tensor in held.items():
            setattr(self, name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.make(self))


def measured(layer: nn.Module) -> tuple[Cost, float]:
    model = Between(layer).eval()
    with torch.no_grad():
        model(DATA[0])
    # costs run the network on other numbers too
    spikes = model.spikes
    assert spikes > 0
    return measure_cost(model, DATA), spikes


def learned(*shape: int) -> Tensor:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.3)


def buffer(*shape: int) -> Tensor:
    return nn.Buffer(torch.randint(1, 8, shape, generator=torch.Generator().manual_seed(1)).to(torch.int8))


MADE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "as it is": (lambda: Made(lambda m: m.weight, weight=learned(OUT, WIDE)), 4000),
    "another name": (lambda: Made(lambda m: F.normalize(m.W), W=learned(OUT, WIDE)), 4000),
    "a gain": (lambda: Made(lambda m: m.v * m.g, v=learned(OUT, WIDE), g=learned(OUT, 1)), 4050),
    "two layers": (lambda: Made(lambda m: m.b @ m.a, a=learned(2, WIDE), b=learned(OUT, 2)), 260),
    "beside a weight": (lambda: Made(lambda m: m.W * m.weight.sum(), W=learned(OUT, WIDE), weight=learned(2, 2)), 4004),
    "beside one unused": (lambda: Made(lambda m: F.normalize(m.W), W=learned(OUT, WIDE), weight=learned(2, 2)), 4004),
    "buffer, scale learned": (lambda: Made(lambda m: m.q * m.g, q=buffer(OUT, WIDE), g=learned(OUT, 1)), 4050),
    "buffer, scale held": (
        lambda: Made(lambda m: m.q.float() * m.g, q=buffer(OUT, WIDE), g=nn.Buffer(torch.rand(OUT, 1))),
        4050,
    ),
    "frozen, merged": (
        lambda: Made(
            lambda m: m.base + m.b @ m.a,
            base=nn.Buffer(torch.randn(OUT, WIDE) * 0.3),
            a=learned(2, WIDE),
            b=learned(OUT, 2),
        ),
        4260,
    ),
    "tensors of one's own": (lambda: Made(lambda m: m.q[0] * m.g, q=[torch.rand(OUT, WIDE)], g=learned(OUT, 1)), 4050),
    "mask in bool": (
        lambda: Made(lambda m: m.w * (m.m > 3), w=learned(OUT, WIDE), m=nn.Buffer(torch.rand(OUT, WIDE) * 6)),
        4000,
    ),
    "mask of ones": (
        lambda: Made(lambda m: m.w * m.m, w=learned(OUT, WIDE), m=nn.Buffer((torch.rand(OUT, WIDE) > 0.5).float())),
        4000,
    ),
    "which connect": (
        lambda: Made(lambda m: m.m * m.g, m=nn.Buffer((torch.rand(OUT, WIDE) > 0.5).float()), g=learned(OUT, 1)),
        4050,
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_all_that_weights_are_made_of_is_stored_and_what_is_made_is_read(name: str) -> None:
    torch.manual_seed(1)
    build, stored = MADE[name]
    cost, spikes = measured(build())
    (site,) = (item for item in cost.synapses if item.name not in ("into", "head"))
    assert cost.left_out == ()
    assert cost.memory.weight_bits == 32 * (AROUND + stored)
    assert site.weights == 4000
    assert site.synops.mean == pytest.approx(spikes * OUT)
    others = sum(item.synops.mean + item.macs_once for item in cost.synapses if item is not site)
    reads = 32 * (others + 1000 * site.synops.mean)
    assert cost.energy(constants=ONLY_READS).weights == pytest.approx(reads)


def test_a_parameter_that_two_modules_hold_is_read_by_both_as_what_it_is() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (Made(lambda m: m.W, W=learned(OUT, WIDE)) for _ in range(2))
            self.b.W = self.a.W

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)

    cost, _ = measured(Twice())
    assert {item.name: item.weights for item in cost.synapses if item.name.startswith("layer")} == {
        "layer.a.W": 4000,
        "layer.b.W": 4000,
    }
    assert cost.memory.weight_bits == 32 * (AROUND + 4000)
    assert cost.energy(constants=ONLY_READS).weights > 32000 * sum(item.synops.mean for item in cost.synapses[1:3])


def test_weights_made_of_a_quantized_layer_s_own_are_read_in_its_bits() -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDE, OUT, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.inner.weight) + 0 * self.inner(x)

    torch.manual_seed(0)
    model = Between(Outside()).eval()
    spec = QuantSpec(weights={"method": "uniform", "bits": 3}, first_layer="quantize")  # type: ignore[arg-type]
    cost = measure_cost(quantize_(model, spec, DATA), DATA)
    (site,) = (item for item in cost.synapses if item.name.startswith("layer"))
    assert (site.name, site.weights, cost.bits_of(site.name)) == ("layer.inner", 4000, 3)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(OUT, WIDE, dtype=torch.cfloat, generator=torch.Generator().manual_seed(1)))
        self.turn = nn.Parameter(torch.ones(OUT, dtype=torch.cfloat) * 0.5j)

    def forward(self, x: Tensor) -> Tensor:
        return ((x.to(torch.cfloat) @ self.w.T) * self.turn).real


def test_a_complex_number_is_two() -> None:
    cost, spikes = measured(Complex())
    site = next(item for item in cost.synapses if item.name == "layer.w")
    assert cost.memory.weight_bits == 32 * (AROUND + 2 * OUT * WIDE + 2 * OUT)
    assert site.weights == 2 * OUT * WIDE
    assert site.synops.mean == pytest.approx(2 * spikes * OUT)


@pytest.mark.parametrize(("real", "products"), [(True, 2), (False, 4)])
def test_products_of_complex_numbers_are_four_and_two_with_real_ones(real: bool, products: int) -> None:
    class Turned(Complex):
        def forward(self, x: Tensor) -> Tensor:
            mixed = (x * 0.3).exp().to(torch.cfloat)
            return ((mixed if real else mixed * (1 + 1j)) @ self.w.T).real

    cost, _ = measured(Turned())
    site = next(item for item in cost.synapses if item.name == "layer.w")
    assert site.macs_once == products * STEPS * OUT * WIDE
    assert site.weights == 2 * OUT * WIDE
