"""Noise on images, and whose decisions stand it."""

from __future__ import annotations

import pytest
import torch
from scripts.evidence.robustness import decisions_kept, with_noise
from torch import Tensor, nn

from isofire.data import load
from isofire.errors import DataError, SpecError
from isofire.neurons import LIF, Repeat

DIGITS = load("digits", "test").first(200)


class Brightest(nn.Module):
    """Class 1 for an image whose mean is above a threshold; spikes so that it can be observed."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.repeat, self.neurons = threshold, Repeat(2), LIF()

    def forward(self, images: Tensor) -> Tensor:
        self.neurons(self.repeat(images.flatten(1)))
        bright = (images.flatten(1).mean(1) > self.threshold).float()
        return torch.stack([1 - bright, bright, *[0 * bright] * 8], 1)


def test_noise_has_its_size_and_does_not_depend_on_what_follows() -> None:
    grey = DIGITS.take(range(100))
    object.__setattr__(grey, "images", torch.full_like(grey.images, 128))
    noisy = with_noise(grey, 0.1, seed=3)
    assert noisy.images.float().std() == pytest.approx(25.5, rel=0.03)
    assert torch.equal(noisy.first(10).images, with_noise(grey.first(10), 0.1, seed=3).images)
    assert not torch.equal(noisy.images, with_noise(grey, 0.1, seed=4).images)
    assert torch.equal(with_noise(grey, 0.0).images, grey.images)
    assert torch.equal(noisy.labels, grey.labels)


def test_noise_stays_within_black_and_white() -> None:
    noisy = with_noise(DIGITS, 1.0).images
    assert (noisy == 0).float().mean() > 0.2
    assert (noisy == 255).float().mean() > 0.05


def test_decisions_kept_are_those_whose_class_is_the_same() -> None:
    noisy = with_noise(DIGITS, 0.3)
    before, after = (next(iter(part.batches(len(part))))[0].flatten(1).mean(1) for part in (DIGITS, noisy))
    threshold = float(before.median())
    expected = float(((before > threshold) == (after > threshold)).float().mean())
    assert 0 < expected < 1
    assert decisions_kept(Brightest(threshold), DIGITS, noisy) == pytest.approx(expected)
    assert decisions_kept(Brightest(-100.0), DIGITS, noisy) == 1


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_a_wrong_sigma_is_told(sigma: float) -> None:
    with pytest.raises(SpecError, match="sigma must be finite"):
        with_noise(DIGITS, sigma)


def test_sets_of_different_sizes_are_told() -> None:
    with pytest.raises(DataError, match="200 and 5"):
        decisions_kept(Brightest(0.0), DIGITS, DIGITS.first(5))
