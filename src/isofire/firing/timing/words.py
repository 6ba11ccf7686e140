"""A neuron's T steps on one image as one of 2^T words: all of its timing in one whole number."""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.errors import DataError

MAX_STEPS = 10


def spike_words(spikes: Tensor) -> Tensor:
    """Words of spike trains: step t is bit t.

    Parameters
    ----------
    spikes
        [T, ...] of 0 and 1, T at most 10.

    Returns
    -------
    Tensor
        int64 [...], 0 .. 2^T - 1.

    Raises
    ------
    DataError
        If T is too large, or a value is neither 0 nor 1.

    Examples
    --------
    >>> spike_words(torch.tensor([[1, 0], [0, 0], [1, 1]])).tolist()
    [5, 4]
    """
    steps = len(spikes)
    if not 1 <= steps <= MAX_STEPS:
        raise DataError(f"words need 1 to {MAX_STEPS} steps, got {steps}; there would be 2^{steps} of them")
    if not bool(((spikes == 0) | (spikes == 1)).all()):
        raise DataError(
            "words are of spikes 0 and 1, got other values; a neuron that fires several times a step has none"
        )
    word = spikes[0].to(torch.int64)
    for step in range(1, steps):
        word = word + (spikes[step].to(torch.int64) << step)
    return word


def trains(steps: int) -> Tensor:
    """Every spike train of `steps` steps: bool [T, 2^T], word w in column w."""
    words = torch.arange(2**steps)
    return torch.stack([(words >> step) % 2 == 1 for step in range(steps)])


def joint_words(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """How often word i of one network met word j of the other: int64 [2^T, 2^T].

    Parameters
    ----------
    first, second
        Words of the same neurons on the same images, of any one shape.
    """
    size = 2**steps
    pairs = first.flatten() * size + second.flatten()
    return torch.bincount(pairs, minlength=size * size).view(size, size)


def word_counts(words: Tensor, steps: int) -> Tensor:
    """How often each neuron gave each word: int64 [2^T, n], from words [N, ...]."""
    images, size = len(words), 2**steps
    flat = words.reshape(images, -1)
    neurons = flat.shape[1]
    places = flat * neurons + torch.arange(neurons, device=words.device)
    return torch.bincount(places.flatten(), minlength=size * neurons).view(size, neurons)


def total_variation(first: Tensor, second: Tensor) -> Tensor:
    """Total variation between the word distributions of each neuron in two networks: float64 [n], 0 to 1.

    The largest difference in probability of any set of words. Sees what rates do not: a spike that comes a step later,
    or two spikes that no longer come together, leave the rate, and so EMD, as they were. Noise raises it: with few
    images two samples of the same distribution differ too, the more the more words there are.

    Parameters
    ----------
    first, second
        [2^T, n], see `word_counts`.

    Raises
    ------
    DataError
        If a neuron has no word.
    """
    for counts in (first, second):
        if not bool((counts.sum(0) > 0).all()):
            raise DataError("every neuron needs at least one image for a distribution of words")
    p, q = (counts.double() / counts.sum(0) for counts in (first, second))
    return (p - q).abs().sum(0) / 2
