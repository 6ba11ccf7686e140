"""The transport between two populations of rates against scipy, POT, sorting, and finite differences."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from torch import Tensor

from isofire.training.losses import EMD
from isofire.training.losses.coupling import couple, levels_of, transport

ONE = torch.tensor(1.0, dtype=torch.float64)
COSTS = {
    "absolute": lambda u: abs(u),
    "squared": lambda u: u * u,
    # Huber's function with delta .1, divided by delta
    "huber": lambda u: np.where(abs(u) < 0.1, u * u / 0.2, abs(u) - 0.05),
}


def rates(counts: list[int], presentations: int) -> Tensor:
    return torch.tensor(counts, dtype=torch.float64) / presentations


def value(
    one: Tensor, other: Tensor, cost: str, presentations: tuple[int, int] = (0, 0), scale: Tensor = ONE
) -> Tensor:
    return transport(one, other, EMD(cost=cost).costs, scale, presentations)  # type: ignore[arg-type]


COUNTS = st.lists(st.integers(0, 24), min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(COUNTS, COUNTS, st.sampled_from([(0, 0), (24, 24), (24, 0), (0, 24)]))
def test_absolute_cost_is_scipys_earth_movers_distance(
    one: list[int], other: list[int], known: tuple[int, int]
) -> None:
    a, b = rates(one, 24), rates(other, 24)
    assert value(a, b, "absolute", known).item() == pytest.approx(wasserstein_distance(a, b), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(COUNTS, COUNTS, st.sampled_from(["squared", "huber"]))
def test_other_costs_are_those_of_pots_linear_program(one: list[int], other: list[int], cost: str) -> None:
    a, b = rates(one, 24).numpy(), rates(other, 24).numpy()
    matrix = np.ascontiguousarray(COSTS[cost](a[:, None] - b[None]))
    best = ot.emd2(np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), matrix)
    assert value(torch.from_numpy(a), torch.from_numpy(b), cost, (24, 24)).item() == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("cost", ["absolute", "squared", "huber"])
@pytest.mark.parametrize("sizes", [(7, 7), (5, 8)])
def test_the_gradient_is_that_of_finite_differences_where_no_rates_tie(cost: str, sizes: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    one = torch.rand(sizes[0], generator=generator, dtype=torch.float64).requires_grad_()
    other = torch.rand(sizes[1], generator=generator, dtype=torch.float64)
    scale = torch.tensor(0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: value(x, other, cost, scale=scale), (one,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("cost", ["absolute", "squared", "huber"])
def test_counting_gives_the_gradient_of_sorting_averaged_over_the_orders_of_ties(cost: str) -> None:
    one, other = rates([0, 0, 0, 1, 1, 3], 8), rates([0, 1, 1, 2, 3, 3], 8)
    x = one.clone().requires_grad_()
    value(x, other, cost, (8, 8)).backward()
    # by hand: every order of the tied neurons, coupled by rank
    found, generator = torch.zeros(6, dtype=torch.float64), np.random.default_rng(0)
    trials = 4000
    ranked = other.sort().values.numpy()
    for _ in range(trials):
        order = np.lexsort((generator.random(6), one.numpy()))
        u = one.numpy()[order] - ranked
        slope = {"absolute": np.sign(u), "squared": 2 * u, "huber": np.clip(u / 0.1, -1, 1)}[cost]
        found[torch.from_numpy(order)] += torch.from_numpy(slope / 6 / trials)
    torch.testing.assert_close(x.grad, found, atol=6e-3, rtol=0)
    assert len({round(v, 12) for v in x.grad[:3].tolist()}) == 1


@settings(deadline=None, max_examples=40)
@given(COUNTS, COUNTS)
def test_counting_and_sorting_agree(one: list[int], other: list[int]) -> None:
    grads = []
    for known in ((0, 0), (24, 24)):
        x = rates(one, 24).requires_grad_()
        value(x, rates(other, 24), "squared", known).backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_the_order_of_neurons_does_not_matter_and_equal_populations_cost_nothing() -> None:
    one = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    loss = value(one, one.detach().flip(0), "absolute")
    loss.backward()
    assert loss == 0
    assert torch.equal(one.grad, torch.zeros(50, dtype=torch.float64))  # type: ignore[arg-type]


def test_rates_in_float32_are_counted_as_what_they_are_counts_of() -> None:
    counts = torch.arange(0, 100_000, 7)
    found = levels_of((counts.to(torch.float32) / 100_000), 100_000)
    assert torch.equal(found.place, counts)
    assert int(found.mass.sum()) == len(counts)


def test_rates_that_are_no_counts_are_sorted() -> None:
    found = levels_of(torch.tensor([0.3, 0.1234, 0.3]), 10)
    assert found.values.tolist() == pytest.approx([0.1234, 0.3])
    assert found.place.tolist() == [1, 0, 1]


def test_shares_add_up_in_populations_of_other_sizes() -> None:
    from_, to, share = couple(levels_of(rates([1, 2, 2], 4), 4), levels_of(rates([0, 3], 4), 4))
    assert share.sum().item() == pytest.approx(1)
    moved = {(int(a), int(b)): float(s) for a, b, s in zip(from_, to, share, strict=True) if s > 0}
    assert moved == pytest.approx({(1, 0): 1 / 3, (2, 0): 1 / 6, (2, 3): 1 / 2})
