"""Synapses whose weight is not 0, where weights of one shape are used in several ways or written during a forward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import isofire
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


@pytest.mark.parametrize("past_counters", [False, True])
def test_weights_that_are_written_at_each_step_are_those_of_the_step(past_counters: bool) -> None:
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
                (self.made.data if past_counters else self.made).copy_(self.weight.detach() * mask)
                logits.append(spikes @ self.made)
            return torch.stack(logits)

    net = Written()
    with torch.no_grad():
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


@pytest.mark.parametrize("past_counters", [False, True])
def test_a_static_image_is_worked_on_with_the_weights_of_each_step(past_counters: bool) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.into, self.fire, self.head = nn.Linear(F * F, 8), LIF(), nn.Linear(8, 3)
            self.register_buffer("made", torch.zeros(8, F * F))

        def forward(self, x: Tensor) -> Tensor:
            currents = []
            for step in range(STEPS):
                made = self.made.data if past_counters else self.made
                made.copy_(self.into.weight.detach() * (torch.arange(8) % STEPS == step)[:, None])
                currents.append(nn.functional.linear(x, self.made, self.into.bias))
            return self.head(self.fire(torch.stack(currents)))

    cost = measured(Masked())
    found = next(item for item in cost.synapses if item.macs_once and item.name != "head")
    assert (found.macs_once, found.macs_every_step) == (STEPS * 8 * F * F, STEPS * 8 * F * F)


class Copied(nn.Module):
    """A forward that copies what it uses, hooks and all."""

    def __init__(self, what: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.fire, self.out, self.what = nn.Linear(F * F, 8), LIF(), nn.Linear(8, 3), what
        self.head = nn.Sequential(self.out) if what == "block" else self.out

    def forward(self, x: Tensor) -> Tensor:
        fire, head = (copy.deepcopy(self.fire) if self.what == "neuron" else self.fire), self.head
        head = head if self.what == "neuron" else copy.deepcopy(head)
        return head(fire(3 * self.into(x).expand(STEPS, -1, -1)))


@pytest.mark.parametrize("what", ["layer", "block", "neuron"])
def test_a_forward_may_copy_what_it_uses(what: str) -> None:
    """A KeyError of isofire's own, then a dying process: the copies took along what the hooks belong to."""
    net, plain = Copied(what).eval(), Copied(what)
    plain.forward = lambda x: plain.head(plain.fire(3 * plain.into(x).expand(STEPS, -1, -1)))  # type: ignore[method-assign]
    expected, found = (measure_cost(item.eval(), IMAGES) for item in (plain, net))
    assert found.synops == expected.synops
    assert found.spikes == expected.spikes
    assert isofire.compare(net, net, IMAGES).agreement == 1.0


COMPLEX: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "plain": (lambda s, w: (s.to(w.dtype) @ w).real, 2),
    "conjugated": (lambda s, w: (s.to(w.dtype) @ w.conj()).real, 2),
    "its imaginary part": (lambda s, w: s @ w.imag, 1),
    "that of its conjugate": (lambda s, w: s @ w.conj().imag, 1),
}


@pytest.mark.parametrize("how", COMPLEX)
def test_complex_weights_in_torchs_lazy_forms(how: str) -> None:
    join, products = COMPLEX[how]

    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fire, self.head = LIF(), nn.Linear(5, 3)
            self.weight = nn.Parameter(torch.randn(F * F, 5, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(join(self.fire(x.expand(STEPS, -1, -1).contiguous()), self.weight).contiguous())

    cost = measured(Complex())
    found = cost.synapses[0]
    assert found.synops_nonzero.mean == found.synops.mean == pytest.approx(products * 5 * cost.spikes.mean)


def test_weights_scaled_by_one_number_of_the_image() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fire, self.mid, self.second, self.head = LIF(), nn.Linear(F * F, 6), LIF(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.fire(x.expand(STEPS, -1, -1).contiguous())
            return self.head(self.second(spikes @ (self.mid.weight * spikes[:, :1].mean()).T))

    cost = measured(Scaled())
    assert {item.name for item in cost.synapses} >= {"(activations)", "head"}
