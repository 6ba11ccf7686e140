"""Limits: what holds, what fails and what these images cannot decide; intervals by simulation and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from isofire import QuantSpec, quantize_
from isofire.errors import SpecError
from isofire.firing import Observation, SpikeCounts
from isofire.firing.cost import SynopsPerSpike, measure_cost
from isofire.firing.evidence.noise_floor import FloorValue, NoiseFloor
from isofire.firing.limits import Limits
from isofire.firing.verdict import Finding, check, judge
from isofire.neurons import LIF, PerStep, Repeat

RATES = 0.6 * np.random.default_rng(7).beta(0.5, 5, 100)
NET = nn.Sequential(LIF())


def seen(right: np.ndarray, scale: float = 1.0, seed: int = 0) -> Observation:
    """Images that are right or wrong, and Bernoulli neurons; 20 blocks of 10 images."""
    draws = np.random.default_rng(seed).binomial(40, np.clip(scale * RATES, 0, 1), (20, RATES.size))
    counts = SpikeCounts({"0": torch.from_numpy(draws.astype(np.int32))}, torch.full((20,), len(right) // 20), 4)
    labels, reached = torch.ones(len(right), dtype=torch.int64), SynopsPerSpike({"0": torch.full((100,), 9.0).double()})
    return Observation(counts, torch.from_numpy(right.astype(np.int64)), labels, reached=reached)


def judged(before: Observation, after: Observation, **limits: float) -> Finding:
    verdict = judge(before, after, Limits(**limits), quantized=NET)
    return verdict.findings[0]


def test_outcomes() -> None:
    right = np.ones(200)
    half = np.arange(200) % 2
    assert judged(seen(right), seen(right, seed=1), accuracy_drop=0.05).outcome == "keeps"
    assert judged(seen(right), seen(half, seed=1), accuracy_drop=0.05).outcome == "fails"
    few = np.ones(200)
    few[:3] = 0
    undecided = judged(seen(right), seen(few, seed=1), accuracy_drop=0.02)
    assert undecided.outcome == "undecided"
    assert undecided.value == pytest.approx(0.015)
    assert undecided.enough is not None
    assert undecided.enough > 200


def test_every_limit_can_hold_and_fail() -> None:
    right = np.ones(200)
    before, after = seen(right), seen(right, 1.3, seed=1)
    for name, low, high in (
        ("drift", 1.0, 50.0), ("dead_share", 0.1, 0.9), ("synops", 1.1, 1.5), ("state_bytes", 399.0, 400.0),
    ):  # fmt: skip
        assert judged(before, after, **{name: low}).outcome == "fails", name
        assert judged(before, after, **{name: high}).outcome == "keeps", name


def test_the_interval_of_the_drop_covers_and_so_does_that_of_the_operations() -> None:
    """250 repetitions; the truth lies in 93 to 97 % of the intervals."""
    hits = {"accuracy_drop": 0, "synops": 0}
    for seed in range(250):
        rng = np.random.default_rng(seed)
        chance = rng.random((2, 200))
        right = chance[0] < 0.8
        # four per cent of the images are lost, two are won
        after = np.where(right, chance[1] >= 0.05, chance[1] < 0.1)
        first, second = seen(right, seed=2 * seed), seen(after, 1.1, seed=2 * seed + 1)
        drop = judged(first, second, accuracy_drop=0.99)
        hits["accuracy_drop"] += drop.low <= 0.8 * 0.05 - 0.2 * 0.1 <= drop.high
        ratio = judged(first, second, synops=1.0)
        hits["synops"] += ratio.low <= 1.1 <= ratio.high
    assert all(0.93 <= count / 250 <= 0.97 for count in hits.values()), hits


def test_what_cannot_be_measured_is_undecided() -> None:
    counts = SpikeCounts({"0": torch.ones(4, 3, dtype=torch.int32)}, torch.ones(4, dtype=torch.int64), 4)
    tiny = Observation(counts, torch.ones(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64))
    verdict = judge(tiny, tiny, Limits(drift=2, dead_share=0.5, synops=2, accuracy_drop=0.9), quantized=NET)
    assert {item.name: item.outcome for item in verdict.findings} == {
        "accuracy_drop": "keeps", "drift": "undecided", "dead_share": "undecided", "synops": "undecided",
        "baseline": "undecided",
    }  # fmt: skip
    assert verdict.outcome == "undecided"
    # drift and dead share, each with its reason; SynOps has another
    assert " ".join(verdict.table().split()).count("too few images for an interval") == 2
    assert all(np.isnan(item.low) == (item.name != "accuracy_drop") for item in verdict.findings)


def test_drift_is_held_against_a_floor_that_is_not_exact() -> None:
    """A control has an interval of its own; the mean of many draws of images counts as exact."""
    before, after = seen(np.ones(200)), seen(np.ones(200), 1.3, 1)
    drift = {}
    for name, (low, high) in {"sharp": (0.0199, 0.0201), "blurred": (0.012, 0.028)}.items():
        value = {"emd_weighted": FloorValue(value=0.02, low=low, high=high)}
        for kind in ("images", "control"):
            known = {key: replace(item, error=0.001 if kind == "images" else None) for key, item in value.items()}
            floor = NoiseFloor(kind=kind, about=name, layers={}, overall=known)
            drift[name, kind] = judge(before, after, Limits(drift=3), quantized=NET, floor=floor).findings[0]
    width = {key: item.high - item.low for key, item in drift.items()}
    assert width["blurred", "images"] == pytest.approx(width["sharp", "images"])
    assert width["blurred", "control"] > 1.5 * width["sharp", "control"]
    ratio = drift["blurred", "control"]
    open_ = judge(before, after, Limits(drift=ratio.value), quantized=NET, floor=NoiseFloor(
        kind="control", about="blurred", layers={},
        overall={"emd_weighted": FloorValue(value=0.02, low=0.012, high=0.028)},
    )).findings[0]  # fmt: skip
    # no number of images decides what the floor leaves open
    assert (open_.outcome, open_.enough) == ("undecided", None)
    unknown = NoiseFloor(kind="seeds", about="a pair", layers={}, overall={"emd_weighted": FloorValue(value=0.02)})
    assert judge(before, after, Limits(drift=3), quantized=NET, floor=unknown).outcome == "undecided"


def test_one_failure_decides() -> None:
    right = np.ones(200)
    verdict = judge(seen(right), seen(right, 1.3, 1), Limits(synops=1.1, dead_share=0.9), quantized=NET)
    assert [item.outcome for item in verdict.findings] == ["keeps", "fails"]
    assert verdict.outcome == "fails"
    text = verdict.table()
    assert text.startswith("fails, n = 200 images")
    assert len(text.splitlines()) < 20
    assert verdict.to_dict()["findings"][1]["outcome"] == "fails"


def test_networks_are_checked_as_measured_apart() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Repeat(3), PerStep(nn.Conv2d(1, 4, 3)), LIF(), PerStep(nn.Flatten(), nn.Linear(64, 2))).eval()
    data = torch.randn(80, 1, 6, 6) * 3, torch.zeros(80, dtype=torch.int64)
    import copy

    spec = QuantSpec(membrane={"bits": 3, "range": [0, 1], "placement": "pre_fire"})
    quantized = quantize_(copy.deepcopy(model), spec, data)
    verdict = check(model, quantized, data, Limits(synops=9, state_bytes=24), run=2)
    ratio, state = verdict.findings
    costs = measure_cost(model, data), measure_cost(quantized, data)
    assert ratio.value == pytest.approx(costs[1].synops.mean / costs[0].synops.mean)
    assert state.value == 64 * 3 / 8 == costs[1].memory.state_bits / 8
    assert verdict.outcome == "keeps"


def test_limits_are_checked() -> None:
    with pytest.raises(SpecError, match="at least one limit is needed"):
        Limits()
    with pytest.raises(SpecError, match="drift is -1"):
        Limits(drift=-1)


def test_few_images_do_not_pass_where_many_fail() -> None:
    """The floor that a limit is a multiple of must not grow as images get fewer."""
    outcomes = {}
    for per_block in (1, 2, 5, 20, 100):
        drawn = []
        for seed, scale in ((0, 1.0), (1, 1.3)):
            hits = np.random.default_rng(seed).binomial(4 * per_block, np.clip(scale * RATES, 0, 1), (20, RATES.size))
            counts = SpikeCounts({"0": torch.from_numpy(hits.astype(np.int32))}, torch.full((20,), per_block), 4)
            labels = torch.ones(20 * per_block, dtype=torch.int64)
            drawn.append(Observation(counts, labels, labels))
        finding = judge(*drawn, Limits(drift=3), quantized=NET).findings[0]
        outcomes[20 * per_block] = finding.outcome
    assert outcomes[2000] == "fails"
    assert "keeps" not in outcomes.values(), outcomes


def test_a_synaptic_current_is_part_of_the_state_bytes() -> None:
    nodes = pytest.importorskip("spikingjelly.activation_based.neuron")
    if not hasattr(nodes, "CUBALIFNode"):
        pytest.skip("this version of SpikingJelly has no CUBALIFNode")
    right = np.ones(200)
    # as a layer, and as a model that is nothing but a layer
    for wrap, name in ((nn.Sequential, "0"), (lambda neuron: neuron, "model")):
        before = seen(right)
        counts = SpikeCounts({name: before.counts.counts["0"]}, before.counts.images_per_block, 4)
        before = Observation(counts, before.predictions, before.labels)
        for neuron, size in ((nodes.LIFNode(), 100 * 4), (nodes.CUBALIFNode(), 100 * 8)):
            for limit, outcome in ((size, "keeps"), (size - 1, "fails")):
                (finding,) = judge(before, before, Limits(state_bytes=limit), quantized=wrap(neuron)).findings
                assert (finding.outcome, finding.value) == (outcome, size)


def test_a_baseline_that_guesses_leaves_firing_to_be_judged_and_a_silent_one_does_not() -> None:
    guesses, labels = np.arange(200) % 2, np.arange(200) // 2 % 2

    def shown(seed: int, scale: float) -> Observation:
        return replace(
            seen(np.ones(200), scale, seed), predictions=torch.from_numpy(guesses), labels=torch.from_numpy(labels)
        )

    def outcomes(scale: float, **limits: float) -> dict[str, str]:
        found = judge(shown(0, scale), shown(1, scale), Limits(**limits), quantized=NET)
        assert "! baseline" in found.table(100) or found.findings[-1].name == "baseline"
        return {item.name: item.outcome for item in found.findings}

    assert outcomes(1.0, dead_share=0.9) == {"dead_share": "keeps"}
    assert outcomes(1.0, accuracy_drop=0.9) == {"accuracy_drop": "keeps", "baseline": "undecided"}
    assert outcomes(0.0, dead_share=1.0) == {"dead_share": "keeps", "baseline": "undecided"}
    assert outcomes(0.0, state_bytes=1e6) == {"state_bytes": "keeps"}
