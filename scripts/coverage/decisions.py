"""How often a drift is called more than noise, or breaks a limit, where it is what controls do and where it is more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from scripts.coverage.population import Array
from scripts.coverage.scenarios import LEVELS, TOP, rates_of
from torch import nn

from isofire.firing import Observation, SpikeCounts
from isofire.firing.evidence.noise_floor import control_floor
from isofire.firing.evidence.summary import evidence
from isofire.firing.limits import Limits
from isofire.firing.record import DEFAULT_BLOCKS, run_for
from isofire.firing.verdict import Verdict, judge

STEPS = 4
LIMIT = 3.0
"""Of `check --max-drift`."""


@dataclass(frozen=True)
class Case:
    """A floor and a quantized network.

    Parameters
    ----------
    controls
        Runs of a control; 0 stands for the image floor.
    spread
        How far a run moves each neuron's rate by itself, and all rates together: standard deviations, as shares.
    more
        By how much the quantized network raises all rates besides.
    common
        Whether chance is that of the baseline in all networks.
    """

    name: str
    controls: int
    spread: tuple[float, float] = (0.1, 0.03)
    more: float = 0.0
    common: bool = True


def recordings(case: Case, images: int, seed: int) -> list[SpikeCounts]:
    """Baseline, quantized network and controls on the same images."""
    rng = np.random.default_rng(seed)
    baseline = rates_of()
    networks = [baseline, *(_moved(baseline, case, rng, case.more * (k == 0)) for k in range(case.controls + 1))]
    place = np.arange(images) // run_for(images) % DEFAULT_BLOCKS
    per_block = np.bincount(place, minlength=DEFAULT_BLOCKS)
    classes = rng.multinomial(per_block, np.full(len(LEVELS), 1 / len(LEVELS)))
    totals = [np.zeros((DEFAULT_BLOCKS, len(baseline)), dtype=np.int64) for _ in networks]
    for of_class, level in zip(classes.T, LEVELS, strict=True):
        slots = (STEPS * of_class)[:, None]
        first = rng.binomial(slots, level * baseline)
        totals[0] += first
        for total, rates in zip(totals[1:], networks[1:], strict=True):
            total += _spikes(slots, first, level * baseline, level * rates, case.common, rng)
    made = torch.from_numpy(per_block)
    return [SpikeCounts({"layer": torch.from_numpy(x.astype(np.int32))}, made, STEPS, run_for(images)) for x in totals]


def more_than_noise(case: Case, images: int, simulations: int) -> float:
    """Share of simulations in which EMD is not within noise."""
    above = 0
    for seed in range(simulations):
        baseline, quantized, *controls = recordings(case, images, seed)
        floor = control_floor(baseline, controls) if controls else None
        above += evidence(baseline, quantized, floor, resamples=60).against().within_noise is False
    return above / simulations


def outcomes(case: Case, images: int, simulations: int) -> dict[str, float]:
    """Share of simulations in which a limit on drift is kept, fails and stays undecided."""
    found: Counter[str] = Counter(dict.fromkeys(("keeps", "fails", "undecided"), 0))
    for seed in range(simulations):
        baseline, quantized, *controls = recordings(case, images, seed)
        found[_judged(baseline, quantized, controls, images).outcome] += 1
    return {key: number / simulations for key, number in found.items()}


def ratio(case: Case, images: int, simulations: int = 20) -> float:
    """Mean EMD ÷ noise floor on many images."""
    found = []
    for seed in range(simulations):
        baseline, quantized, *controls = recordings(case, images, seed)
        found.append(_judged(baseline, quantized, controls, images).findings[0].value)
    return float(f"{np.mean(found):.4g}")


def _judged(baseline: SpikeCounts, quantized: SpikeCounts, controls: list[SpikeCounts], images: int) -> Verdict:
    labels = torch.zeros(images, dtype=torch.int64)
    seen = [Observation(counts, labels, labels) for counts in (baseline, quantized)]
    floor = control_floor(baseline, controls) if controls else None
    return judge(*seen, Limits(drift=LIMIT), quantized=nn.Identity(), floor=floor)


def _moved(rates: Array, case: Case, rng: np.random.Generator, more: float) -> Array:
    each, together = case.spread
    factor = (1 + more + together * rng.normal()) * (1 + each * rng.normal(size=len(rates)))
    return np.clip(rates * factor, 0, TOP)


def _spikes(slots: Array, first: Array, p: Array, q: Array, common: bool, rng: np.random.Generator) -> Array:
    """Of a network with probabilities q; with common chance it keeps or adds to the spikes of the baseline."""
    if not common:
        return rng.binomial(slots, q)
    kept = rng.binomial(first, np.divide(np.minimum(p, q), p, out=np.zeros_like(p), where=p > 0))
    return kept + rng.binomial(slots - first, np.clip((q - p) / (1 - p), 0, 1))


NOISE_CASES = (
    Case("what other images do", 0, (0.0, 0.0), common=False),
    Case("a drift, 10 % up", 0, (0.0, 0.0), 0.1, common=False),
    Case("a drift, 30 % up", 0, (0.0, 0.0), 0.3, common=False),
    Case("what one more run of the control does, beside 1 run", 1, (0.1, 0.0)),
    Case("what one more run of the control does, beside 1 run", 1, (0.1, 0.0), common=False),
    Case("what one more run of the control does, beside 3 runs", 3, (0.1, 0.0)),
    Case("what one more run of the control does, beside 3 runs", 3, (0.1, 0.0), common=False),
    Case("what one more run of the control does, beside 10 runs", 10, (0.1, 0.0)),
    Case("what one more run of the control does, beside 10 runs", 10, (0.1, 0.0), common=False),
    Case("the same where runs move the mean rate, beside 3 runs", 3),
    Case("the same where runs move the mean rate, beside 10 runs", 10),
    Case("besides 30 % up, beside 1 run", 1, (0.1, 0.0), 0.3),
    Case("besides 30 % up, beside 3 runs", 3, (0.1, 0.0), 0.3),
    Case("besides 30 % up, beside 10 runs", 10, (0.1, 0.0), 0.3),
)
CHECK_CASES = (
    Case("unchanged rates, own noise", 0, (0.0, 0.0), common=False),
    Case("10 % up", 0, (0.0, 0.0), 0.1),
    Case("50 % up", 0, (0.0, 0.0), 0.5),
    Case("does what a control does", 1, (0.1, 0.0)),
    Case("unchanged rates, own noise, as the control", 1, (0.0, 0.0), common=False),
    Case("50 % up beside a control", 1, (0.1, 0.0), 0.5, common=False),
)
