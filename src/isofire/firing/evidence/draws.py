"""How often each image block counts in a resample: the rows that `resample` multiplies the counts with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isofire.errors import SpecError

Draws = NDArray[np.int64]
"""[R, blocks], whole numbers >= 0: row r takes block k `draws[r, k]` times."""


def bootstrap(blocks: int, resamples: int, rng: np.random.Generator, size: int | None = None) -> Draws:
    """Blocks drawn with replacement, `size` of them in each resample (as many as there are, if left out).

    Raises
    ------
    SpecError
        If a number is below 1.
    """
    size = blocks if size is None else size
    _check(blocks=blocks, resamples=resamples, size=size)
    return rng.multinomial(size, np.full(blocks, 1 / blocks), size=resamples)


def subsets(blocks: int, resamples: int, rng: np.random.Generator, size: int | None = None) -> Draws:
    """Blocks drawn without replacement, `size` of them in each resample (half of them, if left out).

    Raises
    ------
    SpecError
        If a number is below 1, or `size` above the number of blocks.
    """
    size = blocks // 2 if size is None else size
    _check(blocks=blocks, resamples=resamples, size=size)
    if size > blocks:
        raise SpecError(f"size must be at most the {blocks} blocks that hold images, got {size}")
    chosen = rng.random((resamples, blocks)).argsort(1)[:, :size]
    draws = np.zeros((resamples, blocks), dtype=np.int64)
    np.put_along_axis(draws, chosen, 1, axis=1)
    return draws


def leave_one_out(blocks: int) -> Draws:
    """All blocks but one, each left out once: [blocks, blocks]."""
    _check(blocks=blocks)
    return 1 - np.eye(blocks, dtype=np.int64)


def everything(blocks: int) -> Draws:
    """Each block once: the sample itself, [1, blocks]."""
    _check(blocks=blocks)
    return np.ones((1, blocks), dtype=np.int64)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise SpecError(f"{name} must be at least 1, got {value}")
