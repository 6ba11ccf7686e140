"""Do two networks tell images apart in the same way: population similarity, and the distance of their outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from isofire.errors import DataError

LEAST_IMAGES = 4


def cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two populations (Kornblith et al. 2019), 0 to 1.

    1 if the images lie to each other as before, up to a rotation of the population and one scale. Sees whether neurons
    still code for the same images; EMD compares rates over all images and does not see which image caused a spike.

    Parameters
    ----------
    first, second
        [N, n] and [N, m]: values, such as spike counts, of the same N images.

    Returns
    -------
    float
        NaN if a population does not tell any images apart.

    Raises
    ------
    DataError
        If the numbers of images differ.
    """
    _check(first, second, 2)
    a, b = (_centred(x.double().flatten(1)) for x in (first, second))
    return _ratio(float((a * b).sum()), float((a * a).sum()), float((b * b).sum()))


class StreamedCKA:
    """`cka` of many images, batch by batch, without keeping any.

    Mean over batches of the unbiased estimate of HSIC (Song et al. 2012; Nguyen et al. 2021, "Do wide and deep networks
    learn the same things?"), so the number of images in a batch does not bias it; it may fall slightly outside of 0..1.
    """

    def __init__(self) -> None:
        self._sums = [0.0, 0.0, 0.0]
        self._images = 0

    def add(self, first: Tensor, second: Tensor) -> None:
        """A batch [N, ...] of each; one of fewer than 4 images is left out, since it has no unbiased estimate."""
        if len(first) < LEAST_IMAGES:
            return
        _check(first, second, LEAST_IMAGES)
        a, b = (_gram(x.double().flatten(1)) for x in (first, second))
        for i, value in enumerate((_hsic(a, b), _hsic(a, a), _hsic(b, b))):
            self._sums[i] += len(first) * value
        self._images += len(first)

    def merge(self, other: StreamedCKA) -> None:
        """Take over the batches of another."""
        self._sums = [a + b for a, b in zip(self._sums, other._sums, strict=True)]
        self._images += other._images

    @property
    def value(self) -> float:
        """NaN before the first batch, or if a population does not tell images apart."""
        return _ratio(*self._sums) if self._images else math.nan


def logit_kl(baseline: Tensor, quantized: Tensor) -> Tensor:
    """KL divergence of the predicted class probabilities from the baseline's, in nats, of each image: float64 [N].

    How far the output moved also where the class stayed; firing measures say nothing of the output.

    Parameters
    ----------
    baseline, quantized
        Logits [N, classes].

    Raises
    ------
    DataError
        If they are of other shapes.
    """
    if baseline.shape != quantized.shape or baseline.ndim != 2:
        raise DataError(f"logits must be two [N, classes] alike, got {[*baseline.shape]} and {[*quantized.shape]}")
    p, q = (F.log_softmax(x.double(), 1) for x in (baseline, quantized))
    terms = F.kl_div(q, p, reduction="none", log_target=True)
    # a class that the baseline rules out adds nothing, whatever the other says of it
    return torch.where(p == -math.inf, 0.0, terms).sum(1).clamp(min=0)


def _centred(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x @ x.T


def _gram(x: Tensor) -> Tensor:
    gram = x @ x.T
    return gram.fill_diagonal_(0)


def _hsic(a: Tensor, b: Tensor) -> float:
    """Unbiased HSIC of Gram matrices without their diagonal."""
    n = len(a)
    parts = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a.sum(0) @ b.sum(0)) / (n - 2)
    return float(parts / (n * (n - 3)))


def _ratio(cross: float, first: float, second: float) -> float:
    return cross / math.sqrt(first * second) if first > 0 and second > 0 else math.nan


def _check(first: Tensor, second: Tensor, least: int) -> None:
    sizes: Sequence[int] = (len(first), len(second))
    if sizes[0] != sizes[1] or sizes[0] < least:
        raise DataError(
            f"both populations must have seen the same {least} images or more, got {sizes[0]} and {sizes[1]}"
        )
