"""Shifts that bring rates back, on layers whose lost shift is known."""

from __future__ import annotations

import torch
from torch import nn

from isofire.adapters import adapter_of
from isofire.neurons import LIF
from isofire.quantization.by_firing.correction import search_shift
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import Call


def replay_of(x: torch.Tensor, **kwargs: object) -> Replay:
    neuron = LIF()
    adapter = adapter_of(neuron)
    assert adapter is not None
    return Replay(neuron, adapter, [[Call((x,), dict(kwargs))]])


def currents(seed: int = 0) -> torch.Tensor:
    # [T, N, C, H, W]
    return torch.randn(4, 40, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) + 0.6


def test_a_shift_that_was_lost_is_found():
    x = currents()
    target = replay_of(x).counts()
    lost = torch.tensor([0.31, -0.22, 0.0])
    moved = replay_of(x - lost.view(1, 1, 3, 1, 1))
    shift, before, after = search_shift(lambda shift: moved.counts(shift.view(3, 1, 1)), target, moved.unit)
    torch.testing.assert_close(shift, lost, atol=0.02, rtol=0)
    assert bool((after <= before).all())
    assert float(after[:2].max()) < 0.1 * float(before[:2].min())
    assert moved.samples == 4 * 40


def test_a_channel_that_never_fires_is_brought_back():
    x = currents()
    target = replay_of(x).counts()
    silent = replay_of(x - 5.0)
    assert int(silent.counts().sum()) == 0
    _, before, after = search_shift(lambda shift: silent.counts(shift.view(3, 1, 1)), target, silent.unit)
    assert bool((after < 0.05 * before).all())


def test_a_shift_behind_a_norm_is_its_bias():
    x = currents().flatten(0, 1)
    norm = nn.BatchNorm2d(3).eval()
    shift = torch.tensor([0.5, 0.0, -0.5])
    kept = norm.bias.detach().clone()
    inside = replay_of(x.view(4, 40, 3, 6, 6), norm=norm).counts(shift)
    assert torch.equal(norm.bias, kept)
    with torch.no_grad():
        after_norm = norm(x).view(4, 40, 3, 6, 6)
    assert torch.equal(inside, replay_of(after_norm).counts(shift.view(3, 1, 1)))


def test_calls_shifted_for_good_equal_a_shift():
    x, shift = currents(), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    once, stored = replay_of(x), replay_of(x)
    stored.shift_(shift)
    assert torch.equal(once.counts(shift), stored.counts())
