"""Membranes that a network reads from its neurons are real numbers, and layers behind them multiply."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.firing.cost.fires import FiresAdapter
from torch import Tensor, nn

from isofire.adapters import Layout, register, unregister
from isofire.firing.cost import measure_cost, reach

T, N, F = 6, 5, 24
FRAMES = torch.rand(T, N, F, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(N) % 3


class Keeps(nn.Module):
    """Integrates and fires, and keeps its membrane of every step as attributes; one of them in a buffer."""

    at = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("held", torch.zeros(T, N, F))

    def forward(self, x: Tensor) -> Tensor:
        v, spikes, membranes = torch.zeros_like(x[0]), [], []
        for current in x:
            v = 0.5 * v + current
            spikes.append((v > self.at).float())
            membranes.append(v)
        self.v, self.v_seq = v, torch.stack(membranes)
        self.held[:, : x.shape[1]].copy_(self.v_seq)
        self.both = torch.stack([self.v_seq, torch.stack(spikes)])
        return self.both[1]


class KeepsAdapter(FiresAdapter):
    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST


class Reads(nn.Module):
    def __init__(self, read: Callable[[Keeps, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.fire, self.read = nn.Linear(F, F), Keeps(), read
        self.mid, self.head = nn.Linear(F, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.mid(self.read(self.fire, self.fire(self.first(x))))))


READ = {
    "each step": (lambda fire, z: fire.v_seq, T),
    "the last": (lambda fire, z: fire.v, 1),
    "in a buffer": (lambda fire, z: fire.held[:, : z.shape[1]], T),
    "beside spikes in one tensor": (lambda fire, z: fire.both[0], T),
    "beside spikes": (lambda fire, z: torch.cat([fire.v_seq, z], 2)[..., :F], T),
    "squashed": (lambda fire, z: torch.sigmoid(fire.v_seq), T),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_layers_behind_a_membrane_multiply(name: str) -> None:
    """In x out x steps, by hand."""
    register(Keeps, KeepsAdapter())
    try:
        torch.manual_seed(0)
        read, steps = READ[name]
        model = Reads(read).eval()
        found = {item.name: item for item in measure_cost(model, (FRAMES[:, :4], LABELS[:4])).synapses}
        assert (found["mid"].synops.max, found["mid"].macs_once) == (0, steps * F * 16)
        assert (found["head"].synops.max, found["head"].macs_once) == (0, steps * 16 * 3)
        assert float(reach(model, FRAMES[:, :2])["fire"].abs().sum()) == 0
        spikes = Reads(lambda fire, z: z).eval()
        mid = next(item for item in measure_cost(spikes, (FRAMES[:, :4], LABELS[:4])).synapses if item.name == "mid")
        with torch.no_grad():
            fired = float(spikes.fire(spikes.first(FRAMES[:, :4])).sum()) / 4
    finally:
        unregister(Keeps)
    assert fired > 0
    assert (mid.synops.mean, mid.macs_once) == (pytest.approx(fired * 16), 0)
