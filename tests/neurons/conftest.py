"""Currents, neurons by name, gradients, and what "equal" means for gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from isofire.neurons import IF, LIF, Neuron, ParametricLIF

MAKERS: dict[str, Callable[..., Neuron]] = {
    "if": IF,
    "lif": partial(LIF, 3.0),
    "lif undecayed": partial(LIF, 3.0, decay_input=False),
    "plif": partial(ParametricLIF, 1.7),
    "plif undecayed": partial(ParametricLIF, 1.7, decay_input=False),
}


@pytest.fixture(scope="session")
def make_neuron() -> Callable[..., Neuron]:
    """A neuron of one of five kinds: `if`, `lif`, `lif undecayed`, `plif`, `plif undecayed`."""
    return lambda kind, **options: MAKERS[kind](**options)


@pytest.fixture(scope="session")
def currents() -> Callable[..., Tensor]:
    """Random inputs that make a neuron with threshold 1 fire at a good part of the steps."""

    def draw(*shape: int, seed: int = 0, channels_last: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = (torch.randn(shape, generator=generator) * 1.5 + 0.8).to(dtype)
        if channels_last:
            x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
        return x

    return draw


@pytest.fixture(scope="session")
def run() -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """Spikes, and the gradients of the input and of each parameter, for a fixed upstream gradient."""

    def fire(neuron: Neuron, x: Tensor, **call: object) -> tuple[Tensor, list[Tensor]]:
        x = x.detach().clone().requires_grad_()
        spikes = neuron(x, **call)
        upstream = torch.arange(spikes.numel(), dtype=torch.float64).cos().view(spikes.shape).to(spikes.dtype)
        return spikes.detach(), list(torch.autograd.grad(spikes, [x, *neuron.parameters()], upstream))

    return fire


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Fails unless |a - b| <= tolerance * (|b| + max |b|) everywhere; `scale` replaces the maximum."""

    def check(a: Tensor, b: Tensor, tolerance: float = 1e-5, scale: float | None = None, note: object = "") -> None:
        assert a.shape == b.shape
        a, b = a.double(), b.double()
        largest = float(b.abs().max()) if scale is None else scale
        error = (a - b).abs()
        worst = float((error / (b.abs() + largest + 1e-30)).max())
        assert torch.isfinite(error).all(), note
        assert worst <= tolerance, f"off by {worst:.2e} of its size {note}"

    return check
