"""Draws and resampled measures: a draw must give what comparing the drawn images themselves gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isofire.errors import DataError, SpecError
from isofire.firing import Comparison, SpikeCounts
from isofire.firing.evidence import draws as drawing
from isofire.firing.evidence import resample as module
from isofire.firing.evidence.resample import resample


def _pair(seed: int = 0, blocks: int = 6) -> tuple[SpikeCounts, SpikeCounts]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.tensor([4, 0, 3, 4, 2, 5])[:blocks]

    def counts() -> SpikeCounts:
        def layer(*shape: int) -> torch.Tensor:
            top = (images * 4 // 3).clamp(min=1).view(-1, *(1 for _ in shape))
            draw = torch.randint(0, 100, (blocks, *shape), generator=generator) % (top + 1)
            return (draw * (images > 0).view(-1, *(1 for _ in shape))).int()

        return SpikeCounts({"b": layer(3, 5), "a": layer(4)}, images, 4)

    return counts(), counts()


def _drawn(counts: SpikeCounts, weights: np.ndarray) -> SpikeCounts:
    """The recording in which block k occurs `weights[k]` times."""
    used = counts.images_per_block > 0
    times = torch.from_numpy(weights)
    layers = {
        name: (tensor[used] * times.view(-1, *(1 for _ in tensor.shape[1:]))).int()
        for name, tensor in counts.counts.items()
    }
    return SpikeCounts(layers, counts.images_per_block[used] * times, counts.steps)


@pytest.mark.parametrize("levels", [2**17, 1])
def test_every_measure_of_every_draw_by_brute_force(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_LEVELS", levels)
    monkeypatch.setattr(module, "_FEW", 0)
    baseline, quantized = _pair()
    draws = drawing.bootstrap(5, 12, np.random.default_rng(0))
    found = resample(baseline, quantized, draws)
    for row, weights in enumerate(draws):
        expected = Comparison.of(
            _drawn(baseline, weights), _drawn(quantized, weights), accuracy=1, accuracy_fp=1, agreement=1
        )
        assert found.images[row] == expected.n_images
        for layer in expected.layers:
            for key, values in found.layers[layer.layer].items():
                if not key.endswith("_change"):
                    assert values[row] == pytest.approx(getattr(layer, key), abs=1e-12, nan_ok=True), key
        for key, values in found.overall.items():
            if not key.endswith("_change"):
                assert values[row] == pytest.approx(expected.overall[key], abs=1e-12, nan_ok=True), key
        change = expected.overall["dead_05"] - expected.overall["dead_05_fp"]
        assert found.overall["dead_05_change"][row] == pytest.approx(change, abs=1e-12)


@pytest.mark.parametrize("levels", [2**17, 1])
def test_a_world_with_unchanged_rates(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_LEVELS", levels)
    monkeypatch.setattr(module, "_FEW", 0)
    baseline, quantized = _pair()
    still = resample(baseline, quantized, drawing.everything(5), unchanged=True)
    assert all(float(still.overall[key][0]) == pytest.approx(0, abs=1e-12) for key in ("emd_max", "paired_mae"))
    assert float(still.overall["spearman"][0]) == pytest.approx(1)
    assert np.isnan(still.overall["mfr"]).all()
    noisy = resample(baseline, quantized, drawing.bootstrap(5, 20, np.random.default_rng(1)), unchanged=True)
    assert (noisy.overall["paired_mae"] > 0).any()
    assert (noisy.overall["spearman"] < 1).any()
    assert (noisy.overall["emd_weighted"] <= noisy.overall["paired_mae"] + 1e-12).all()


def test_networks_with_their_own_draws() -> None:
    baseline, _ = _pair()
    first, second = drawing.everything(5), drawing.leave_one_out(5)[:1]
    found = resample(baseline, baseline, first, second)
    expected = _drawn(baseline, first[0]).rates("a"), _drawn(baseline, second[0]).rates("a")
    assert found.layers["a"]["paired_mae"][0] == pytest.approx(float((expected[0] - expected[1]).abs().mean()))


def test_draws() -> None:
    rng = np.random.default_rng(0)
    assert drawing.bootstrap(7, 50, rng).sum(1).tolist() == [7] * 50
    halves = drawing.subsets(7, 50, rng)
    assert halves.sum(1).tolist() == [3] * 50
    assert halves.max() == 1
    assert len({tuple(row) for row in halves}) > 10
    assert drawing.leave_one_out(3).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    with pytest.raises(SpecError, match="size must be at most the 3 blocks"):
        drawing.subsets(3, 1, rng, size=4)
    with pytest.raises(SpecError, match="blocks must be at least 1, got 0"):
        drawing.bootstrap(0, 1, rng)


def test_what_does_not_fit_is_refused() -> None:
    baseline, quantized = _pair()
    with pytest.raises(DataError, match="draws must be whole numbers"):
        resample(baseline, quantized, drawing.everything(6))
    with pytest.raises(DataError, match="at least one image"):
        resample(baseline, quantized, np.zeros((1, 5), dtype=np.int64))
    nothing = {name: torch.zeros_like(counts) for name, counts in quantized.counts.items()}
    shuffled = SpikeCounts(nothing, quantized.images_per_block.flip(0), 4)
    with pytest.raises(DataError, match="same images in the same blocks"):
        resample(baseline, shuffled, drawing.everything(5))
