"""How well a network's decisions stand noise on its input."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from isofire.data import ImageSet
from isofire.errors import DataError, SpecError
from isofire.firing import observe


def with_noise(images: ImageSet, sigma: float, seed: int = 0) -> ImageSet:
    """The same images with Gaussian noise on every pixel, rounded to bytes and cut off at black and white.

    Parameters
    ----------
    images
        What the noise is added to; labels stay.
    sigma
        Standard deviation, in units of the full range (0.1: 25.5 of 255).
    seed
        The same seed gives the same noise, so that networks can be compared on it.

    Raises
    ------
    SpecError
        If `sigma` is negative or not finite.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise SpecError(f"sigma must be finite and not negative, got {sigma}; 0.1 is a tenth of the full range")
    generator = torch.Generator().manual_seed(seed)
    # one image at a time, so that an image's noise does not depend on how many follow it
    noise = torch.stack([torch.randn(images.images.shape[1:], generator=generator) for _ in range(len(images))])
    noisy = (images.images.cpu() + 255 * sigma * noise).round_().clamp_(0, 255).to(torch.uint8)
    return replace(images, images=noisy.to(images.images.device))


def decisions_kept(model: nn.Module, clean: ImageSet, changed: ImageSet, *, batch_size: int = 256) -> float:
    """Share of images whose class is the same on both sets.

    Parameters
    ----------
    model
        As for `isofire.compare`.
    clean, changed
        The same images before and after, e.g. `with_noise(clean, 0.1)`.

    Returns
    -------
    float
        In 0..1. It asks whether the decision stays, not whether it is right: a network that knows one class keeps all.

    Raises
    ------
    DataError
        If the sets differ in size.
    """
    if len(clean) != len(changed):
        raise DataError(f"both sets need the same images, got {len(clean)} and {len(changed)}")
    before, after = (observe(model, images, batch_size=batch_size) for images in (clean, changed))
    return int((before.predictions == after.predictions).sum()) / len(clean)
