"""Layers on [T, N, ...] against a loop over the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import find_neurons
from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LI, LIF, PerStep, Recurrent, Repeat, StepLayer, apply_per_step


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


class Held(StepLayer):
    """Neurons of a layer that is handed all steps see these."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = LIF(tau=8.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x)


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([nn.Linear(4, 4), LIF()], "1"),
        ([nn.Sequential(nn.Linear(4, 4), nn.Sequential(IF()))], "0.1.0"),
        ([Recurrent(LIF(), nn.Linear(4, 4))], "0"),
        ([nn.Sequential(LI())], "0.0"),
        ([PerStep(nn.Linear(4, 4), LI())], "0.1"),
    ],
)
def test_layers_with_states_are_refused(layers: list[nn.Module], name: str) -> None:
    with pytest.raises(ModelError, match=rf"'{name}' \(.*\) lies inside a PerStep.*PerStep\(layer\), neuron"):
        PerStep(*layers)


def test_neurons_that_are_put_in_later_or_are_of_others_are_refused_by_every_verb() -> None:
    folded = PerStep(nn.Linear(4, 4))
    folded.append(LIF())
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(4, 4)), LIF(), folded)
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4})
    images = torch.rand(3, 4), torch.zeros(3).long()
    for verb, *given in ((isofire.compare, model, images), (isofire.prepare, spec), (isofire.quantize_, spec)):
        with pytest.raises(ModelError, match=r"'3\.1' \(LIF\) lies inside a PerStep"):
            verb(model, *given)  # type: ignore[operator]
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    with pytest.raises(ModelError, match=r"'1\.1' \(LIFNode\) lies inside a PerStep"):
        find_neurons(nn.Sequential(Repeat(2), PerStep(nn.Linear(4, 4), neuron.LIFNode(step_mode="m"))))


def test_neurons_of_a_layer_that_is_handed_all_steps_are_right(currents: Any) -> None:
    x = currents(5, 3, 4)
    held = PerStep(Held())
    assert torch.equal(held(x), LIF(tau=8.0)(x))
    assert list(find_neurons(held)) == ["0.neuron"]
