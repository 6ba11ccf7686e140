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
IMAGES = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(12) % 3


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
    return net.narrow(spikes[order])[order.argsort()]


WAYS = {"a mask": _by_mask, "nonzero": _by_nonzero, "sorted": _sorted}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lie", ["as they are", "by route", "alternating"])
@pytest.mark.parametrize("batch", [3, 12])
def test_each_image_costs_what_it_costs_alone(way: str, lie: str, batch: int) -> None:
    net = Routed(WAYS[way]).eval()
    order = net.route(IMAGES).argsort(stable=True)
    places = {"as they are": torch.arange(12), "by route": order, "alternating": order.view(2, 6).T.flatten()}[lie]
    images = IMAGES[places]
    alone = [measure_cost(net, (images[i : i + 1], LABELS[:1])).synops.mean for i in range(12)]
    found = measure_cost(net, (images, LABELS), batch_size=batch).synops
    assert found == Percentiles.of(np.array(alone))
    assert len(set(alone)) > 3
