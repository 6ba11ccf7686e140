"""Synapses whose weight is not 0, where weights of one shape are used in several ways or written during a forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import Cost, measure_cost
from isofire.neurons import LIF

STEPS, N, F = 3, 5, 4
IMAGES = 3 * torch.rand(N, F * F, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 3


class Both(nn.Module):
    """Spikes [T * N, F, F] by a stored [T * N or 1, F, F] from the left and from the right."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.join, self.fire, self.head, self.seen = join, LIF(), nn.Linear(F * F, 3), torch.empty(0)
        self.weight = nn.Parameter(torch.randn(F, F) * (torch.rand(F, F) < 0.6))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(x.expand(STEPS, -1, -1).contiguous())
        self.seen = spikes
        made = self.join(spikes.view(STEPS * N if len(x) == N else -1, F, F), self.weight)
        return self.head(made.view(STEPS, len(x), -1))


def measured(net: nn.Module) -> Cost:
    return measure_cost(net.eval(), IMAGES)


JOINS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool, bool]] = {
    "left": (lambda s, w: torch.bmm(s, w.expand(len(s), F, F)), True, False),
    "right": (lambda s, w: torch.bmm(w.expand(len(s), F, F), s), False, True),
    "both": (lambda s, w: torch.bmm(s, w.expand(len(s), F, F)) + torch.bmm(w.expand(len(s), F, F), s), True, True),
    "right first": (
        lambda s, w: torch.bmm(w.expand(len(s), F, F), s) + torch.bmm(s, w.expand(len(s), F, F)), True, True
    ),
}  # fmt: skip


@pytest.mark.parametrize("join", JOINS)
def test_weights_from_the_left_and_from_the_right_have_fan_outs_of_their_own(join: str) -> None:
    net = Both(JOINS[join][0])
    with torch.no_grad():
        net.eval()(IMAGES[0])
    spikes, used = net.seen.double().view(-1, F, F), (net.weight != 0).double()
    _, left, right = JOINS[join]
    expected = left * (spikes * used.sum(1)).sum() + right * (spikes * used.sum(0)[:, None]).sum()
    found = next(item for item in measured(net).synapses if item.name == "weight")
    assert found.synops.mean == pytest.approx(float((left + right) * F * spikes.sum() / N))
    assert found.synops_nonzero.mean == pytest.approx(float(expected / N))


@pytest.mark.parametrize("inference", [False, True])
def test_weights_that_are_written_at_each_step_are_those_of_the_step(inference: bool) -> None:
    masks = (torch.rand(STEPS, F * F, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fire, self.weight = LIF(), nn.Parameter(torch.randn(F * F, 3))
            self.register_buffer("made", torch.zeros(F * F, 3))
            self.seen = torch.empty(0)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.fire(x.expand(STEPS, -1, -1).contiguous())
            logits = []
            for spikes, mask in zip(self.seen, masks, strict=True):
                self.made.copy_(self.weight.detach() * mask)
                logits.append(spikes @ self.made)
            return torch.stack(logits)

    with torch.inference_mode(inference):
        net = Written()
    with torch.inference_mode():
        net.eval()(IMAGES[0])
    expected = sum((s.double() * m.double().sum(1)).sum() for s, m in zip(net.seen, masks, strict=True)) / N
    total = float(3 * net.seen.double().sum() / N)
    cost = measured(net)
    assert sum(item.synops_nonzero.mean for item in cost.synapses) == pytest.approx(float(expected))
    assert cost.synops.mean == pytest.approx(total)


@pytest.mark.parametrize("order", [1, -1])
def test_neurons_of_images_of_several_sizes_have_states_for_the_largest(order: int) -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fire, self.head = nn.Conv2d(1, 2, 3), LIF(), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.fire(3 * self.conv(x).expand(STEPS, *self.conv(x).shape)).mean((3, 4)))

    batches = [(torch.rand(3, 1, *size), torch.arange(3)) for size in ((6, 6), (9, 5), (4, 8))][::order]
    cost = measure_cost(Maps().eval(), batches)
    # 4 x 4, 7 x 3 and 2 x 6 places of two channels
    assert [item.neurons for item in cost.neurons] == [42]
    assert cost.memory.state_bits == 42 * 32
