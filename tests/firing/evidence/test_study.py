"""The study of coverage: its populations against their probabilities, its truth by hand, its page, and that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("common", [True, False])
def test_a_population_fires_as_its_probabilities_say(common: bool) -> None:
    from scripts.coverage.population import Population

    before, after = np.array([[0.1, 0.3], [0.5, 0.5]]), np.array([[0.3, 0.3], [0.2, 0.4]])
    population = Population(layers={"layer": (before, after)}, common=common, steps=3, spikes=2)
    first, second = population.totals(40, 20_000, np.random.default_rng(0))["layer"]
    assert first.mean(0) == pytest.approx(2 * before.mean(1), rel=0.01)
    assert second.mean(0) == pytest.approx(2 * after.mean(1), rel=0.01)
    assert population.rates()["layer"][1].tolist() == pytest.approx([0.6, 0.6])
    # 40 images of two classes, 6 slots each: what the slots vary by, and what the classes do
    slots = 40 * 6
    within = (before * (1 - before)).mean(1) / slots
    between = (before.max(1) - before.min(1)) ** 2 / 4 / 40
    assert first.var(0) == pytest.approx(4 * (within + between), rel=0.05)
    # with common chance no spike is lost where the probability rises
    assert bool((second[:, 0] >= first[:, 0]).all()) is common
    recorded = population.recorded(100, np.random.default_rng(1))
    assert recorded[0].n_images == recorded[1].n_images == 100
    assert recorded[0].images_per_block.tolist() == [4] * 10 + [2] * 30


@pytest.mark.usefixtures("scripts")
def test_the_truth_by_hand() -> None:
    from scripts.coverage import truth

    layers = {
        "a": (np.array([[0.0, 0.2]]), np.array([[0.3, 0.0]])),
        "b": (np.array([[0.4, 0.4, 0.1, 0.1]]), np.array([[0.5, 0.4, 0.1, 0.0]])),
    }
    found = {key: float(value[0]) for key, value in truth.measures(layers).items()}
    expected = {
        # a: sorted 0 .2 against 0 .3; b: .1 .1 .4 .4 against 0 .1 .4 .5
        "emd_layer_mean": (0.05 + 0.05) / 2,
        "emd_weighted": 0.05,
        "emd_max": 0.05,
        "paired_mae": (0.5 + 0.2) / 6,
        "shift": (2 * 0.05 + 4 * 0.0) / 6,
        "mfr": (0.3 + 1.0) / 6,
        "dead_00": 2 / 6,
        "dead_00_change": 1 / 6,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    # all: 0 .1 .1 .2 .4 .4 against 0 0 .1 .3 .4 .5
    assert found["emd_pooled"] == pytest.approx((0 + 0.1 + 0 + 0.1 + 0 + 0.1) / 6)


def test_the_study_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.coverage", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "one rate parts into two, own noise 50" in done.stdout
    assert "50 % up beside a control 50" in done.stdout
