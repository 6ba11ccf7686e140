"""Spikes that a mask of the image keeps: what one costs is told of no two images, also where those are kept whole."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.firing.cost import measure_cost
from isofire.neurons import LIF

IMAGES, STEPS = 24, 12


class Padded(nn.Module):
    """Sequences of unlike length; steps that are padded with zeros give no spikes."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b, self.how = nn.Linear(6, 32), LIF(v_threshold=0.2), nn.Linear(32, 10), how

    def forward(self, x: Tensor) -> Tensor:
        mask = (x.abs().sum(-1) > 0).T.unsqueeze(-1)
        spikes = self.n(self.a(x.transpose(0, 1)))
        if self.how == "where":
            self.kept = torch.where(mask, spikes, torch.zeros_like(spikes))
        elif self.how == "least":
            self.kept = torch.minimum(spikes, mask.float())
        elif self.how == "fill":
            self.kept = spikes.masked_fill(~mask, 0)
        else:
            self.kept = spikes * mask.float()
        return self.b(self.kept).sum(0)


def _data() -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    length = torch.randint(2, STEPS, (IMAGES,), generator=chance)
    length[:2] = STEPS
    x = torch.rand(IMAGES, STEPS, 6, generator=chance) * 2 + 0.01
    return x * (torch.arange(STEPS) < length[:, None]).unsqueeze(-1), torch.arange(IMAGES) % 4


@pytest.mark.parametrize("how", ["mul", "where", "fill", "least"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_is_none_the_less_where_it_keeps_all_of_the_first_images(how: str, turned: bool) -> None:
    x, labels = _data()
    x = x.flip(0) if turned else x
    model = Padded(how).eval()
    cost = measure_cost(model, (x, labels))
    with torch.no_grad():
        model(x)
    expected = float(model.kept.sum()) * 10 / IMAGES
    assert cost.synops.mean == pytest.approx(expected)
    row = isofire.compare(model, copy.deepcopy(model), (x, labels)).row()
    assert row["synops"] is None
    assert str(row["synops_left_out"]).startswith("b: behind")
