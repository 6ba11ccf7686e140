from __future__ import annotations

import hashlib
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.data import Events, EventSet, ImageSet, hold_out
from isofire.data.split import stratified_sample
from isofire.errors import SpecError


def make_set(labels: list[int], split: str = "train") -> ImageSet:
    # pixel values number the samples, so that they can be recognized after the split
    images = torch.arange(len(labels), dtype=torch.int32).view(-1, 1).view(torch.uint8).view(-1, 1, 2, 2)
    classes = tuple(str(i) for i in range(max(labels) + 1))
    return ImageSet("toy", split, images, torch.tensor(labels), classes, (0.0,), (1.0,))


def numbers(data: ImageSet) -> list[int]:
    return data.images.reshape(-1, 4).view(torch.int32).flatten().tolist()


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.integers(0, 2**40), st.data())
@settings(max_examples=100, deadline=None)
def test_parts_are_disjoint_complete_ordered_and_stratified(labels: list[int], seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(labels) - 1))
    train, valid = hold_out(make_set(labels), size, seed)
    kept, held = numbers(train), numbers(valid)
    assert len(held) == size
    assert sorted(kept + held) == list(range(len(labels)))
    assert kept == sorted(kept)
    assert held == sorted(held)
    assert valid.labels.tolist() == [labels[i] for i in held]
    for label, count in Counter(labels).items():
        share = Fraction(count * size, len(labels))
        assert abs(valid.labels.tolist().count(label) - share) < 1


def test_parts_are_named_and_keep_the_rest() -> None:
    train, valid = hold_out(make_set([0, 1] * 10), 4, seed=3)
    assert (train.split, valid.split, train.name, valid.classes) == ("train", "valid", "toy", ("0", "1"))
    assert train.fingerprint != valid.fingerprint


def test_same_seed_same_split_other_seed_other_split() -> None:
    data = make_set([i % 10 for i in range(500)])
    draws = [numbers(hold_out(data, 50, seed)[1]) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3


def test_the_split_never_changes_between_versions() -> None:
    drawn = stratified_sample([i % 10 for i in range(1000)], 100, seed=0)
    digest = hashlib.sha256(" ".join(map(str, drawn.tolist())).encode()).hexdigest()
    assert digest == "bef8b431b57b26a451d95f90c94253ea2955a0673e4b02f883080221982befbd"


def test_every_sample_is_as_likely_to_be_held_out() -> None:
    labels = [i % 3 for i in range(30)]
    hits = Counter(i for seed in range(600) for i in stratified_sample(labels, 6, seed).tolist())
    # binomial(600, 1/5): mean 120, standard deviation 9.8
    assert all(120 - 50 < hits[i] < 120 + 50 for i in range(30))


def test_equal_remainders_go_to_the_lower_class() -> None:
    drawn = stratified_sample([2, 1, 0, 2, 1, 0], 2, seed=0)
    assert sorted([2, 1, 0, 2, 1, 0][i] for i in drawn.tolist()) == [0, 1]


def test_event_sets_split_alike() -> None:
    zeros = torch.zeros(6, dtype=torch.uint8)
    events = Events(zeros, zeros, zeros, torch.arange(6, dtype=torch.int32))
    labels = torch.tensor([0, 1] * 3)
    data = EventSet("toy", "train", events, torch.arange(7), labels, ("a", "b"), 2, 2, 3, 10)
    train, valid = hold_out(data, 2, seed=1)
    assert (len(train), len(valid), valid.split) == (4, 2, "valid")
    assert sorted(train.events.t_us.tolist() + valid.events.t_us.tolist()) == list(range(6))
    assert sorted(valid.labels.tolist()) == [0, 1]


@pytest.mark.parametrize("size", [0, -1, 4, 5])
def test_refuses_to_leave_a_part_empty(size: int) -> None:
    with pytest.raises(SpecError, match=rf"size must lie in 1\.\.3 \(toy, train\), got {size}"):
        hold_out(make_set([0, 1, 0, 1]), size, seed=0)


@pytest.mark.parametrize("split", ["test", "valid"])
def test_refuses_to_cut_anything_but_train(split: str) -> None:
    with pytest.raises(SpecError, match=f"cuts a 'train' split, got '{split}'"):
        hold_out(make_set([0, 1, 0, 1], split), 1, seed=0)
