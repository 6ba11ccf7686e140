"""Networks with the size of their batches written in are measured, compared and quantized in batches of that size."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.firing import compare
from isofire.firing.cost import measure_cost
from isofire.neurons import LIF

T, SIZE = 6, 8
IMAGES, LABELS = torch.rand(24, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 2, torch.arange(24) % 5
BATCHES = [*zip(IMAGES.split(SIZE), LABELS.split(SIZE), strict=True)]
SPEC = isofire.QuantSpec(weights={"method": "lsq", "bits": 4})


def _viewed(net: Net, x: Tensor, size: int) -> Tensor:
    return net.first(x.view(size, -1))


def _begins_at_rest(net: Net, x: Tensor, size: int) -> Tensor:
    return net.first(x.flatten(1)) + net.back(torch.zeros(size, 16))


class Net(nn.Module):
    """As tutorials write it, or for batches of any size."""

    def __init__(self, begin: Callable[[Net, Tensor, int], Tensor], *, any_size: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.begin, self.any_size = begin, any_size
        self.first, self.back, self.last = nn.Linear(32, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 5)
        self.fire, self.again = LIF(v_threshold=0.3), LIF(v_threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.begin(self, x, len(x) if self.any_size else SIZE)
        return self.last(self.again(self.back(self.fire(current.expand(T, -1, -1)))))


@pytest.mark.parametrize("begin", [_viewed, _begins_at_rest])
def test_their_numbers_are_those_of_the_same_network_for_any_size(begin: Callable[[Net, Tensor, int], Tensor]) -> None:
    fixed, free = (Net(begin, any_size=any_size).eval() for any_size in (False, True))
    found, expected = measure_cost(fixed, BATCHES), measure_cost(free, BATCHES)
    assert found.synops == expected.synops
    assert found.synops.mean > 0
    assert [site.macs_every_step for site in found.synapses] == [site.macs_every_step for site in expected.synapses]
    first = compare(fixed, fixed, BATCHES).to_dict()["synops"]["overall"]["baseline"]
    assert first == pytest.approx(compare(free, free, BATCHES).to_dict()["synops"]["overall"]["baseline"])
    quantized, other = (isofire.quantize_(copy.deepcopy(net), SPEC, BATCHES) for net in (fixed, free))
    assert torch.equal(quantized.back.weight, other.back.weight)
