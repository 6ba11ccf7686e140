"""Mean rates, dead shares and transitions against counts by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from isofire.errors import DataError, SpecError
from isofire.firing import SpikeCounts, alive_dead_transitions, dead_share, mean_firing_rate


@pytest.fixture
def three() -> SpikeCounts:
    """Layers "x" with 0, 2 and 40 spikes and "y" with 1 spike, in 10 images of T = 4: out of 40."""
    counts = {"x": torch.tensor([[0, 1, 30], [0, 1, 10]]).int(), "y": torch.tensor([[1], [0]]).int()}
    return SpikeCounts(counts, torch.tensor([5, 5]), 4)


def test_mean_of_a_recording_weights_neurons(three: SpikeCounts) -> None:
    assert mean_firing_rate(three, layer="x") == pytest.approx(42 / 120, abs=1e-15)
    assert mean_firing_rate(three, layer="y") == 1 / 40
    assert mean_firing_rate(three) == pytest.approx(43 / 160, abs=1e-15)


def test_dead_is_zero_at_cut_zero_and_below_at_any_other(three: SpikeCounts) -> None:
    # rates 0, exactly 0.05, 1 and 0.025
    assert dead_share(three, 0, layer="x") == pytest.approx(1 / 3)
    assert dead_share(three, 0.05, layer="x") == pytest.approx(1 / 3)
    assert dead_share(three, 0.0501, layer="x") == pytest.approx(2 / 3)
    assert dead_share(three, 0.05) == 0.5
    assert dead_share(three, 0) == 0.25
    assert dead_share(three) == dead_share(three, 0.05)


@pytest.mark.parametrize("images", [1_000, 3_333, 10_000])
def test_the_cut_is_sharp_whatever_the_number_of_images(images: int) -> None:
    steps = 20
    at = images * steps // 20
    counts = SpikeCounts({"x": torch.tensor([[at - 1, at, at + 1]]).int()}, torch.tensor([images]), steps)
    assert dead_share(counts, 0.05) == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float64)])
def test_plain_rates_of_any_kind(kind: Callable[[list[float]], object]) -> None:
    rates = kind([0.0, 0.25, 0.5])
    assert mean_firing_rate(rates) == 0.25  # type: ignore[arg-type]
    assert dead_share(rates, 0.3) == pytest.approx(2 / 3)  # type: ignore[arg-type]


def test_half_precision_and_gradients_pass() -> None:
    rates = torch.tensor([0.5, 0.25], dtype=torch.bfloat16, requires_grad=True)
    assert mean_firing_rate(rates) == 0.375


@pytest.mark.parametrize(
    ("rates", "match"),
    [
        ([], "at least one neuron"),
        ([0.1, float("nan")], "finite, got nan at neuron 1"),
        ([0.1, 0.2, float("inf")], "finite, got inf at neuron 2"),
        ([0.1, -0.2], "not be negative, got -0.2 at neuron 1"),
        ([[0.1, 0.2]], r"one-dimensional \[n\], got shape \[1, 2\]"),
    ],
)
def test_bad_rates_are_refused(rates: list[float], match: str) -> None:
    for call in (mean_firing_rate, dead_share):
        with pytest.raises(DataError, match=match):
            call(rates)
    with pytest.raises(DataError, match=match):
        alive_dead_transitions([0.1], rates)


@pytest.mark.parametrize("cut", [-0.1, float("nan"), float("inf")])
def test_bad_cuts_are_refused(cut: float) -> None:
    with pytest.raises(SpecError, match="cut must be a rate >= 0"):
        dead_share([0.1], cut)


def test_layers_only_go_with_recordings(three: SpikeCounts) -> None:
    with pytest.raises(SpecError, match="plain rates have no layers"):
        mean_firing_rate([0.1], layer="x")
    with pytest.raises(SpecError, match="got 'z'"):
        dead_share(three, 0, layer="z")


def test_transitions_by_hand() -> None:
    before, after = [0.0, 0.04, 0.05, 0.5, 0.6, 0.0], [0.0, 0.05, 0.04, 0.5, 0.2, 0.9]
    moved = alive_dead_transitions(before, after)
    assert (moved.stayed_alive, moved.died, moved.revived, moved.stayed_dead) == (2, 1, 2, 1)
    at_zero = alive_dead_transitions(before, after, cut=0)
    assert at_zero == (4, 0, 1, 1)


def test_transitions_need_the_same_neurons() -> None:
    with pytest.raises(DataError, match="same neurons, got 2 against 3"):
        alive_dead_transitions([0.1, 0.2], [0.1, 0.2, 0.3])
