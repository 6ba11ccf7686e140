"""Noise floors: the drift that is there although nothing was quantized.

A drift means something if it is larger than what other images, another seed, or more training alone would do to the
same measure. Which of them is the right comparison depends on the question:

- `image_floor`: other images of the same kind, same network. The least that any difference has to exceed.
- `seed_floor`: networks trained alike from other seeds. For networks that were trained from scratch. It has no
  neuron-by-neuron measures, since neuron 7 of one network is not neuron 7 of another.
- `control_floor`: what the procedure does without quantizing: training continued for as many epochs (the fair floor of
  quantization-aware training), or batch norm re-estimated (that of post-training quantization).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np
import torch

from isofire.errors import DataError, SpecError
from isofire.firing.aggregate import overall_drift
from isofire.firing.counts import SpikeCounts
from isofire.firing.drift import check_match, layer_drift
from isofire.firing.evidence.draws import Draws, bootstrap, subsets
from isofire.firing.evidence.interval import drift_intervals, require_blocks
from isofire.firing.evidence.ratio import Magnitude, magnitude
from isofire.firing.evidence.resample import resample
from isofire.firing.evidence.seeds import over_seeds
from isofire.firing.evidence.student import LEVEL, t_value
from isofire.firing.measures import CHANGE, FP, quantities

Kind = Literal["images", "seeds", "control"]
Method = Literal["bootstrap", "halves"]

_Value = TypeVar("_Value")
DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class FloorValue:
    """A measure without quantization.

    Parameters
    ----------
    value
        Mean over draws of images, pairs of seeds, or controls.
    low, high
        Where 95 % of single draws of images, single pairs of seeds or single runs of a control lie; of one control, its
        95 % interval over images.
        NaN where there are too few seeds to tell.
    noise
        Of controls: what unchanged rates would show on as many images, see `isofire.firing.evidence.Interval`; 0 of
        other floors.
    error
        Of image floors: half the 95 % interval of the mean over draws; None of other floors, of which a quantized
        network is one more draw.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    noise: float = 0.0
    error: float | None = None

    @property
    def magnitude(self) -> Magnitude:
        """Value and ends, for `isofire.firing.evidence.ratio`."""
        return Magnitude(self.value, self.low, self.high)

    @property
    def unit(self) -> Magnitude:
        """What drift is counted in, and how well that is known; what may be noise is off its lower end."""
        if self.error is not None:
            return Magnitude(self.value, self.value - self.error, self.value + self.error)
        return Magnitude(self.value, max(self.low - self.noise, 0.0), self.high)


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """A noise floor of every measure that has one.

    Parameters
    ----------
    kind
        "images", "seeds" or "control".
    about
        What it is, in a few words, for tables.
    layers, overall
        Layer -> measure -> value, and measure -> value, named as in `DriftIntervals`.
    """

    kind: Kind
    about: str
    layers: Mapping[str, Mapping[str, FloorValue]]
    overall: Mapping[str, FloorValue]

    def get(self, measure: str, layer: str | None = None) -> FloorValue | None:
        """The floor of a measure over all layers or of one; None if this floor has none."""
        return (self.overall if layer is None else self.layers.get(layer, {})).get(measure)


def image_floor(
    counts: SpikeCounts, *, method: Method = "bootstrap", draws: int = DRAWS, seed: int = 0, images: int | None = None
) -> NoiseFloor:
    """How far a network is from itself on other images.

    Parameters
    ----------
    counts
        A recording of the baseline with images in at least 5 blocks.
    method
        "bootstrap": two sets of as many images as were recorded, drawn block by block with replacement, so the floor is
        that of n against n images. "halves": halves without a common image, as were recorded, so of n/2 against n/2,
        about sqrt(2) higher; nothing is drawn twice.
    draws
        Pairs of sets.
    images
        Of each set, if not as many as were recorded. Only of a bootstrap. The floor falls as sets
        grow, so floors of recordings of different sizes compare at one such number; above the number recorded it is a
        forecast.

    A drift between two networks on the *same* images has less noise than this, since what an image does to both
    cancels; see `Interval.resolved` for whether it differs from none at all.

    Raises
    ------
    DataError
        If fewer than 5 blocks hold images.
    SpecError
        If the method is unknown, `draws` or `images` below 1, or `images` is given for halves.

    Examples
    --------
    >>> image_floor(recorder.counts).overall["emd_layer_mean"].value  # doctest: +SKIP
    """
    if method not in get_args(Method):
        raise SpecError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if draws < 1:
        raise SpecError(f"draws must be at least 1, got {draws}")
    if images is not None and (images < 1 or method != "bootstrap"):
        raise SpecError(f"images must be at least 1, for method 'bootstrap' alone, got {images} and {method!r}")
    blocks = require_blocks(counts)
    size = blocks if images is None else max(1, round(blocks * images / counts.n_images))
    rng = np.random.default_rng(seed)
    first, second = _sets(method, blocks, draws, rng, size)
    drawn = resample(counts, counts, first, second, ranks=False)
    each = counts.n_images * size / blocks if method == "bootstrap" else counts.n_images // 2
    # a set is of whole blocks; what is left is made up by the square root of the images
    scale = 1.0 if images is None else math.sqrt(each / images)
    each = round(each) if images is None else images

    def of_draws(values: Mapping[str, np.ndarray]) -> dict[str, FloorValue]:
        return {key: _of_draws(scale * item, blocks) for key, item in _kept(values)}

    return NoiseFloor(
        kind="images",
        about=f"the baseline on other images, {each:,} against {each:,} ({method}, {draws} draws)",
        layers={name: of_draws(drawn.layers[name]) for name in counts.layers},
        overall=of_draws(drawn.overall),
    )


def seed_floor(recordings: Sequence[SpikeCounts]) -> NoiseFloor:
    """How far networks of different seeds are apart: the mean over all pairs.

    Pairs share networks, so they are not independent. `low` to `high` is where one more pair would lie: Student's t of
    networks - 1 degrees of freedom times the root of the squares of the mean's standard error, by the jackknife that
    leaves out one network at a time, and of the standard deviation over pairs; three networks are the least for it.

    Parameters
    ----------
    recordings
        One of each network, of the same images, two or more.

    Raises
    ------
    DataError
        If there are fewer than two, or two are of the same network.
    ModelError
        If they are not of the same architecture and images.
    """
    if len(recordings) < 2:
        raise DataError(f"a seed floor needs networks of at least 2 seeds, got {len(recordings)}; train another")
    _refuse_repeated(recordings, "networks of different seeds")
    pairs = {
        (i, j): _measures(recordings[i], recordings[j]) for i, j in itertools.combinations(range(len(recordings)), 2)
    }
    names = recordings[0].layers
    seeds = len(recordings)

    def over_pairs(layer: str | None, key: str) -> FloorValue:
        return _of_pairs({pair: abs(found[layer][key]) for pair, found in pairs.items()}, seeds)

    keys = next(iter(pairs.values()))
    return NoiseFloor(
        kind="seeds",
        about=f"{seeds} networks of different seeds, {len(pairs)} pairs, {recordings[0].n_images:,} images",
        layers={name: {key: over_pairs(name, key) for key in keys[name]} for name in names},
        overall={key: over_pairs(None, key) for key in keys[None]},
    )


def control_floor(
    baseline: SpikeCounts, control: SpikeCounts | Sequence[SpikeCounts], *, about: str = "continued training"
) -> NoiseFloor:
    """The drift of networks that went through the same procedure without quantization, with its own interval.

    One control has its interval over images. It says nothing of how far another run of the procedure, with another
    order of training or other calibration images, would drift. Of several runs the floor is their mean, and `low` to
    `high` is where one more run would lie, since a quantized network is one run too: half of it is t s sqrt(1 + 1/n)
    (Student's t with n - 1 degrees of freedom, s the standard deviation over n runs), or the mean half interval over
    images where that is more. What images do to each run by itself is part of s already; where the runs hardly differ
    it would be missed without the second.

    Parameters
    ----------
    baseline
        The network that the quantized ones are compared with.
    control
        The control on the same images, or several runs of it.
    about
        What was done to it: "continued training, 10 epochs", "batch norm re-estimated".

    Raises
    ------
    ModelError, DataError
        If the recordings do not belong together, there is none, two are of the same network, or fewer than 5 blocks
        hold images.
    """
    runs = [control] if isinstance(control, SpikeCounts) else list(control)
    if not runs:
        raise DataError("a control floor needs at least 1 control, got none; name one")
    _refuse_repeated(runs, "runs of a control")
    found = [drift_intervals(baseline, run, resamples=DRAWS, ranks=False) for run in runs]

    def over(layer: str | None) -> dict[str, FloorValue]:
        of_runs = [item.overall if layer is None else item.layers[layer] for item in found]
        return {
            key: over_runs([magnitude(values[key]) for values in of_runs], [values[key].noise for values in of_runs])
            for key, _ in _kept(of_runs[0])
        }

    return NoiseFloor(
        kind="control",
        about=about if len(runs) == 1 else f"{about}, {len(runs)} runs",
        layers={name: over(name) for name in baseline.layers},
        overall=over(None),
    )


def over_runs(runs: Sequence[Magnitude], noise: Sequence[float] = (0.0,)) -> FloorValue:
    """The floor of controls that were run several times, and what is noise of each, see `control_floor`."""
    if len(runs) == 1:
        return FloorValue(**runs[0]._asdict(), noise=noise[0])
    spread = over_seeds([run.value for run in runs], level=LEVEL)
    # of one more run, not of the mean: t s sqrt(1 + 1 / n) where the mean has t s / sqrt(n)
    half = spread.half_width * math.sqrt(len(runs) + 1)
    low = spread.estimate - max(half, _mean([run.value - run.low for run in runs]))
    high = spread.estimate + max(half, _mean([run.high - run.value for run in runs]))
    return FloorValue(value=spread.estimate, low=max(low, 0.0), high=high, noise=_mean(noise))


def _refuse_repeated(recordings: Sequence[SpikeCounts], what: str) -> None:
    """One network counted twice would pass for two that agree."""
    for (i, first), (j, second) in itertools.combinations(enumerate(recordings, 1), 2):
        same = first.layers == second.layers and all(
            torch.equal(first.counts[name], second.counts[name]) for name in first.layers
        )
        if same and first.total() > 0:
            raise DataError(
                f"{what} must differ, number {i} and {j} fire alike in every neuron: one network named twice, or a "
                "procedure in which the seed changes nothing, of which one run is enough; name each network once"
            )


def _sets(method: Method, blocks: int, draws: int, rng: np.random.Generator, size: int) -> tuple[Draws, Draws]:
    if method == "bootstrap":
        return bootstrap(blocks, draws, rng, size), bootstrap(blocks, draws, rng, size)
    halves = subsets(blocks, draws, rng)
    if blocks % 2 == 0:
        return halves, 1 - halves
    # one block is left out, so that both halves have as many
    rest = 1 - halves
    rest[np.arange(draws), (rest * rng.random(rest.shape)).argmax(1)] = 0
    return halves, rest


def _kept(values: Mapping[str, _Value]) -> list[tuple[str, _Value]]:
    """Measures that have a floor: distances, and signed changes, whose floor is the mean size of a change."""
    known = quantities(layer=True) | quantities(layer=False)
    return [(key, item) for key, item in values.items() if known[key].has_floor]


def _of_draws(values: np.ndarray, blocks: int) -> FloorValue:
    sizes = np.abs(values)
    low, high = np.quantile(sizes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return replace(of_image_floor(float(sizes.mean()), blocks), low=float(low), high=float(high))


def of_image_floor(value: float, blocks: int) -> FloorValue:
    """The mean of an image floor over draws, and how well so many blocks of images know it.

    It is a measure of spread between blocks, and of that B blocks leave a relative error of 1 / sqrt(2 (B - 1)).
    """
    error = value * min(t_value(LEVEL, blocks - 1) / math.sqrt(2 * (blocks - 1)), 0.99)
    return FloorValue(value=value, low=value - error, high=value + error, error=error)


def _measures(first: SpikeCounts, second: SpikeCounts) -> dict[str | None, dict[str, float]]:
    """Layer (None: all) -> measure -> value, without the measures that pair neurons."""
    check_match(first, second)
    layers = [layer_drift(first, second, name) for name in first.layers]
    found: dict[str | None, dict[str, float]] = {item.layer: _unpaired(item.values, layer=True) for item in layers}
    return {**found, None: _unpaired(overall_drift(layers, first, second), layer=False)}


def _unpaired(values: Mapping[str, float], *, layer: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, asked in quantities(layer=layer).items():
        if asked.part == "change":
            value = name.removesuffix(CHANGE)
            found[name] = values[value] - values[value + FP]
        elif asked.has_floor and not asked.measure.paired:
            found[name] = float(values[name])
    return found


def _of_pairs(values: Mapping[tuple[int, int], float], seeds: int) -> FloorValue:
    mean = math.fsum(values.values()) / len(values)
    if seeds < 3:
        return FloorValue(value=mean)
    left_out = [_mean([value for pair, value in values.items() if seed not in pair]) for seed in range(seeds)]
    centre = _mean(left_out)
    error = math.sqrt((seeds - 1) / seeds * math.fsum((value - centre) ** 2 for value in left_out))
    spread = math.fsum((value - mean) ** 2 for value in values.values()) / (len(values) - 1)
    half = t_value(LEVEL, seeds - 1) * math.sqrt(error**2 + spread)
    return FloorValue(value=mean, low=max(mean - half, 0.0), high=mean + half)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
