"""Layers written out as products by elements that are added up later: counted, or named beside the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.firing.cost import Cost, measure_cost
from isofire.neurons import LIF

STEPS, F = 4, 8
DATA = 2 * torch.rand(5, 6, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
NOWHERE = torch.zeros(F, dtype=torch.int64)


class Net(nn.Module):
    """Spikes [T, N, 8] into whatever the head takes."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.fire, self.between = nn.Linear(6, F), LIF(), between
        self.w, self.W, self.taps = (nn.Parameter(torch.rand(*s) + 0.5) for s in ((F,), (STEPS, F), (STEPS,)))
        self.each = nn.ParameterList(nn.Parameter(torch.rand(()) + 0.5) for _ in range(3))
        self.leak, self.norm = nn.Parameter(torch.tensor(0.6)), nn.BatchNorm1d(F)
        self.norm.running_var = torch.rand(F) + 0.5  # type: ignore[assignment]
        with torch.no_grad():
            width = between(self, torch.zeros(STEPS, 2, F)).shape[-1]
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.fire(3 * self.into(x).expand(STEPS, -1, -1))))


def one(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def normed(net: Any, z: Tensor) -> Tensor:
    return net.norm(z.flatten(0, 1)).unflatten(0, (STEPS, -1))


def added(parts: Any) -> Tensor:
    total = torch.zeros(())
    for part in parts:
        total = total + part
    return total


def added_in_place(parts: list[Tensor]) -> Tensor:
    total = torch.zeros_like(parts[0])
    for part in parts:
        total += part
    return total


def chained(net: Any, z: Tensor) -> Tensor:
    total = torch.zeros_like(z[0])
    for step in range(STEPS):
        total = torch.addcmul(total, z[step], net.W[step])
    return total


def later(z: Tensor, by: int) -> Tensor:
    return torch.cat([torch.zeros_like(z[:by]), z[: STEPS - by]])


NAMED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "in place": (lambda net, z: one(z.clone().mul_(net.w)), "w"),
    "into a tensor": (lambda net, z: one(torch.mul(z, net.w, out=torch.empty_like(z))), "w"),
    "divided": (lambda net, z: one(z / net.w), "w"),
    "doubled in between": (lambda net, z: one(z * net.w * 2), "w"),
    "lerp": (lambda net, z: one(torch.lerp(torch.zeros_like(z), z, net.w)), "w"),
    "addcmul": (lambda net, z: one(torch.addcmul(torch.zeros(()), z, net.w)), "w"),
    "index_add": (lambda net, z: torch.zeros(STEPS, z.shape[1], 1).index_add(2, NOWHERE, z * net.w), "w"),
    "one after the other": (lambda net, z: added(z[..., i] * net.w[i] for i in range(F)).unsqueeze(-1), "w"),
    "unbound": (lambda net, z: torch.stack((z * net.w).unbind(-1)).sum(0).unsqueeze(-1), "w"),
    "over channels of a norm": (lambda net, z: one(normed(net, z)), "norm"),
    "steps": (lambda net, z: added(z[t] * net.taps[t] for t in range(STEPS)), "taps"),
    "steps in place": (lambda net, z: added_in_place([z[t] * net.W[t] for t in range(STEPS)]), "W"),
    "steps by addcmul": (chained, "W"),
    "steps stacked": (lambda net, z: torch.stack([z[t] * net.taps[t] for t in range(STEPS)]).sum(0), "taps"),
    "softmax over steps": (lambda net, z: added(z[t] * net.taps.softmax(0)[t] for t in range(STEPS)), "taps"),
    "delays": (lambda net, z: added(later(z, t) * net.taps[t] for t in range(STEPS)), "taps"),
    "shifts": (lambda net, z: added(z.roll(i, -1) * net.each[i] for i in range(3)), "each.0"),
}
"""What is made of spikes, and a tensor that scales them."""


def measured(net: Net) -> Cost:
    return measure_cost(net.eval(), DATA)


@pytest.mark.parametrize("name", NAMED)
def test_a_weighted_sum_in_other_words_is_named(name: str) -> None:
    """`(z * w).sum()` is counted; these were in no number, and nothing said so."""
    net = Net(NAMED[name][0])
    cost = measured(net)
    named = {item.name: item.reason for item in cost.left_out if item.of != "states"}
    assert NAMED[name][1] in named, named
    assert "a weighted sum" in named[NAMED[name][1]]
    drift = isofire.compare(net, net, DATA).synops
    assert NAMED[name][1] in {item.name for item in drift.left_out}


@pytest.mark.parametrize("along", ["channels", "steps"])
def test_a_weighted_sum_is_counted(along: str) -> None:
    between = {"channels": lambda net, z: one(z * net.w), "steps": lambda net, z: (z * net.W[:, None]).sum(0)}[along]
    cost = measured(Net(between))
    assert not cost.left_out
    assert next(item for item in cost.synapses if item.name in ("w", "W")).synops == cost.spikes


def leaks(step: Callable[[Any, Tensor, Tensor], Tensor], before: Any = None) -> Callable[[Any, Tensor], Tensor]:
    """States of all steps, each made of the one before and of spikes."""

    def between(net: Any, z: Tensor) -> Tensor:
        z = z if before is None else before(net, z)
        state, seen = torch.zeros_like(z[0]), []
        for spikes in z:
            state = step(net, state, spikes)
            seen.append(state)
        return torch.stack(seen)

    return between


def leaks_by_one_share(net: Any, z: Tensor) -> Tensor:
    keep = net.w.sigmoid()
    new = 1 - keep
    return leaks(lambda _net, state, spikes: keep * state + new * spikes)(net, z)


GAINS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a gain": lambda net, z: z * net.w,
    "a gain before a sum of steps": lambda net, z: (z * net.w).sum(0),
    "a gain before a residual sum": lambda net, z: z * net.w + z * net.w,
    "a norm before a pool over steps": lambda net, z: normed(net, z).mean(0),
    "one gain for all": lambda net, z: one(z * net.leak),
    "a leak of one learned share": leaks(lambda net, v, s: net.leak * v + (1 - net.leak) * s),
    "a leak of shares made once": leaks_by_one_share,
    "a leak and a gain, both learned": leaks(lambda net, v, s: net.leak * v + net.w * s),
    "a leak by lerp": leaks(lambda net, v, s: torch.lerp(v, s, net.w)),
    "a fixed leak behind a gain": leaks(lambda _net, v, s: 0.9 * v + s, lambda net, z: z * net.w),
    "a learned leak behind a gain": leaks(lambda net, v, s: net.leak * v + s, lambda net, z: z * net.w),
    "a time constant behind a norm": leaks(lambda _net, v, s: v + (s - v) / 2.0, normed),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains_and_leaks_are_no_weighted_sums(name: str) -> None:
    cost = measured(Net(GAINS[name]))
    assert all(item.of == "states" for item in cost.left_out)


def levels(x: Tensor) -> Tensor:
    return x.clamp(0, 4).round()


QUARTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "at once": lambda x: levels(x) / 4,
    "each step": lambda x: torch.stack([levels(step) / 4 for step in x]),
    "stacked first": lambda x: torch.stack([levels(step) for step in x]) / 4,
    "put together first": lambda x: torch.cat([levels(step) for step in x.split(1)]) * 0.25,
    "shifted": lambda x: torch.stack([levels(step) for step in x]) * 0.3 + 0.1,
}


@pytest.mark.parametrize("how", QUARTERS)
def test_levels_that_a_factor_makes_real_are_no_events(how: str) -> None:
    """Steps without a level above 1 made events of those of all steps."""
    ramp = torch.linspace(0.2, 3, STEPS)[:, None, None]
    net = Net(lambda _net, z: QUARTERS[how]((z + 0.5) * ramp))
    found = next(item for item in measured(net).synapses if item.name == "head")
    assert (found.event_driven, found.synops.max, found.macs_every_step) == (False, 0, STEPS * F * 3)
