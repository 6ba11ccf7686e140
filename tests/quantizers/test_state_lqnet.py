"""A learned basis of the state: fits, averages, and that it does not collapse where the published one does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from isofire.neurons import LIF, MembraneQuantizer
from isofire.quantizers import LQNet, NeuronFacts, Quantizer, StateLQNet
from isofire.quantizers.state_lqnet import EVERY

STATISTICS = ("moments", "histogram")


def states(seed: int = 0, count: int = 4000) -> Tensor:
    """Potentials after the reset: many at rest, none at the threshold or above."""
    v = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([0.4, 0.7])
    return v.masked_fill(v >= 1, 0.0)


def error(quantizer: Quantizer, v: Tensor) -> float:
    with torch.no_grad():
        return float((quantizer.eval()(v) - v).double().square().mean())


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_fit_is_a_fixed_point_of_assignment_and_least_squares(statistics, bits) -> None:
    v = states()[:, :1]
    quantizer = StateLQNet(bits, NeuronFacts(), fires=False, statistics=statistics)
    quantizer.calibrate(v)
    basis = quantizer.basis[0].double().numpy()
    codes = np.array(list(itertools.product([0, 1], repeat=bits)))
    x = v[:, 0].double().numpy()
    nearest = np.abs(x[:, None] - codes @ basis).argmin(1)
    wanted, *_ = np.linalg.lstsq(codes[nearest], x, rcond=None)
    np.testing.assert_allclose(basis, wanted, atol=2e-3)
    # no even grid around the rest does better
    own = error(quantizer, v)
    for step in np.linspace(0.05, 1.2, 100):
        # with a level above it
        for below in range(2**bits - 1):
            grid = step * np.arange(-below, 2**bits - below)
            assert own <= (np.abs(x[:, None] - grid).min(1) ** 2).mean() * 1.0001


def test_zero_is_a_level_whatever_the_basis_is() -> None:
    quantizer = StateLQNet(3, NeuronFacts(v_reset=-0.3, thresholds=(0.9,)), fires=False)
    quantizer.calibrate(states() - 0.3)
    for seed in range(20):
        quantizer.basis.copy_(torch.randn(1, 3, generator=torch.Generator().manual_seed(seed)))
        rest = torch.full((1, 1), -0.3)
        with torch.no_grad():
            assert torch.equal(quantizer(rest), rest)
        assert float(quantizer.levels().max()) < 0.9


@pytest.mark.parametrize("statistics", STATISTICS)
def test_training_follows_states_that_change(statistics) -> None:
    quantizer = StateLQNet(2, NeuronFacts(), fires=False, statistics=statistics, granularity="channel", channels=2)
    quantizer.calibrate(states() * 0.3)
    v = states(1)
    before = error(quantizer, v)
    quantizer.train()
    for _ in range(40 * EVERY):
        quantizer(v.clone().requires_grad_())
    fitted = StateLQNet(2, NeuronFacts(), fires=False, granularity="channel", channels=2)
    fitted.calibrate(v)
    assert error(quantizer, v) < 0.5 * before
    assert error(quantizer, v) < 1.1 * error(fitted, v)


@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_silent_channel_keeps_its_levels(statistics) -> None:
    quantizer = StateLQNet(2, NeuronFacts(), fires=False, statistics=statistics, granularity="channel", channels=2)
    quantizer.calibrate(states())
    before = quantizer.levels()
    quantizer.train()
    v = states()
    v[:, 1] = 0.0
    for _ in range(40 * EVERY):
        quantizer(v.clone().requires_grad_())
    torch.testing.assert_close(quantizer.levels()[1], before[1], atol=0.02, rtol=0)


def test_nothing_moves_in_eval_mode_or_without_gradients() -> None:
    quantizer = StateLQNet(2, NeuronFacts(), fires=False)
    quantizer.calibrate(states())
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    with torch.no_grad():
        for _ in range(2 * EVERY):
            quantizer(states(1))
    quantizer.eval()
    for _ in range(2 * EVERY):
        quantizer(states(1).requires_grad_())
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def rates(quantizer: Quantizer, bits: int, rounds: int = 300) -> tuple[list[float], float]:
    """Rate in each of many training forwards of a layer whose inputs stay as a fresh batch norm gives them; and full
    precision's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 64, 100, generator=generator)
    neuron = LIF()
    full = float(neuron(x).mean())
    # the states before the threshold of a layer in full precision
    v, seen = torch.zeros(64, 100), []
    for step in x:
        v = v + (step - v) / 2
        seen.append(v)
        v = v.masked_fill(v >= 1, 0.0)
    quantizer.calibrate(torch.cat(seen))
    neuron.membrane = MembraneQuantizer(quantizer, "pre_fire")
    neuron.train()
    found = []
    for _ in range(rounds):
        batch = torch.randn(4, 64, 100, generator=generator).requires_grad_()
        found.append(float(neuron(batch).detach().mean()))
    return found, full


def test_learned_levels_before_the_threshold_do_not_collapse_where_the_published_ones_do() -> None:
    published, full = rates(LQNet(2, granularity="tensor", channel_axis=1, init="data"), 2)
    # the top level falls below V_th, and nothing fires any more
    assert min(published[-50:]) == 0.0
    for statistics in STATISTICS:
        own, _ = rates(StateLQNet(2, NeuronFacts(), fires=True, statistics=statistics), 2)
        assert 0.7 * full < min(own) <= max(own) < 1.3 * full
        steps = np.abs(np.diff(own))
        # no jump beyond what fresh batches bring
        assert steps.max() < 0.3 * full
