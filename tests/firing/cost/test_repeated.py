"""Static images with an axis of tokens that a network repeats for every step, wherever steps and tokens then lie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import Cost, SynapseCost, measure_cost
from isofire.neurons import LIF, PerStep, Repeat

TOKENS, WIDE, OUT = 6, 5, 8
SIZES = [(4, 3), (1, 3), (6, 6), (3, 6), (2, 2), (5, 4)]
"""Images and steps; as many as each other, as the tokens, or a part of these."""


def cost_of(model: nn.Module, images: int, *, equal: bool = False) -> Cost:
    torch.manual_seed(1)
    x = torch.rand(images, TOKENS, WIDE)
    x = x[:, :1].expand(-1, TOKENS, -1).contiguous() if equal else x
    return measure_cost(model.eval(), (x, torch.zeros(images, dtype=torch.int64)))


def place(cost: Cost, name: str) -> SynapseCost:
    assert cost.left_out == ()
    return next(item for item in cost.synapses if item.name == name)


WAYS: dict[str, Callable[[Tensor, nn.Parameter, int], Tensor]] = {
    "steps first": lambda x, w, steps: nn.functional.linear(x.repeat(steps, 1, 1, 1), w),
    "folded into the batch": lambda x, w, steps: nn.functional.linear(
        x.repeat(steps, 1, 1, 1).flatten(0, 1), w
    ).unflatten(0, (steps, -1)),
    "folded into the tokens": lambda x, w, steps: nn.functional.linear(
        x.repeat(steps, 1, 1, 1).flatten(1, 2), w
    ).unflatten(1, x.shape[:2]),
    "steps last": lambda x, w, steps: (x.unsqueeze(-2).repeat(1, 1, steps, 1) @ w.t()).permute(2, 0, 1, 3),
    "steps after the images": lambda x, w, steps: (x.unsqueeze(1).repeat(1, steps, 1, 1) @ w.t()).transpose(0, 1),
    "an einsum": lambda x, w, steps: torch.einsum("tnvf,of->tnvo", x.expand(steps, -1, -1, -1), w),
    "scaled before": lambda x, w, steps: nn.functional.linear((2 * x - 1).repeat(steps, 1, 1, 1), w),
}


class Tokens(nn.Module):
    """A product by function in a module that holds others, so that no axes are told."""

    def __init__(self, way: str, steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.steps = WAYS[way], steps
        self.w, self.fire = nn.Parameter(torch.rand(OUT, WIDE)), LIF()
        self.head = nn.Linear(TOKENS * OUT, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fire(self.way(x, self.w, self.steps)).flatten(2))


@pytest.mark.parametrize(("images", "steps"), SIZES)
@pytest.mark.parametrize("way", WAYS)
def test_repeated_tokens_are_worked_on_once(way: str, images: int, steps: int) -> None:
    found, once = place(cost_of(Tokens(way, steps), images), "w"), TOKENS * WIDE * OUT
    assert (found.macs_once, found.macs_every_step) == (once, steps * once)


@pytest.mark.parametrize(("images", "steps"), [(4, 3), (3, 6)])
def test_tokens_that_are_equal_in_the_data_are_tokens(images: int, steps: int) -> None:
    found = place(cost_of(Tokens("steps first", steps), images, equal=True), "w")
    assert (found.macs_once, found.macs_every_step) == (TOKENS * WIDE * OUT, steps * TOKENS * WIDE * OUT)


class OfOnce(Tokens):
    """Worked on before it is repeated."""

    def forward(self, x: Tensor) -> Tensor:
        currents = nn.functional.linear(x, self.w).expand(self.steps, -1, -1, -1)
        return self.head(self.fire(currents.contiguous()).flatten(2))


@pytest.mark.parametrize(("images", "steps"), SIZES)
def test_tokens_that_are_repeated_behind_are_worked_on_once(images: int, steps: int) -> None:
    found = place(cost_of(OfOnce("steps first", steps), images), "w")
    assert (found.macs_once, found.macs_every_step) == (TOKENS * WIDE * OUT, steps * TOKENS * WIDE * OUT)


class Block(nn.Module):
    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.w = nn.Sequential(*inner), nn.Parameter(torch.rand(OUT, WIDE))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.inner(x), self.w)


@pytest.mark.parametrize("inner", [(), (nn.Dropout(),)], ids=["a leaf", "a module that holds another"])
def test_what_a_module_holds_beside_changes_nothing(inner: tuple[nn.Module, ...]) -> None:
    model = nn.Sequential(Repeat(3), PerStep(Block(*inner)), LIF(), PerStep(nn.Flatten()), nn.Linear(48, 3))
    found, once = place(cost_of(model, 4), "1.0.w"), TOKENS * WIDE * OUT
    assert (found.macs_once, found.macs_every_step) == (once, 3 * once)


class Attention(nn.Module):
    """Attention over tokens [L, T * N, E]: what it gives differs from step to step by rounding."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.into = steps, nn.Linear(WIDE, 8)
        self.attend, self.fire, self.head = nn.MultiheadAttention(8, 2), LIF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).repeat(self.steps, 1, 1, 1).flatten(0, 1).transpose(0, 1)
        x = self.attend(x, x, x, need_weights=False)[0].transpose(0, 1).unflatten(0, (self.steps, -1))
        return self.head(self.fire(x).mean(2))


@pytest.mark.parametrize(("images", "steps"), [(4, 3), (3, 4)])
def test_what_differs_by_rounding_alone_is_the_same(images: int, steps: int) -> None:
    cost = cost_of(Attention(steps), images)
    for name, products in (("attend.in_proj_weight", TOKENS * 8 * 24), ("attend.out_proj", TOKENS * 8 * 8)):
        found = place(cost, name)
        assert (found.macs_once, found.macs_every_step) == (products, steps * products)


class Graph(nn.Module):
    """A layer whose sums may be rounded otherwise from step to step (of 7 and 9 nodes, by AVX2), then fixed or made
    weights, before any neuron."""

    def __init__(self, nodes: int, spread: Callable[[Tensor, Tensor], Tensor], steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spread, self.steps, self.into = spread, steps, nn.Linear(6, OUT)
        self.register_buffer("ring", (torch.rand(nodes, nodes) < 0.5).float() / 3 + torch.eye(nodes))
        self.fire, self.head = LIF(), nn.Linear(nodes * OUT, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x.repeat(self.steps, 1, 1, 1))
        return self.head(self.fire(self.spread(self.ring, x)).flatten(2))


SPREADS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "from the left": lambda ring, x: ring @ x,
    "by a linear map": lambda ring, x: nn.functional.linear(x.transpose(2, 3), ring).transpose(2, 3),
    "normed": lambda ring, x: (ring / ring.sum(1, keepdim=True)) @ x,
    "in batches": lambda ring, x: torch.bmm(ring.expand(x.shape[0] * x.shape[1], -1, -1), x.flatten(0, 1)).view_as(x),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("nodes", [6, 7, 9])
@pytest.mark.parametrize("images", [1, 3, 10])
def test_fixed_weights_behind_what_was_rounded_are_worked_on_once(spread: str, nodes: int, images: int) -> None:
    net = Graph(nodes, SPREADS[spread], 4).eval()
    x = torch.rand(images, nodes, 6, generator=torch.Generator().manual_seed(1)) * 2
    cost = measure_cost(net, (x, torch.zeros(images, dtype=torch.int64)))
    (found,) = (item for item in cost.synapses if item.name not in ("into", "head"))
    assert (found.macs_once, found.macs_every_step) == (nodes * nodes * OUT, 4 * nodes * nodes * OUT)


class TokensOfEach(Tokens):
    """Other tokens at each step, made of the image."""

    def forward(self, x: Tensor) -> Tensor:
        gains = torch.arange(1.0, self.steps + 1).view(-1, 1, 1, 1)
        return self.head(self.fire(nn.functional.linear(gains * x, self.w)).flatten(2))


@pytest.mark.parametrize(("images", "steps"), [(4, 3), (3, 6)])
def test_tokens_of_each_step_are_worked_on_at_their_step(images: int, steps: int) -> None:
    found, products = place(cost_of(TokensOfEach("steps first", steps), images), "w"), TOKENS * WIDE * OUT
    assert (found.macs_once, found.macs_every_step) == (steps * products, steps * products)


class BesideOthers(Tokens):
    """Tokens whose gain over the steps is 0 on most numbers, beside some that are repeated."""

    def __init__(self, *, beside: bool) -> None:
        super().__init__("steps first", 3)
        self.beside, self.u = beside, nn.Parameter(torch.rand(OUT, WIDE))

    def forward(self, x: Tensor) -> Tensor:
        gain = torch.arange(1.0, 4).view(-1, 1, 1, 1) * torch.relu(x.mean((1, 2), keepdim=True) - 0.7)
        currents = nn.functional.linear(gain * x, self.u)
        if self.beside:
            currents = currents + self.way(x, self.w, 3)
        return self.head(self.fire(currents).flatten(2))


@pytest.mark.parametrize("beside", [False, True])
def test_rows_that_differ_in_the_data_differ_whatever_random_numbers_do(beside: bool) -> None:
    bright = 0.9 + 0.1 * torch.rand(4, TOKENS, WIDE)
    bright[:, 0, 0] = 0
    cost = measure_cost(BesideOthers(beside=beside).eval(), (bright, torch.zeros(4, dtype=torch.int64)))
    assert place(cost, "u").macs_once == 3 * TOKENS * WIDE * OUT


class OfTwoSizes(Tokens):
    """Repeats images of 6 tokens, and works on those of 7 at each step in another way."""

    def forward(self, x: Tensor) -> Tensor:
        steps = x.repeat(3, 1, 1, 1)
        if x.shape[1] == 7:
            steps = torch.arange(1.0, 4).view(-1, 1, 1, 1) * steps
        return self.head(self.fire(nn.functional.linear(steps, self.w))[:, :, :TOKENS].flatten(2))


@pytest.mark.parametrize("sizes", [(6, 7), (7, 6)])
def test_images_of_one_size_say_nothing_of_others(sizes: tuple[int, int]) -> None:
    batches = [(torch.rand(4, size, WIDE), torch.zeros(4, dtype=torch.int64)) for size in sizes]
    found = place(measure_cost(OfTwoSizes("steps first", 3).eval(), batches), "w")
    assert found.macs_once == (6 + 3 * 7) / 2 * WIDE * OUT
