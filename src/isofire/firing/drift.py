"""How a layer's firing differs between two recordings of the same network on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isofire.errors import ModelError
from isofire.firing.counts import SpikeCounts
from isofire.firing.distance import emd_from_counts, spearman
from isofire.firing.rates import PAPER_CUT, Transitions, alive_dead_transitions, dead_share


@dataclass(frozen=True, kw_only=True)
class LayerDrift:
    """Firing of one layer in the quantized network against the baseline (`_fp`).

    Rates, `emd`, `shift`, `shape`, `reshuffle` and `paired_mae` are in spikes per neuron per step.

    Parameters
    ----------
    layer, neurons
        Name of the neuron module and its number of neurons.
    mfr, mfr_fp
        Mean firing rates.
    dead_00, dead_01, dead_05
        Shares of neurons with rate 0, < 0.01 and < 0.05 (the paper's cut); `_fp` for the baseline.
    emd
        Exact earth mover's distance between the two distributions of rates.
    shift, shape, reshuffle
        The parts of `paired_mae`, see `isofire.firing.Drift`; `emd = shift + shape`.
    paired_mae
        Mean absolute rate change of a neuron.
    spearman
        Rank correlation of the neurons' rates; NaN where all rates of a network are equal.
    transitions
        Neurons that died or revived at the paper's cut.
    """

    layer: str
    neurons: int
    mfr: float
    mfr_fp: float
    dead_00: float
    dead_01: float
    dead_05: float
    dead_00_fp: float
    dead_01_fp: float
    dead_05_fp: float
    emd: float
    shift: float
    shape: float
    reshuffle: float
    paired_mae: float
    spearman: float
    transitions: Transitions


def layer_drift(baseline: SpikeCounts, quantized: SpikeCounts, layer: str) -> LayerDrift:
    """Compare one layer neuron by neuron, in whole numbers up to the last division.

    Raises
    ------
    ModelError
        If the recordings do not belong together, see `check_match`.
    """
    check_match(baseline, quantized)
    before, after = (counts.per_neuron(layer).numpy() for counts in (baseline, quantized))
    unit = baseline.denominator * before.size
    shift = abs(int(after.sum()) - int(before.sum())) / unit
    distance = emd_from_counts(before, after, baseline.denominator)
    change = int(np.abs(after - before).sum()) / unit
    rates_fp, rates = before / baseline.denominator, after / baseline.denominator
    return LayerDrift(
        layer=layer,
        neurons=before.size,
        mfr=int(after.sum()) / unit,
        mfr_fp=int(before.sum()) / unit,
        dead_00=dead_share(rates, 0),
        dead_01=dead_share(rates, 0.01),
        dead_05=dead_share(rates, PAPER_CUT),
        dead_00_fp=dead_share(rates_fp, 0),
        dead_01_fp=dead_share(rates_fp, 0.01),
        dead_05_fp=dead_share(rates_fp, PAPER_CUT),
        emd=distance,
        shift=shift,
        shape=distance - shift,
        reshuffle=change - distance,
        paired_mae=change,
        spearman=spearman(rates_fp, rates),
        transitions=alive_dead_transitions(rates_fp, rates, PAPER_CUT),
    )


def check_match(baseline: SpikeCounts, quantized: SpikeCounts) -> None:
    """Refuse two recordings that cannot be compared neuron by neuron.

    Raises
    ------
    ModelError
        If layers, neuron shapes, T or the number of images differ.
    """
    difference = baseline.difference(quantized)
    if difference is None and baseline.n_images != quantized.n_images:
        difference = f"{baseline.n_images} against {quantized.n_images} images"
    if difference is not None:
        raise ModelError(
            f"baseline and quantized model must have the same neurons and see the same images: {difference}"
        )
