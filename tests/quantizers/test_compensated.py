"""Compensated rounding, against brute force and against rounding to nearest."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from isofire.errors import SpecError
from isofire.quantizers.compensated import round_compensated, round_up_to_a_factor, weighted_error
from isofire.quantizers.table import Table


def moment(inputs: int, samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(samples, 3, generator=generator) @ torch.randn(3, inputs, generator=generator)
    x = (mixed + 0.3 * torch.randn(samples, inputs, generator=generator)).double()
    return x.T @ x


def nearest(levels: torch.Tensor) -> Table:
    return Table((levels[:, 1:] + levels[:, :-1]) / 2, levels)


TABLE = nearest(torch.tensor([[-0.9, -0.3, 0.3, 0.9]]))


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_near_the_best_of_all_roundings_and_beats_the_nearest(seed: int):
    h = moment(6, 40, seed)
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(100 + seed)) * 0.5
    rounded = round_compensated(weight, h, TABLE, damping=1e-6)
    assert set(rounded.unique().tolist()) <= set(TABLE.levels[0].tolist())
    found = weighted_error(weight, rounded, h)
    every = torch.tensor(list(product(TABLE.levels[0].tolist(), repeat=6)))
    for row, error in zip(weight, found, strict=True):
        costs = weighted_error(row.expand(len(every), -1), every, h)
        assert costs.min() - 1e-9 <= error <= costs.min() * 2.5 + 1e-9
    assert bool((found <= weighted_error(weight, TABLE.quantize(weight, None), h) * (1 + 1e-6)).all())


def test_it_beats_rounding_to_nearest_where_inputs_go_together():
    h = moment(60, 400)
    weight = torch.randn(16, 60, generator=torch.Generator().manual_seed(3)) * 0.4
    plain = weighted_error(weight, TABLE.quantize(weight, None), h).sum()
    assert weighted_error(weight, round_compensated(weight, h, TABLE), h).sum() < 0.3 * plain


def test_inputs_that_do_not_go_together_are_rounded_to_nearest():
    weight = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(
        round_compensated(weight, torch.eye(7, dtype=torch.float64), TABLE), TABLE.quantize(weight, None)
    )


def test_descent_never_makes_it_worse():
    h = moment(30, 50)
    weight = torch.randn(8, 30, generator=torch.Generator().manual_seed(2)) * 0.4
    alone = weighted_error(weight, round_compensated(weight, h, TABLE, sweeps=0), h + 0.01 * h.diagonal().mean())
    both = weighted_error(weight, round_compensated(weight, h, TABLE, sweeps=8), h + 0.01 * h.diagonal().mean())
    assert both.sum() <= alone.sum()


def test_each_row_has_its_own_levels():
    levels = torch.tensor([[-1.0, 0.0, 1.0], [-0.2, 0.0, 0.2]])
    rounded = round_compensated(torch.full((2, 5), 0.15), moment(5, 30), nearest(levels))
    assert set(rounded[0].tolist()) <= {-1.0, 0.0, 1.0}
    assert set(rounded[1].tolist()) <= set(levels[1].tolist())


def test_inputs_never_seen_take_the_nearest_level():
    h = moment(4, 30)
    h[2], h[:, 2] = 0.0, 0.0
    weight = torch.tensor([[0.1, -0.5, 0.55, 0.8]])
    assert round_compensated(weight, h, TABLE)[0, 2] == pytest.approx(0.3)
    nothing = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(round_compensated(weight, nothing, TABLE), TABLE.quantize(weight, None))


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_must_be_positive(damping: float):
    with pytest.raises(SpecError, match="damping must be positive"):
        round_compensated(torch.ones(1, 2), moment(2, 5), TABLE, damping=damping)


@pytest.mark.parametrize("seed", range(3))
def test_up_to_a_factor_no_row_correlates_less_with_what_it_was(seed: int):
    h = moment(12, 60, seed)
    x = torch.linalg.cholesky(h).T
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed)) * 0.3
    one, free = (function(weight, h, TABLE) for function in (round_compensated, round_up_to_a_factor))
    assert set(free.unique().tolist()) <= set(TABLE.levels[0].tolist())

    def cosine(rounded: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(weight.double() @ x.T, rounded.double() @ x.T)

    assert bool((cosine(free) >= cosine(one) - 1e-9).all())
    assert bool((cosine(free) > cosine(one) + 1e-6).any())


def test_up_to_a_factor_levels_that_fit_another_scale_are_found():
    """Weights that are levels times 1.2: the grid as it is cannot hold them, their direction can."""
    h = moment(8, 60)
    levels = TABLE.levels[0][torch.randint(0, 4, (4, 8), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(round_up_to_a_factor(levels * 1.2, h, TABLE), levels)


def test_up_to_a_factor_zero_rows_stay_on_levels():
    zeros = torch.zeros(2, 8)
    assert set(round_up_to_a_factor(zeros, moment(8, 60), TABLE).unique().tolist()) <= set(TABLE.levels[0].tolist())
