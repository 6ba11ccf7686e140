"""Whatever ways images take through a network, neurons that isofire does not know are looked for on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.firing import compare, ways
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF

T, EACH = 4, 10


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step
            out.append((v > 1).float())
            v = v - out[-1]
        return torch.stack(out)


class Forks(nn.Module):
    """The first number of a batch says how many layers it goes through, and from so many on it meets own neurons."""

    def __init__(self, own_from: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.more = nn.Linear(6, 6), LIF(v_threshold=0.3), nn.Linear(6, 6)
        self.own, self.own_from, self.head = Own(), own_from, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        layers = int(x[0, 0])
        spikes = self.n(self.a(x[:, 1:]).expand(T, -1, -1))
        for _ in range(layers):
            spikes = self.more(spikes)
        return self.head(self.own(3 * spikes) if layers >= self.own_from else spikes)


def batches(layers: Sequence[int]) -> tuple[Tensor, Tensor]:
    x = 3 * torch.rand(EACH * len(layers), 7, generator=torch.Generator().manual_seed(1))
    x[:, 0] = torch.tensor(layers).repeat_interleave(EACH) + 0.5
    return x, torch.arange(len(x)) % 3


def named(net: nn.Module, layers: Sequence[int]) -> list[tuple[str, Any]]:
    found = compare(net, net, batches(layers), batch_size=EACH)
    assert found.synops is None
    return [(item.name, item.share) for item in found.unknown_neurons]


@pytest.mark.parametrize("layers", [(0, 2), (2, 0), (0, 1, 2), (0, 1, 1, 0, 2), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("followed", [True, False])
def test_neurons_of_any_way_are_named(layers: Sequence[int], followed: bool) -> None:
    net = Forks(2).eval()
    if not followed:
        # spikes that cannot be replaced, so that what they cost is not known from the first batch on
        net.n.register_forward_hook(lambda _net, _given, output: output[..., :1].expand_as(output))
    assert named(net, layers) == [("own", pytest.approx(0.5))]
    (finding,) = check(net, net, batches(layers), Limits(drift=100), batch_size=EACH).findings[:1]
    assert finding.outcome == "undecided"


def test_where_ways_are_too_many_nothing_is_kept_and_it_is_said() -> None:
    found = check(net := Forks(99).eval(), net, batches(range(17)), Limits(drift=100), batch_size=EACH)
    (item,) = found.comparison.unknown_neurons
    assert (item.name, item.share) == ("(model)", None)
    assert "take more than 16 ways" in item.reason
    assert "batch_size = 1" in item.reason
    assert found.findings[0].outcome == "undecided"
    assert "more than 16 ways" in found.findings[0].about


def test_each_way_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    look = ways.unreached
    monkeypatch.setattr(ways, "unreached", lambda net, x, *rest: shown.append(int(x[0, 0])) or look(net, x, *rest))
    net = Forks(99).eval()
    found = compare(net, net, batches((0, 1, 0, 1, 2, 2, 1, 0)), batch_size=EACH)
    # of both networks
    assert sorted(shown) == [1, 1, 2, 2]
    assert found.unknown_neurons == ()


def test_the_look_takes_the_way_of_its_batch_where_chance_chooses() -> None:
    class Draws(Forks):
        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            x[:, 0] = torch.randint(0, 3, ())
            return super().forward(x)

    for seed in range(4):
        net = Draws(2).eval()
        torch.manual_seed(seed)
        assert named(net, range(12)) == [("own", pytest.approx(0.5))]


class Experts(nn.Module):
    """Each image goes to the expert that its first number names; the last has neurons of its own, or none."""

    def __init__(self, experts: int, own: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.head = nn.Linear(6, 6), LIF(v_threshold=0.3), nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(experts))
        self.own = Own() if own else None

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.n(self.a(x[:, 1:]).expand(T, -1, -1))
        out = torch.zeros_like(spikes)
        for at, expert in enumerate(self.experts):
            rows = (x[:, 0].long() == at).nonzero()[:, 0]
            if len(rows):
                given = expert(spikes[:, rows])
                out[:, rows] = self.own(3 * given) if self.own and at == len(self.experts) - 1 else given
        return self.head(out)


def test_rows_per_expert_are_no_way_and_each_expert_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    look = ways.unreached
    monkeypatch.setattr(ways, "unreached", lambda *given: looked.append(1) or look(*given))
    net = Experts(2, own=False).eval()
    x = batches([0] * 20)[0]
    for batch in range(20):
        # so many of ten images go to the second expert, in an order of their own
        x[EACH * batch : EACH * batch + batch % 9 + 1, 0] = 1.5
    found = compare(net, net, (x, torch.arange(len(x)) % 3), batch_size=EACH)
    assert found.unknown_neurons == ()
    assert found.synops is None
    assert len(looked) <= 4
    net = Experts(3, own=True).eval()
    # experts of the same shape, one after the other: the products are as many
    for layers, there in (((0, 1, 0, 1, 2), ["own"]), ((0, 1, 0, 1), [])):
        found = compare(net, net, batches(layers), batch_size=EACH)
        assert [item.name for item in found.unknown_neurons] == there
