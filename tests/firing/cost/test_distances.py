"""Work by elements that is no product with weights is named; products of activations by elements are counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing.cost import Cost, measure_cost, reach
from isofire.neurons import LIF, Repeat

WIDTH, T = 20, 4
IMAGES, LABELS = torch.rand(5, 12, generator=torch.Generator().manual_seed(0)) * 2, torch.arange(5) % 3


class Net(nn.Module):
    def __init__(self, work: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.repeat, self.first, self.fire = Repeat(T), nn.Linear(12, WIDTH), LIF(v_threshold=0.2)
        self.w, self.longer = nn.Parameter(torch.randn(5, WIDTH)), nn.Parameter(torch.randn(9, 5))
        self.register_buffer("centres", torch.randn(5, WIDTH))
        self.work, self.out = work, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.work(self, self.fire(self.first(self.repeat(x))))


def cost_of(work: Callable[[Net, Tensor], Tensor]) -> Cost:
    return measure_cost(Net(work).eval(), (IMAGES, LABELS))


def tokens(z: Tensor) -> Tensor:
    return z.unflatten(2, (4, 5))


UNCOUNTED = {
    "adder": lambda net, z: -(z.unsqueeze(2) - net.w).abs().sum(-1),
    "adder, by rows": lambda net, z: torch.stack([(z - row).abs().sum(-1) for row in net.w], -1),
    "adder, permuted": lambda net, z: (net.w - z.unsqueeze(2)).abs().permute(0, 1, 3, 2).sum(2),
    "radial": lambda net, z: torch.exp(-(z.unsqueeze(2) - net.w).pow(2).mean(-1)),
    "squared by hand": lambda net, z: (lambda d: (d * d).sum(-1))(z.unsqueeze(2) - net.w),
    "a norm": lambda net, z: (z.unsqueeze(2) - net.w).norm(dim=-1),
    "pairwise": lambda net, z: torch.stack([F.pairwise_distance(z.flatten(0, 1), row) for row in net.w]),
    "cdist": lambda net, z: torch.cdist(z, net.w),
    "tropical": lambda net, z: (z.unsqueeze(2) + net.w).amax(-1),
    "tropical, max": lambda net, z: (z.unsqueeze(2) + net.w).max(-1)[0],
    "tropical, by rows": lambda net, z: torch.stack([(z + row).amin(-1) for row in net.w]),
    "made of a parameter": lambda net, z: (z.unsqueeze(2) - net.w.sigmoid()).abs().sum(-1),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCOUNTED)
def test_work_with_weights_that_is_no_product_is_named(name: str) -> None:
    cost = cost_of(UNCOUNTED[name])
    (item,) = cost.left_out
    assert item.name == ("(model)" if name == "cdist" else "w")
    assert item.share is not None
    assert item.share >= 100 / (240 + 100 + 45 + 60)
    assert [found.name for found in reach(Net(UNCOUNTED[name]).eval(), IMAGES[:2]).left_out] == [item.name]


def test_centres_that_are_no_parameters_are_named_too() -> None:
    (item,) = cost_of(lambda net, z: (z.unsqueeze(2) - net.centres).abs().sum(-1)).left_out
    assert item.name == "centres"


def by_hand(net: Net, z: Tensor) -> Tensor:
    x = tokens(z) + net.longer[:4]
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


NO_SYNAPSES = {
    "an offset": lambda net, z: torch.relu(z + net.w[0]),
    "an offset, pooled over tokens": lambda net, z: torch.relu(tokens(z) + net.longer[0]).mean(2),
    "positions, pooled over tokens": lambda net, z: torch.relu(tokens(z) + net.longer[:4]).mean(2),
    "positions, the largest of tokens": lambda net, z: (tokens(z) + net.longer[:4]).amax(2),
    "positions, a norm by hand": by_hand,
    "an offset a step": lambda net, z: torch.relu(z.mean(0) + net.w[:4, None, :]).mean(0),
    "thresholds": lambda net, z: (z - net.w[0]).abs(),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_SYNAPSES)
def test_offsets_and_positions_are_no_synapses(name: str) -> None:
    assert cost_of(NO_SYNAPSES[name]).left_out == ()


def hebbian(net: Net, z: Tensor) -> Tensor:
    fast, out = torch.zeros(z.shape[1], WIDTH, WIDTH), []
    for step in z:
        out.append(torch.bmm(step.unsqueeze(1), fast).squeeze(1))
        fast = 0.9 * fast + 0.1 * step.unsqueeze(2) * step.unsqueeze(1)
    return torch.stack(out)


def attention(scores: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    return lambda net, z: scores(tokens(z)) @ tokens(z)


ACTIVATIONS = {
    "matrices": (attention(lambda x: x @ x.transpose(-1, -2)), 640),
    "elements": (attention(lambda x: (x.unsqueeze(3) * x.unsqueeze(2)).sum(-1)), 640),
    "repeated first": (
        attention(lambda x: (x.unsqueeze(3).expand(-1, -1, -1, 4, -1).clone() * x.unsqueeze(2)).sum(-1)),
        640,
    ),
    "cosine": (attention(lambda x: F.cosine_similarity(x.unsqueeze(3), x.unsqueeze(2), dim=-1)), 640),
    "hebbian": (hebbian, 2 * T * WIDTH * WIDTH),
    "gated": (lambda net, z: z * z.roll(1, -1) * z.mean(-1, keepdim=True), None),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_that_multiply_each_other_count_in_full(name: str) -> None:
    """4 tokens of 5: 4 x 4 x 5 scores and as many products with values a step; 20 x 20 traces, made and read."""
    work, products = ACTIVATIONS[name]
    cost = cost_of(work)
    found = {item.name: item.macs_once for item in cost.synapses if item.name != "first"}
    assert found == ({} if products is None else {"(activations)": products})
    assert [item for item in cost.left_out if item.of != "states"] == []
