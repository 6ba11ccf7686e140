"""The learned step of a state: its gradient against autograd's of the same formula, its bounds, its start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isofire.neurons import LIF, MembraneQuantizer
from isofire.quantizers import NeuronFacts, StateLSQ
from isofire.quantizers.state_lsq import StateGrid

GRID = StateGrid(1, 2, NeuronFacts(thresholds=(0.8,), v_reset=-0.1), fires=False)
FIRING = StateGrid(1, 1, NeuronFacts(thresholds=(0.8,), v_reset=-0.1), fires=True)


def states(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(seed)) * torch.tensor([0.3, 0.6, 0.9])[:, None]


def formula(v: Tensor, log_step: Tensor, grid: StateGrid) -> Tensor:
    """LSQ with autograd: clamp differentiable, rounding straight through."""
    step, rest = log_step.exp2(), grid.neuron.rest
    inside = ((v - rest) / step).clamp(-grid.below, grid.above)
    q = rest + step * (inside + (inside.round() - inside).detach())
    if not grid.fires:
        return q
    # what fires says nothing of the step and passes its gradient on
    return torch.where(v >= grid.neuron.threshold, v, q)


@pytest.mark.parametrize("grid", [GRID, FIRING], ids=["post_reset", "pre_fire"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_gradients_are_those_of_the_formula(grid: StateGrid, granularity: str) -> None:
    channels = 3 if granularity == "channel" else 1
    quantizer = StateLSQ(grid, granularity=granularity, channels=channels)
    v = states()
    quantizer.calibrate(v)
    x = v.clone().requires_grad_()
    weight = torch.randn(v.shape, generator=torch.Generator().manual_seed(1))
    (quantizer(x) * weight).sum().backward()
    own = v.clone().requires_grad_()
    log_step = quantizer.log_step.detach().clone().requires_grad_()
    shaped = log_step.view(-1, 1) if channels > 1 else log_step
    (formula(own, shaped, grid) * weight).sum().backward()
    torch.testing.assert_close(x.grad, own.grad)
    # g = 1 / sqrt(N k), N the potentials of one sample that share a step
    scale = (v[0].numel() / channels * grid.above) ** -0.5
    torch.testing.assert_close(quantizer.log_step.grad, log_step.grad * scale)


def test_the_start_has_the_least_error_within_the_bounds() -> None:
    v = states()
    quantizer = StateLSQ(GRID, granularity="channel", channels=3)
    quantizer.calibrate(v)
    for channel in range(3):
        steps = torch.linspace(*GRID.bounds, 4001).double()
        rest = GRID.neuron.rest
        own = v[:, channel].double().flatten()
        tried = rest + steps[:, None] * ((own - rest) / steps[:, None]).clamp(-1, 2).round()
        best = (tried - own).square().mean(1).min()
        with torch.no_grad():
            got = (quantizer(v)[:, channel].double().flatten() - own).square().mean()
        assert float(got) <= float(best) * 1.01


@pytest.mark.parametrize("grid", [GRID, FIRING], ids=["post_reset", "pre_fire"])
@pytest.mark.parametrize("wild", [-30.0, 30.0])
def test_however_far_training_drives_the_step_the_threshold_stays_within_reach(grid: StateGrid, wild: float) -> None:
    quantizer = StateLSQ(grid)
    quantizer.calibrate(states())
    with torch.no_grad():
        quantizer.log_step.fill_(wild)
    neuron = LIF(v_threshold=0.8, v_reset=-0.1)
    neuron.membrane = MembraneQuantizer(quantizer, "pre_fire" if grid.fires else "post_reset")
    x = torch.randn(8, 16, 3, 4, generator=torch.Generator().manual_seed(3)) + 0.5
    rate = float(LIF(v_threshold=0.8, v_reset=-0.1)(x).mean())
    assert 0.6 * rate < float(neuron(x.requires_grad_()).detach().mean()) < 1.6 * rate
    low, high = grid.bounds
    assert low * 0.999 <= 2.0 ** float(quantizer.log_step) <= high * 1.001
    stored = quantizer.levels()[0, : grid.below + grid.above + 1]
    if grid.fires:
        assert float(stored.max()) < 0.8
    else:
        assert float(stored.max()) >= 0.8 - (0.8 + 0.1) / (grid.above + 1) - 1e-6


def test_a_step_that_training_improves_moves_there() -> None:
    quantizer = StateLSQ(GRID)
    v = states()
    quantizer.calibrate(v)
    with torch.no_grad():
        best = float(quantizer.log_step)
        quantizer.log_step.copy_(torch.tensor([math.log2(GRID.bounds[1])]))
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        (quantizer(v) - v).square().mean().backward()
        optimizer.step()
    assert float(quantizer.log_step) == pytest.approx(best, abs=0.1)
