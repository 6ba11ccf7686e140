"""How many synapses end in one output, which the width of sums in the energy estimate is of: by sums of ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.neurons import LIF, PerStep, Repeat

DATA = torch.rand(5, 20) * 2, torch.arange(5) % 3


class Behind(nn.Module):
    """A layer behind spikes of some shape."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape
        self.first, self.fire = nn.Linear(20, torch.Size(shape).numel()), LIF(v_threshold=0.1)
        self.steps = PerStep(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(self.first(x).expand(4, len(x), -1))
        return self.steps(spikes.unflatten(2, self.shape)).flatten(2)


class Apply(nn.Module):
    def __init__(self, shape: tuple[int, ...], apply: Callable[[Tensor, Tensor], Tensor], fixed: bool = False) -> None:
        super().__init__()
        self.apply_ = apply
        if fixed:
            self.register_buffer("w", torch.ones(shape))
        else:
            self.w = nn.Parameter(torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_(x, self.w)


def fan_in(layer: nn.Module, shape: tuple[int, ...]) -> int:
    torch.manual_seed(0)
    (place,) = [item for item in measure_cost(Behind(layer, shape).eval(), DATA).synapses if item.name != "first"]
    return place.fan_in


@pytest.mark.parametrize("layer", [
    nn.ConvTranspose2d(8, 16, 3), nn.ConvTranspose2d(8, 2, 2, stride=2),
    nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1),
    nn.ConvTranspose2d(8, 4, 3, stride=2, groups=4), nn.ConvTranspose2d(8, 4, (3, 5), stride=(1, 2), dilation=(2, 3)),
    nn.ConvTranspose2d(8, 4, 3, stride=4, output_padding=1), nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 3, groups=4),
    nn.Conv2d(8, 4, 3, stride=2, dilation=2),
])  # fmt: skip
def test_of_convolutions(layer: nn.ConvTranspose2d) -> None:
    apply = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
    ones = apply(torch.ones(1, 8, 20, 20), torch.ones_like(layer.weight), None, layer.stride, groups=layer.groups,
                 dilation=layer.dilation)  # fmt: skip
    assert fan_in(layer, (8, 6, 6)) == int(ones.max())


@pytest.mark.parametrize(("layer", "shape", "ends"), [
    (nn.Linear(8, 3), (8,), 8), (nn.ConvTranspose1d(8, 3, 5, stride=2), (8, 6), 24),
    (Apply((7, 7), lambda x, w: w @ x), (7, 6), 7), (Apply((7, 7), lambda x, w: w @ x, True), (7, 6), 7),
    (Apply((3, 7), lambda x, w: torch.einsum("nif,oi->nof", x, w)), (7, 6), 7),
    (Apply((5, 8), lambda x, w: (x.unsqueeze(1) * w).sum(-1)), (8,), 8),
    (Apply((8, 5), lambda x, w: (x.unsqueeze(2) * w).sum(1)), (8,), 8),
    (Apply((5, 8), lambda x, w: torch.stack([(x * row).sum(-1) for row in w], -1)), (8,), 8),
    (Apply((1,), lambda x, w: x @ x.transpose(1, 2)), (3, 8), 8),
])  # fmt: skip
def test_of_products(layer: nn.Module, shape: tuple[int, ...], ends: int) -> None:
    assert fan_in(layer, shape) == ends


def test_of_recurrent_weights() -> None:
    model = nn.Sequential(Repeat(4), nn.Linear(20, 9), LIF(), nn.GRU(9, 7)).eval()

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[0]

    found = {item.name.rpartition(".")[2]: item.fan_in for item in measure_cost(First(), DATA).synapses}
    assert (found["weight_ih_l0"], found["weight_hh_l0"]) == (9, 7)
