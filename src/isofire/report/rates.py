"""Distributions of firing rates of a layer, as paths of an SVG: histogram above, distribution function below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 24
WIDTH = 240
HISTOGRAM = (4, 66)
FUNCTION = (84, 176)
"""Top and bottom of the two parts, in SVG units."""

_POINTS = 40
_LEAST_END = 0.1
_ENDS = (0.1, 0.12, 0.16, 0.2, 0.24, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0, 3.0, 4.0)

Rates = NDArray[np.float64]


def end_of(rates: Rates) -> float:
    """Where a layer's axis ends: past all but half a percent of the baseline's neurons, with room for drift."""
    wanted = max(_LEAST_END, 1.3 * float(np.quantile(rates, 0.995)))
    return next(end for end in _ENDS if end >= wanted or end is _ENDS[-1])


def histogram_shares(rates: Rates, end: float) -> list[float]:
    """Share of neurons in each of `BINS` bins of [0, end]; rates beyond are in the last."""
    place = np.clip((rates / end * BINS).astype(int), 0, BINS - 1)
    return (np.bincount(place, minlength=BINS) / rates.size).tolist()


def bars_path(shares: list[float], top_share: float) -> str:
    """The outline of a histogram from its left foot to its right foot; a share is drawn as its square root.

    The root keeps the few active neurons of a layer visible beside the many silent ones.
    """
    top, bottom = HISTOGRAM
    width = WIDTH / BINS
    scale = (bottom - top) / max(top_share, 1e-12) ** 0.5
    path, level = f"M0,{bottom}", bottom
    for share in shares:
        y = round(bottom - scale * share**0.5)
        path += (f"v{y - level}" if y != level else "") + f"h{width:g}"
        level = y
    path = _merged(path)
    return path + (f"V{bottom}" if level != bottom else "")


def function_path(rates: Rates, end: float) -> str:
    """The share of neurons at or below each rate as a step path over [0, end], thinned to about 40 steps.

    Steps are at equal shares, so that steep and flat parts are both kept; the largest error is half a step, about
    1.3 % of the neurons, beside a unit of the drawing.
    """
    top, bottom = FUNCTION
    ordered = np.sort(rates)
    n = ordered.size
    path, x, y = f"M0,{bottom}", 0, bottom
    ranks = np.unique(np.linspace(0, n - 1, _POINTS).round().astype(int))
    # each rate where it is drawn, so that one between two units counts at the one it goes to
    places = np.where(ordered <= end, np.minimum(np.round(ordered / end * WIDTH), WIDTH), np.inf)
    for place in np.unique(places[ranks][ordered[ranks] <= end]).astype(int):
        share = np.searchsorted(places, place, side="right") / n
        level = round(bottom - (bottom - top) * share)
        if level == y:
            continue
        path += (f"h{place - x}" if place != x else "") + f"v{level - y}"
        x, y = int(place), level
    return path + (f"h{WIDTH - x}" if x != WIDTH else "")


def share_beyond(rates: Rates, end: float) -> float:
    """Share of neurons past the end of the axis."""
    return float((rates > end).mean())


def _merged(path: str) -> str:
    """Runs of equal steps to the right as one step."""
    parts: list[str] = []
    for step in path.replace("h", " h").replace("v", " v").split(" "):
        if parts and step.startswith("h") and parts[-1].startswith("h"):
            parts[-1] = f"h{float(parts[-1][1:]) + float(step[1:]):g}"
        else:
            parts.append(step)
    return "".join(parts)
