"""What a network is given for a while, and has no longer afterwards: modes and hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks that are taken off at the end."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put every module into eval mode and give each back its own mode at the end.

    Examples
    --------
    >>> model = nn.Sequential(nn.ReLU(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     model.training
    False
    >>> [module.training for module in model]
    [True, False]
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generators, the CPU's and the device's.

    `torch.manual_seed` would seed every device there may be, at ten times the cost, and keeps the stack of each call
    where there is none.
    """
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
    torch.default_generator.manual_seed(seed)


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """torch's generators, the CPU's and the device's, go on afterwards as if nobody had drawn or seeded inside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def drawing(batch: int, device: torch.device) -> Iterator[None]:
    """Random numbers of a network's own (Poisson encoding) that are the same in every pass over a batch.

    They follow from the seed of torch's generator and the batch's place.
    """
    seed = (torch.initial_seed() + batch) % 2**63
    with forked(device):
        seed_generators(seed, device)
        yield
