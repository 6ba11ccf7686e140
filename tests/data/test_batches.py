from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isofire.data import Batches
from isofire.errors import SpecError


def _numbers(start: int, stop: int) -> tuple[Tensor, Tensor]:
    return torch.arange(start, stop), torch.arange(start, stop) * 10


@given(st.integers(0, 60), st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_every_sample_comes_once_in_order(count: int, batch_size: int) -> None:
    batches = Batches(count, batch_size, _numbers)
    pairs = list(batches)
    assert len(batches) == len(pairs)
    assert [i for inputs, _ in pairs for i in inputs.tolist()] == list(range(count))
    assert all(torch.equal(inputs * 10, labels) for inputs, labels in pairs)
    assert all(len(inputs) == batch_size for inputs, _ in pairs[:-1])


def test_can_be_walked_through_again_and_twice_at_once() -> None:
    batches = Batches(5, 2, _numbers)
    first, second = iter(batches), iter(batches)
    next(first)
    assert next(second)[0].tolist() == [0, 1]
    assert next(first)[0].tolist() == [2, 3]
    assert [len(inputs) for inputs, _ in batches] == [2, 2, 1]


def test_makes_a_batch_only_when_it_is_asked_for() -> None:
    made = []

    def make(start: int, stop: int) -> tuple[Tensor, Tensor]:
        made.append((start, stop))
        return _numbers(start, stop)

    walk = iter(Batches(100, 10, make))
    next(walk)
    assert made == [(0, 10)]


@pytest.mark.parametrize("batch_size", [0, -3])
def test_refuses_an_empty_batch(batch_size: int) -> None:
    with pytest.raises(SpecError, match=f"batch_size must be 1 or more, got {batch_size}"):
        Batches(10, batch_size, _numbers)
