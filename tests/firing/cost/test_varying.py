"""One weighted sum of a layer's spikes over time, however it is written: what weights behind it see is real."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing.cost import SynapseCost, measure_cost, reach
from isofire.neurons import LIF

T, N, WIDTH, CLASSES = 6, 5, 16, 3
FRAMES = torch.rand(T, N, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(N) % CLASSES
DECAYS = 0.8 ** torch.arange(T).flip(0)


def loop(net: Net, z: Tensor) -> Tensor:
    total = torch.zeros_like(z[0])
    for spikes in z:
        total = 0.8 * total + spikes
    return total


def written(net: Net, z: Tensor) -> Tensor:
    out = torch.empty_like(z)
    for step, spikes in enumerate(z):
        out[step] = 0.8 ** (T - 1 - step) * spikes
    return out.sum(0)


def by_index(net: Net, z: Tensor) -> Tensor:
    scaled = z * DECAYS.view(T, 1, 1)
    return torch.zeros_like(z[:1]).index_add(0, torch.zeros(T, dtype=torch.int64), scaled)[0]


def normed(net: Net, z: Tensor) -> Tensor:
    return F.batch_norm(z.permute(1, 0, 2), torch.zeros(T), 1 / DECAYS**2, eps=0.0).sum(1)


WEIGHTED = {
    "loop": loop, "written": written, "by index": by_index, "normed": normed,
    "list": lambda net, z: sum(z[t] * 0.8 ** (T - 1 - t) for t in range(T)),
    "constant": lambda net, z: (z * DECAYS.view(T, 1, 1)).sum(0),
    "divided": lambda net, z: (z / (1 / DECAYS).view(T, 1, 1)).sum(0),
    "mean": lambda net, z: T * (z * DECAYS.view(T, 1, 1)).mean(0),
    "running sum": lambda net, z: (z * DECAYS.view(T, 1, 1)).cumsum(0)[-1],
    "in place": lambda net, z: z.clone().mul_(DECAYS.view(T, 1, 1)).sum(0),
    "permuted": lambda net, z: (z * DECAYS.view(T, 1, 1)).permute(1, 2, 0).sum(-1),
    "permuted before": lambda net, z: (z.permute(1, 2, 0) * DECAYS).sum(-1),
    "copied": lambda net, z: (z * DECAYS.view(T, 1, 1)).permute(1, 2, 0).contiguous().sum(-1),
    "in two parts": lambda net, z: (z * DECAYS.view(T, 1, 1)).split([2, T - 2])[0].sum(0)
    + (z * DECAYS.view(T, 1, 1)).split([2, T - 2])[1].sum(0),
    "two halves": lambda net, z: (lambda y: (y[: T // 2] + y[T // 2 :]).sum(0))(z * DECAYS.view(T, 1, 1)),
    "unbound": lambda net, z: sum((z * DECAYS.view(T, 1, 1)).unbind(0)),
    "stacked": lambda net, z: torch.stack([z[t] * 0.8 ** (T - 1 - t) for t in range(T)]).sum(0),
    "stacked last": lambda net, z: torch.stack([z[t] * 0.8 ** (T - 1 - t) for t in range(T)], -1).sum(-1),
    "concatenated": lambda net, z: torch.cat([z[t : t + 1] * 0.8 ** (T - 1 - t) for t in range(T)]).sum(0),
    "turned": lambda net, z: (z * DECAYS.view(T, 1, 1)).flip(0).roll(1, 0).sum(0),
    "pooled": lambda net, z: T * F.avg_pool1d((z * DECAYS.view(T, 1, 1)).permute(1, 2, 0), T).squeeze(-1),
    "pooled to one": lambda net, z: T
    * F.adaptive_avg_pool1d((z * DECAYS.view(T, 1, 1)).permute(1, 2, 0), 1).squeeze(-1),
    "parameter, permuted": lambda net, z: (z * net.p.view(T, 1, 1)).permute(1, 2, 0).sum(-1),
    "parameter, unbound": lambda net, z: sum((z * net.p.view(T, 1, 1)).unbind(0)),
    "parameter, pooled": lambda net, z: T * F.avg_pool1d((z * net.p.view(T, 1, 1)).permute(1, 2, 0), T).squeeze(-1),
}  # fmt: skip


class Net(nn.Module):
    def __init__(self, between: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fire, self.between, self.head = LIF(), between, nn.Linear(WIDTH, CLASSES)
        self.p = nn.Parameter(DECAYS.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.fire(x)))


def head_of(model: nn.Module) -> tuple[SynapseCost, list[str]]:
    cost = measure_cost(model.eval(), (FRAMES, LABELS))
    named = [item.name for item in cost.left_out if item.of != "states"]
    return next(item for item in cost.synapses if item.name == "head"), named


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weighted_sum_over_time_is_real(name: str) -> None:
    model = Net(WEIGHTED[name]).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(FRAMES), Net(loop)(FRAMES))
    head, named = head_of(model)
    assert (head.event_driven, head.synops.max, head.macs_once) == (False, 0, WIDTH * CLASSES)
    assert named == (["p"] if "parameter" in name else [])
    assert float(reach(model, FRAMES[:, :2])["fire"].abs().sum()) == 0


GAIN = torch.linspace(0.5, 2, WIDTH)
FOLDED = {
    "a gain a channel, mean over time": (lambda net, z: (z * GAIN).mean(0), 1),
    "a gain a channel, unbound": (lambda net, z: sum((z * GAIN).unbind(0)), 1),
    "a gain a channel, pooled over time": (lambda net, z: F.avg_pool1d((z * GAIN).permute(1, 2, 0), T).squeeze(-1), 1),
    "a gain a channel, stacked": (lambda net, z: torch.stack([s * GAIN for s in z]).sum(0), 1),
    "a factor a step, no sum": (lambda net, z: z * DECAYS.view(T, 1, 1), 1),
    "a mask of steps": (lambda net, z: (z * torch.tensor([1.0] * T).view(T, 1, 1)).sum(0), 1),
    "whole factors": (lambda net, z: (z * torch.tensor([2.0] * T).view(T, 1, 1)).sum(0), 2),
    "a norm, mean over time": (lambda net, z: F.batch_norm(
        z.flatten(0, 1), torch.zeros(WIDTH), torch.rand(WIDTH) + 1).view_as(z).mean(0), 1),
    "one factor": (lambda net, z: torch.stack([0.3 * s for s in z]).sum(0), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_sums_along_which_factors_do_not_differ_stay_events(name: str) -> None:
    between, each = FOLDED[name]
    model = Net(between).eval()
    with torch.no_grad():
        spikes = float(model.fire(FRAMES).sum())
    head, named = head_of(model)
    assert spikes > 0
    assert head.event_driven
    assert head.synops.mean == pytest.approx(each * spikes * CLASSES / N)
    assert named == []
