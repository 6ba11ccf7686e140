"""An image of which nothing comes, alone in its batch, says nothing of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.neurons import IF, PerStep

BETWEEN: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "sum pool": lambda: PerStep(nn.LPPool2d(1, 2)),
    "average pool": lambda: PerStep(nn.AvgPool2d(2)),
    "times its sign": lambda: lambda z: (1.5 * z) * (1.5 * z).sign(),
    "times its mask": lambda: lambda z: (0.5 * z) * ((0.5 * z) > 0),
    "nothing": lambda: lambda z: z,
}


class Net(nn.Module):
    """Recordings [N, T, 1, 4, 4] of currents, each of which is one spike or none."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.fire, self.between, self.last = IF(), BETWEEN[between](), nn.LazyLinear(5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.fire(x.transpose(0, 1))).flatten(2))


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("quiet", [[], [32], [0], [0, 5, 32], [*range(32)]])
def test_a_silent_image_changes_no_other(between: str, quiet: list[int]) -> None:
    torch.manual_seed(0)
    recordings = 2 * (torch.rand(33, 3, 1, 4, 4) < 0.4).float()
    recordings[quiet] = 0
    net = Net(between).eval()
    with torch.no_grad():
        net(recordings)
    (last,) = measure_cost(net, (recordings, torch.arange(33) % 5)).synapses
    assert last.synops.mean == pytest.approx(5 * float((recordings > 0).sum()) / 33)
    assert (last.macs_every_step, last.event_driven) == (0, True)
