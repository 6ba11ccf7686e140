"""Layers on [T, N, ...] against a loop over the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.neurons import PerStep, Repeat, StepLayer, apply_per_step


def test_apply_per_step_equals_a_loop(currents: Any) -> None:
    x = currents(3, 2, 4, 6, 6)
    conv = nn.Conv2d(4, 5, 3)
    expected = torch.stack([conv(step) for step in x])
    torch.testing.assert_close(apply_per_step(conv, x), expected)


def test_per_step_equals_a_loop(currents: Any) -> None:
    x = currents(3, 2, 4, 6, 6)
    layers = [nn.Conv2d(4, 5, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(20, 7)]
    expected = torch.stack([nn.Sequential(*layers)(step) for step in x])
    torch.testing.assert_close(PerStep(*layers)(x), expected)


def test_a_batch_norm_sees_all_steps_at_once(currents: Any) -> None:
    x, norm = currents(3, 2, 4), nn.BatchNorm1d(4)
    y = PerStep(norm)(x)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(4), rtol=0, atol=1e-6)
    assert norm.num_batches_tracked == 1


class Cumulate(StepLayer):
    """Sums over the steps so far: it needs the time axis."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 3
        return x.cumsum(0)


def test_a_step_layer_sees_the_time_axis() -> None:
    x = torch.ones(3, 2, 4)
    assert apply_per_step(Cumulate(), x)[:, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert PerStep(nn.Hardtanh(0.0, 0.5), Cumulate())(x)[:, 1, 3].tolist() == [0.5, 1.0, 1.5]


def test_repeat_presents_an_input_at_every_step() -> None:
    x = torch.arange(6.0).view(2, 3).requires_grad_()
    y = Repeat(4)(x)
    assert y.shape == (4, 2, 3)
    assert all(torch.equal(step, x) for step in y)
    assert y.data_ptr() == x.data_ptr()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[4.0] * 3] * 2


@pytest.mark.parametrize("steps", [0, -1])
def test_repeat_needs_a_step(steps: int) -> None:
    with pytest.raises(SpecError, match=f"T must be at least 1 step, got {steps}"):
        Repeat(steps)
