"""Neurons against SpikingJelly's, spike by spike and gradient by gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from isofire.neurons import IF, LIF, ATan, Neuron, ParametricLIF, Sigmoid, Surrogate, Triangle

WHY = "SpikingJelly is not installed; it is the outside reference of these tests"
sj_neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason=WHY)
sj_surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate", reason=WHY)
sj_functional = pytest.importorskip("spikingjelly.activation_based.functional", reason=WHY)

SURROGATES: dict[str, tuple[Surrogate, Callable[[], Any]]] = {
    "sigmoid": (Sigmoid(4.0), lambda: sj_surrogate.Sigmoid(4.0)),
    "atan": (ATan(2.0), lambda: sj_surrogate.ATan(2.0)),
    "triangle": (Triangle(1.0), lambda: sj_surrogate.PiecewiseQuadratic(1.0)),
}
RESETS = [
    {"v_threshold": 1.0, "v_reset": 0.0},
    {"v_threshold": 0.75, "v_reset": -0.25},
    {"v_threshold": 1.0, "v_reset": None},
]


def pairs(kind: str, surrogate: str) -> list[tuple[Neuron, Any]]:
    """Every setting of one kind: this package's neuron and SpikingJelly's."""
    ours, theirs = SURROGATES[surrogate]
    found: list[tuple[Neuron, Any]] = []
    for common, detach, decay, tau in product(RESETS, (False, True), (False, True), (2.0, 3.5)):
        options = {**common, "detach_reset": detach}
        outside = {**options, "surrogate_function": theirs(), "step_mode": "m"}
        if kind == "lif":
            neuron = LIF(tau, decay_input=decay, surrogate=ours, **options)
            found.append((neuron, sj_neuron.LIFNode(tau, decay, **outside)))
        elif kind == "plif":
            neuron = ParametricLIF(tau, decay_input=decay, surrogate=ours, **options)
            found.append((neuron, sj_neuron.ParametricLIFNode(tau, decay, **outside)))
        elif decay and tau == 2.0:
            found.append((IF(surrogate=ours, **options), sj_neuron.IFNode(**outside)))
    return found


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize(("kind", "settings"), [("if", 6), ("lif", 24), ("plif", 24)])
def test_same_spikes_and_gradients(
    kind: str,
    settings: int,
    surrogate: str,
    currents: Callable[..., Tensor],
    run: Callable[..., tuple[Tensor, list[Tensor]]],
    assert_close: Callable[..., None],
) -> None:
    x = currents(6, 3, 5, 4)
    cases = pairs(kind, surrogate)
    assert len(cases) == settings
    for ours, theirs in cases:
        expected, gradients = run(theirs, x)
        sj_functional.reset_net(theirs)
        assert 0.02 < expected.mean() < 0.9
        for backend in ("reference", "torch", "auto"):
            ours.backend = backend  # type: ignore[assignment]
            spikes, got = run(ours, x)
            assert torch.equal(spikes, expected), (ours, backend)
            assert len(got) == len(gradients) == (2 if kind == "plif" else 1)
            for a, b in zip(got, gradients, strict=True):
                assert_close(a, b, note=(ours, backend))


def test_defaults_are_those_of_spikingjelly(
    currents: Callable[..., Tensor], run: Callable[..., tuple[Tensor, list[Tensor]]], assert_close: Callable[..., None]
) -> None:
    x = currents(5, 4, 7, seed=1)
    for ours, theirs in (
        (IF(), sj_neuron.IFNode(step_mode="m")),
        (LIF(), sj_neuron.LIFNode(step_mode="m")),
        (ParametricLIF(), sj_neuron.ParametricLIFNode(step_mode="m")),
    ):
        (spikes, got), (expected, gradients) = run(ours, x), run(theirs, x)
        assert torch.equal(spikes, expected)
        for a, b in zip(got, gradients, strict=True):
            assert_close(a, b, note=ours)


def test_a_learned_tau_trains_alike(currents: Callable[..., Tensor]) -> None:
    ours, theirs = ParametricLIF(1.5), sj_neuron.ParametricLIFNode(1.5, step_mode="m")
    theirs.load_state_dict(ours.state_dict())
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.05) for net in (ours, theirs)]
    for step in range(5):
        x = currents(4, 3, 6, seed=step)
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            ((net(x).mean(0) - 0.5) ** 2).mean().backward()
            optimizer.step()
        sj_functional.reset_net(theirs)
    assert ours.w.item() != ParametricLIF(1.5).w.item()
    assert ours.w.item() == pytest.approx(theirs.w.item(), rel=1e-5)
