"""Decisions that go with states which a loop hands on: images that it changes are not taken for others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from isofire.adapters.handed_on import Decided
from isofire.errors import ModelError

LEVELS, THRESHOLD = np.array([-1.5, -0.5, 0.5, 1.5], np.float32), 0.75


def afresh(states: Tensor) -> Tensor:
    return (states > THRESHOLD).float()


@pytest.mark.parametrize("shape", [(64, 3), (64, 3, 1, 1), (24, 6)])
def test_numbers_that_were_left_keep_their_decision_where_images_turn_out_like_others(shape: tuple[int, ...]) -> None:
    for seed in range(60):
        drawn = np.random.default_rng(seed)
        states, decisions = drawn.choice(LEVELS, shape), (drawn.random(shape) < 0.4).astype(np.float32)
        changed = states.copy()
        for image in drawn.choice(len(states), seed % 3 + 1, replace=False):
            number = drawn.integers(shape[1])
            changed[image, number] = drawn.choice(LEVELS[states[image, number].item() != LEVELS])
        if sorted(map(bytes, changed)) == sorted(map(bytes, states)):
            continue  # images that have changed places
        wanted = np.where(changed == states, decisions, changed > THRESHOLD)
        found = Decided(torch.tensor(states), torch.tensor(decisions)).of(torch.tensor(changed), afresh)
        assert np.array_equal(found.numpy(), wanted), seed


def test_an_image_that_a_loop_makes_like_another_has_not_its_decision() -> None:
    full = torch.tensor([[0.95, 0.35], [1.09, 0.1], [0.3, 0.3]])
    stored = torch.tensor([[1.1, 0.35], [1.1, 0.0], [0.35, 0.35]])
    given = stored.clone()
    given[0, 1] = 0.0
    found = Decided(stored, (full > 1).float()).of(given, lambda states: (states > 1).float())
    assert torch.equal(found, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))


def test_an_image_copied_over_others_is_decided_place_by_place() -> None:
    states, decisions = torch.tensor([[1.5, 0.5], [1.5, 1.5], [0.5, 0.5]]), torch.tensor([[0.0, 1], [1, 0], [0, 0]])
    found = Decided(states, decisions).of(states[[0, 0, 0]], afresh)
    assert torch.equal(found, torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_states_of_another_precision_keep_their_decisions(dtype: torch.dtype) -> None:
    drawn = np.random.default_rng(0)
    levels = np.linspace(-1.1, 1.3, 8, dtype=np.float32)
    states, decisions = torch.tensor(drawn.choice(levels, (12, 20))), torch.tensor(drawn.random((12, 20)) < 0.4).float()
    known, order = Decided(states, decisions), torch.tensor(drawn.permutation(12))
    assert torch.equal(known.of(states.to(dtype), afresh), decisions)
    assert torch.equal(known.of(states[order].to(dtype), afresh), decisions[order])
    assert torch.equal(known.of(states[:5].to(dtype), lambda given: (given > THRESHOLD).to(given)), decisions[:5])


def test_what_another_precision_makes_alike_is_refused_in_another_order() -> None:
    known = Decided(torch.tensor([[1.0, 0.5], [1.0001, 0.5]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    given = torch.tensor([[1.0001, 0.5], [1.0, 0.5]])
    assert torch.equal(known.of(given, afresh), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ModelError, match="may be either of two images"):
        known.of(given[:1].bfloat16(), afresh)
