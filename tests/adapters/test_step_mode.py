"""SpikingJelly's neurons left in step mode "s" and given all steps at once: the step mode is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing import compare
from isofire.firing.cost import measure_cost
from isofire.firing.timing import compare_timing
from isofire.training import evaluate

WHY = "SpikingJelly is not installed"
neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason=WHY)
functional = pytest.importorskip("spikingjelly.activation_based.functional", reason=WHY)

T, N = 4, 18
FRAMES, LABELS = torch.rand(T, N, 6, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 3


class Net(nn.Module):
    def __init__(self, repeats: bool = False, mixes: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.repeats, self.mixes = repeats, mixes
        self.first, self.fire, self.last = nn.Linear(6, 8), neuron.LIFNode(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).repeat(T, 1, 1) if self.repeats else x
        return self.last(self.fire(4 * self.first(x)))


class Loop(Net):
    """Step mode "s" as it is meant, in a network that mixes images or does not."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean(0)) * 9 if self.mixes else x
        return torch.stack([self.last(self.fire(4 * self.first(x))) for _ in range(T)])


@pytest.mark.parametrize("repeats", [False, True])
def test_the_step_mode_is_named(repeats: bool) -> None:
    model, data = Net(repeats).eval(), (FRAMES[0] if repeats else FRAMES, LABELS)
    for verb in (
        lambda: compare(model, model, data),
        lambda: compare_timing(model, model, data),
        lambda: measure_cost(model, data),
        lambda: evaluate(model, data),
    ):
        with pytest.raises(ModelError, match=r"layer 'fire' takes single steps, .*set_step_mode\(net, 'm'\)") as told:
            verb()
        assert "softmax" not in str(told.value)
    functional.set_step_mode(model, "m")
    compare(model, model, data)
    assert evaluate(model, data).n == N


def test_networks_that_mix_images_are_told_as_before() -> None:
    data = FRAMES[0], LABELS
    model = Loop(mixes=True).eval()
    with pytest.raises(ModelError, match="a norm or a softmax over the batch") as told:
        compare(model, model, data)
    assert "step mode" not in str(told.value)
    model = Loop().eval()
    assert compare(model, model, data).n_images == N
