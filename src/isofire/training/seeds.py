"""Random numbers that depend on where the run is, and on nothing that came before.

A generator that is seeded anew from (seed, epoch, step, rank) needs no stored state: a run that is resumed draws what
the uninterrupted run would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isofire.running import seed_generators

_ORDER, _AUGMENT, _MODEL = range(3)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Shuffle `n` images for one epoch: `[n]`, int64, on the CPU and the same in every process."""
    generator = torch.Generator().manual_seed(_mix(_ORDER, seed, epoch))
    return torch.randperm(n, generator=generator)


def augment_generator(seed: int, epoch: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """Make the generator that augments one batch of one process."""
    return torch.Generator(device).manual_seed(_mix(_AUGMENT, seed, epoch, step, rank))


def seed_model(seed: int, epoch: int, step: int, rank: int, device: torch.device) -> None:
    """Seed torch's global generators for what the model itself draws in one step: dropout, stochastic rounding."""
    seed_generators(_mix(_MODEL, seed, epoch, step, rank), device)


def _mix(*path: int) -> int:
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0] >> 1)
