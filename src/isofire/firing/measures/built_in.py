"""isofire's own measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from isofire.firing.distance import emd_from_counts, spearman
from isofire.firing.measures.record import RATE_UNIT, Firing, Measure, Place
from isofire.firing.rates import PAPER_CUT, is_dead


def _mfr(firing: Firing) -> float:
    return int(firing.counts.sum()) / (firing.denominator * firing.counts.size)


def _dead(cut: float) -> Callable[[Firing], float]:
    return lambda firing: float(is_dead(firing.rates, cut).mean())


def _emd(baseline: Firing, quantized: Firing) -> float:
    return emd_from_counts(baseline.counts, quantized.counts, baseline.denominator, quantized.denominator)


def _paired(baseline: Firing, quantized: Firing) -> float:
    unit = baseline.denominator * baseline.counts.size
    return int(np.abs(quantized.counts - baseline.counts).sum()) / unit


def _shift(baseline: Firing, quantized: Firing) -> float:
    unit = baseline.denominator * baseline.counts.size
    return abs(int(quantized.counts.sum()) - int(baseline.counts.sum())) / unit


def _shape(baseline: Firing, quantized: Firing) -> float:
    return _emd(baseline, quantized) - _shift(baseline, quantized)


def _reshuffle(baseline: Firing, quantized: Firing) -> float:
    return _paired(baseline, quantized) - _emd(baseline, quantized)


def _spearman(baseline: Firing, quantized: Firing) -> float:
    return spearman(baseline.rates, quantized.rates)


def _dead_share(name: str, cut: float, shown: Sequence[Place] = ()) -> Measure:
    said = "neurons that never fire" if cut == 0 else f"neurons with a rate below {cut:g}"
    return Measure(
        name=name, title=f"share of {said}", of=_dead(cut), networks=1, high=1.0, step="neuron", heading="dead %",
        digits=1, percent=True, shown=shown,
    )  # fmt: skip


CUTS = {"dead_00": 0.0, "dead_01": 0.01, "dead_05": PAPER_CUT}
"""Dead share -> the rate below which a neuron is dead."""

BUILT_IN = (
    Measure(
        name="mfr", title="mean firing rate", of=_mfr, networks=1, unit=RATE_UNIT, worse=None, mean=True,
        heading="rate", shown=("layers", "rows", "report", "maps"),
    ),
    *(_dead_share(name, cut, get_args(Place) if cut == PAPER_CUT else ()) for name, cut in CUTS.items()),
    Measure(
        name="emd", title="earth mover's distance of the rates", of=_emd, unit=RATE_UNIT,
        overall={"emd_weighted": "neurons", "emd_layer_mean": "layers", "emd_pooled": "pooled", "emd_max": "max"},
        distance=True, paired=False, between=("shift", "paired_mae"), heading="EMD", digits=5,
        shown=("layers", "rows", "report", "maps"),
    ),
    Measure(
        name="paired_mae", title="mean absolute rate change of a neuron", of=_paired, unit=RATE_UNIT, distance=True,
        between=("paired_mae", "paired_mae"), heading="paired", shown=("rows", "report"),
    ),
    Measure(
        name="shift", title="change of the mean rate, without its sign", of=_shift, unit=RATE_UNIT, distance=True,
        paired=False, between=("shift", "shift"), digits=5, shown=("layers",),
    ),
    Measure(
        name="shape", title="EMD less shift: the distribution changed its form", of=_shape, unit=RATE_UNIT,
        distance=True, paired=False, step="spikes", digits=5, shown=("layers",),
    ),
    Measure(
        name="reshuffle", title="paired change less EMD: neurons swapped rates", of=_reshuffle, unit=RATE_UNIT,
        distance=True, step="spikes", heading="shuffle", digits=5, shown=("layers",),
    ),
    Measure(
        name="spearman", title="Spearman's rank correlation of rates, within layers", of=_spearman, low=-1.0, high=1.0,
        worse="lower", slow=True, heading="rank r", digits=2, shown=("layers", "rows"),
    ),
)  # fmt: skip
"""The measures that `isofire.firing.evidence` resamples all at once, from histograms that they share."""
