"""Dead or drifted layers of a quantized network brought back, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isofire.adapters import require_kept
from isofire.batches import Data, require_count
from isofire.errors import ModelError
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.by_firing.images import first_that_fit
from isofire.quantization.by_firing.sequence import ByLayer
from isofire.quantization.calibration import calibration_batches
from isofire.quantization.plan import make_plan
from isofire.quantization.verbs import spec_of
from isofire.running import evaluating, refuse_statistics_of_the_batch

IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What was found in one layer of neurons, and what came of it.

    Parameters
    ----------
    layer
        Its name.
    rate, rate_before, rate_after
        Mean rate of the baseline, of the network as given, and as repaired, in spikes per neuron per step.
    dead, dead_before, dead_after
        Share of neurons that never fired on the images.
    drift_before, drift_after
        Mean |change| of the neurons' rates against the baseline.
    note
        Why nothing could be done, or what is wrong with what was; None if all is well.
    """

    layer: str
    rate: float
    rate_before: float
    rate_after: float
    dead: float
    dead_before: float
    dead_after: float
    drift_before: float
    drift_after: float
    note: str | None

    def __str__(self) -> str:
        said = f"drift {self.drift_before:.5f} -> {self.drift_after:.5f}"
        said = said if self.note is None else f"{said}; {self.note}"
        return (
            f"{self.layer}: rate {self.rate_before:.4f} -> {self.rate_after:.4f} (full precision {self.rate:.4f}), "
            f"silent {self.dead_before:.1%} -> {self.dead_after:.1%} ({self.dead:.1%}); {said}"
        )


def repair_(
    model: nn.Module,
    baseline: nn.Module,
    data: Data | Tensor,
    *,
    max_images: int = IMAGES,
    on_layer: Callable[[Repaired], None] | None = None,
) -> list[Repaired]:
    """Bring a quantized network's firing back to its baseline's, in place, layer by layer from input to output.

    Each number of a bias (a norm's, or a convolution or linear layer's) is moved to where the rates of the neurons that
    it reaches are nearest to the baseline's on the same images, after the layers before it were repaired. Weights,
    levels, thresholds and biases that are quantized themselves stay. Works on networks that other tools quantized too,
    as long as their layers of neurons have the baseline's names.

    Parameters
    ----------
    model
        The quantized network.
    baseline
        Its full-precision counterpart.
    data
        Some training images; labels are not used.
    max_images
        How many of them to use, at most, as in `calibrate_`.
    on_layer
        Called with each layer's finding as it comes.

    Returns
    -------
    list of Repaired
        One for each layer of neurons, in the order in which they run.

    Raises
    ------
    ModelError
        If the two networks have not the same layers of neurons, or one fails on the images.
    SpecError
        If `max_images` is no whole number of at least 1.

    Examples
    --------
    >>> for finding in isofire.quantization.repair_(quantized, model, train_set):  # doctest: +SKIP
    ...     print(finding)
    """
    require_count("max_images", max_images)
    require_kept((baseline, model))
    with evaluating(baseline, model):
        refuse_statistics_of_the_batch(baseline)
        refuse_statistics_of_the_batch(model)
    batches, _ = first_that_fit(model, list(calibration_batches(model, data, max_images)))
    targets, before = firing_of(baseline, batches).counts, firing_of(model, batches).counts
    require_same_layers(targets, before)
    work = ByLayer(model, (), batches, correct=True, reestimate=False)
    spec = spec_of(model)
    if spec is not None:
        work.kept = frozenset(choice.name for choice in make_plan(model, spec).chosen("biases"))
    found: list[Repaired] = []
    with torch.no_grad(), evaluating(model):
        work.look(targets)
        for name in (name for name in work.trace.order if name in work.neurons):
            replay = work.replay(name)
            replay.require_threshold(name)
            step = work.bring_back(name, replay)
            now, note = replay.counts(), step.note or work.unlike(name, replay)
            samples = replay.samples
            if note is not None:
                now = firing_of(model, batches).counts[name]
            finding = _finding(name, targets[name], before[name], now, samples, note)
            found.append(finding)
            if on_layer is not None:
                on_layer(finding)
    return found


def require_same_layers(targets: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Check that a network has the layers of neurons that its baseline has, spikes `[C, P]` each.

    Raises
    ------
    ModelError
        If it has others, or one of another size.
    """
    if targets.keys() != given.keys():
        odd = ", ".join(sorted(targets.keys() ^ given.keys()))
        raise ModelError(f"the network and its baseline must have the same layers of neurons, one alone has: {odd}")
    for name, counts in targets.items():
        if counts.shape != given[name].shape:
            raise ModelError(
                f"layer {name!r} must have as many neurons as the baseline's, got {tuple(given[name].shape)} for "
                f"{tuple(counts.shape)} (channels, neurons of one)"
            )


def _finding(name: str, target: Tensor, before: Tensor, after: Tensor, samples: int, note: str | None) -> Repaired:
    def rate(counts: Tensor) -> float:
        return float(counts.double().mean()) / samples

    def dead(counts: Tensor) -> float:
        return float((counts == 0).double().mean())

    def drift(counts: Tensor) -> float:
        return float((counts - target).abs().double().mean()) / samples

    return Repaired(
        layer=name,
        rate=rate(target),
        rate_before=rate(before),
        rate_after=rate(after),
        dead=dead(target),
        dead_before=dead(before),
        dead_after=dead(after),
        drift_before=drift(before),
        drift_after=drift(after),
        note=note,
    )
