"""Where images decide which rows of a batch are taken, or their order, each image has its own cost all the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.firing.cost.percentiles import Percentiles
from isofire.neurons import LIF

T = 3
IMAGES = torch.rand(10, 6, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(10) % 3


class Routed(nn.Module):
    """Two layers of unlike width, of which each image takes one; `rows` says how they are reached."""

    def __init__(self, rows: Callable[[Routed, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = rows
        self.a, self.n, self.last = nn.Linear(6, 8), LIF(v_threshold=0.3), nn.Linear(8, 3)
        self.narrow = nn.Linear(8, 8)
        self.wide = nn.Sequential(nn.Linear(8, 30, bias=False), nn.Linear(30, 8))

    def route(self, x: Tensor) -> Tensor:
        return (x.sum(-1) > 9).long()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.n(self.a(x).expand(T, -1, -1)).transpose(0, 1)
        return self.last(self.rows(self, x, spikes).transpose(0, 1))


def _by_mask(net: Routed, x: Tensor, spikes: Tensor) -> Tensor:
    out, wide = torch.zeros_like(spikes), net.route(x).bool()
    out[wide] = net.wide(spikes[wide])
    out[~wide] = net.narrow(spikes[~wide])
    return out


def _by_nonzero(net: Routed, x: Tensor, spikes: Tensor) -> Tensor:
    out, wide = torch.zeros_like(spikes), net.route(x)
    for layer, rows in ((net.wide, wide.nonzero()[:, 0]), (net.narrow, (1 - wide).nonzero()[:, 0])):
        out = out.index_add(0, rows, layer(spikes.index_select(0, rows)))
    return out


def _sorted(net: Routed, x: Tensor, spikes: Tensor) -> Tensor:
    order = x.sum(-1).argsort()
    few = len(x) - int(net.route(x).sum())
    rows = spikes[order]
    return torch.cat([net.narrow(rows[:few]), net.wide(rows[few:])])[order.argsort()]


def _where_any(net: Routed, x: Tensor, spikes: Tensor) -> Tensor:
    out, wide = net.narrow(spikes), net.route(x).bool()
    if wide.any():
        out = out.clone()
        out[wide] += net.wide(spikes[wide])
    return out


def _by_list(net: Routed, x: Tensor, spikes: Tensor) -> Tensor:
    out, wide = torch.zeros_like(spikes), net.route(x).tolist()
    for layer, rows in (
        (net.wide, [i for i, w in enumerate(wide) if w]),
        (net.narrow, [i for i, w in enumerate(wide) if not w]),
    ):
        if rows:
            out[rows] = layer(spikes[rows])
    return out


def _as_often(net: Routed, x: Tensor, spikes: Tensor) -> Tensor:
    wide = net.route(x)
    return net.narrow(spikes).index_add(0, wide.nonzero()[:, 0], net.wide(spikes.repeat_interleave(wide, 0)))


WAYS = {
    "a mask": _by_mask, "nonzero": _by_nonzero, "sorted": _sorted, "where any": _where_any, "a list": _by_list,
    "as often": _as_often,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_each_image_costs_what_it_costs_alone(way: str) -> None:
    net = Routed(WAYS[way]).eval()
    alone = np.array([measure_cost(net, (IMAGES[i : i + 1], LABELS[:1])).synops.mean for i in range(len(IMAGES))])
    assert len(set(alone)) > 3
    order = net.route(IMAGES).argsort(stable=True)
    assert 3 < int(net.route(IMAGES).sum()) < len(IMAGES) - 3
    for lie in (order, order.flip(0), order.view(2, -1).T.flatten()):
        for batch in (3, len(IMAGES)):
            found = measure_cost(net, (IMAGES[lie], LABELS), batch_size=batch).synops
            assert found == Percentiles.of(alone)


class Resets(nn.Module):
    """A neuron of the network's own that is reset where it fired."""

    def __init__(self, reset: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b, self.last, self.reset = nn.Linear(6, 8), LIF(), nn.Linear(8, 8), nn.Linear(8, 3), reset
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        v, out = torch.zeros(len(x), 8), []
        for current in self.b(self.n(self.a(x).expand(T, -1, -1))):
            v = 0.5 * v + 3 * current
            out.append((fired := v > 1).float())
            self.reset(v, fired)
        return self.last(torch.stack(out))


def _to_0(v: Tensor, fired: Tensor) -> None:
    v[fired] = 0.0


def _by_less(v: Tensor, fired: Tensor) -> None:
    v[fired] -= 1.0


@pytest.mark.parametrize("reset", [_to_0, _by_less])
def test_masks_of_single_numbers_move_no_rows(reset: Callable[[Tensor, Tensor], None]) -> None:
    few, many = Resets(reset).eval(), Resets(reset).eval()
    measure_cost(few, (IMAGES, LABELS), batch_size=5)
    measure_cost(many, (IMAGES.repeat(20, 1), LABELS.repeat(20)), batch_size=60)
    # as many batches as there are more of them
    assert many.forwards <= few.forwards + 8
