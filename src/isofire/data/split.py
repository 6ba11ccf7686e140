"""Cutting a validation split off a train split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from isofire.data.event_set import EventSet
from isofire.data.image_set import ImageSet
from isofire.data.tensor_set import TensorSet
from isofire.errors import SpecError

AnySet = TypeVar("AnySet", ImageSet, EventSet, TensorSet)


def hold_out(train_set: AnySet, size: int, seed: int) -> tuple[AnySet, AnySet]:
    """Cut `size` samples off a train set, with the classes in the same proportions.

    Which samples go is a function of the labels, `size` and `seed` alone, the same on every machine and version.
    Both parts keep the set's order, and no sample is in both.

    Parameters
    ----------
    train_set
        A set whose split is "train".
    size
        Samples in the validation part, 1..N - 1.
    seed
        Any whole number.

    Returns
    -------
    (train, valid)
        The rest, still called "train", and the part cut off, called "valid".

    Raises
    ------
    SpecError
        If the set is not a train split, or `size` leaves one part empty.

    Examples
    --------
    >>> from isofire.data import load
    >>> train, valid = hold_out(load("digits", "train"), 200, seed=0)
    >>> len(train), len(valid), valid.split
    (1097, 200, 'valid')
    """
    if train_set.split != "train":
        raise SpecError(f"hold_out cuts a 'train' split, got {train_set.split!r} ({train_set.name})")
    if not 1 <= size < len(train_set):
        raise SpecError(f"size must lie in 1..{len(train_set) - 1} ({train_set.name}, train), got {size}")
    cut = stratified_sample(train_set.labels.tolist(), size, seed)
    held = torch.zeros(len(train_set), dtype=torch.bool)
    held[cut] = True
    return train_set.take((~held).nonzero().flatten()), replace(train_set.take(cut), split="valid")


def stratified_sample(labels: Sequence[int], size: int, seed: int) -> Tensor:
    """Draw `size` sample numbers without replacement, class by class in proportion.

    Parameters
    ----------
    labels
        One class number a sample.
    size
        How many to draw, 0..N. Each class gives its exact share rounded down or up.
    seed
        Any whole number.

    Returns
    -------
    Tensor
        int64 [size], ascending.
    """
    # Python promises that Random(seed).random() never changes; no such promise covers torch's or NumPy's shuffles
    generator = random.Random(seed)
    order = sorted(range(len(labels)), key=[generator.random() for _ in labels].__getitem__)
    left = _shares(Counter(labels), size)
    drawn = []
    for index in order:
        if left[labels[index]] > 0:
            left[labels[index]] -= 1
            drawn.append(index)
    return torch.tensor(sorted(drawn), dtype=torch.int64)


def _shares(counts: Counter[int], size: int) -> dict[int, int]:
    """Split `size` over the classes by largest remainder; equal remainders go to the lower class number."""
    total = counts.total()
    shares = {label: count * size // total for label, count in counts.items()}
    by_remainder = sorted(counts, key=lambda label: (-(counts[label] * size % total), label))
    for label in by_remainder[: size - sum(shares.values())]:
        shares[label] += 1
    return shares
