"""A measure of firing: the Kolmogorov-Smirnov distance between two networks' rates."""

from __future__ import annotations

import numpy as np

from isofire.firing import Firing, Measure


def _largest_gap(baseline: Firing, quantized: Firing) -> float:
    first, second = np.sort(baseline.rates), np.sort(quantized.rates)
    rates = np.concatenate([first, second])
    below = [np.searchsorted(values, rates, side="right") / values.size for values in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


kolmogorov_smirnov = Measure(
    name="ks",
    title="largest gap between the distribution functions of the rates",
    of=_largest_gap,
    overall={"ks": "layers", "ks_pooled": "pooled"},
    high=1.0,
    distance=True,
    paired=False,
    heading="KS",
    digits=3,
    shown=("layers", "rows", "report", "maps"),
)
