"""How much drift can change the number of synaptic operations: EMD as a promise about cost.

If every neuron of a layer has fan-out f, its operations are f times its spikes, and by Kantorovich and Rubinstein
|change| <= T n f EMD. At the border of a convolution neurons have fewer synapses, and then EMD over the whole layer
promises nothing: two neurons with fan-outs 1 and 9 that swap their rates leave EMD at 0 and change the cost. So neurons
of equal fan-out are taken together, each group with the EMD of its own rates, and

    |change in SynOps| <= sum over layers and groups of T n_g f_g EMD_g.

It is an equality where all neurons of every group move in the same direction. It is loose where some fire more and
others less: their changes cancel in the cost and add up in EMD; opposite changes of two layers cancel too.

Where the networks are built otherwise (two layers in place of one, a dropped shortcut), f is the baseline's, and what
other fan-outs f' make of the same spikes, the quantized network's spikes times (f' - f), is told apart and added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from isofire.errors import ModelError
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.firing.counts import SpikeCounts
from isofire.firing.distance import emd_from_counts
from isofire.firing.drift import check_match
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import LEVEL, t_value


@dataclass(frozen=True, kw_only=True)
class SynOpsDrift:
    """Synaptic operations of an inference before and after, and how far drift could have moved them.

    Parameters
    ----------
    baseline, quantized
        Operations that the spikes of a layer, or of all layers, cause.
    bound
        Most that |quantized - baseline| can be, given the EMDs and `structure`.
    structure
        What of the change is another structure's: the quantized network's spikes by how many operations more each
        causes than in the baseline. 0 where both are built alike.
    """

    baseline: float
    quantized: float
    bound: float
    structure: float = 0.0

    @property
    def change(self) -> float:
        """Operations more."""
        return self.quantized - self.baseline


@dataclass(frozen=True, kw_only=True)
class SynOpsDrifts:
    """`SynOpsDrift` of each layer of neurons, and of all.

    Parameters
    ----------
    layers
        Layer of neurons -> its operations.
    ratio
        Operations of the quantized network by those of the baseline, over all layers, with its 95 % interval over
        images; None where the baseline causes none, or fewer than 2 blocks hold images.
    left_out
        Places whose operations are in none of these numbers.
    by_input
        Places that the input's events drive: not in these numbers either, and the same in both networks; where those
        are built otherwise there, they are in `left_out`.
    """

    layers: Mapping[str, SynOpsDrift]
    ratio: Interval | None = None
    left_out: tuple[LeftOut, ...] = ()
    by_input: tuple[LeftOut, ...] = ()

    @property
    def overall(self) -> SynOpsDrift:
        """Of the network; bounds add up."""
        items = self.layers.values()
        return SynOpsDrift(
            baseline=sum(item.baseline for item in items),
            quantized=sum(item.quantized for item in items),
            bound=sum(item.bound for item in items),
            structure=sum(item.structure for item in items),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "overall": asdict(self.overall) | {"change": self.overall.change},
            "layers": {name: asdict(item) | {"change": item.change} for name, item in self.layers.items()},
            "ratio": None
            if self.ratio is None
            else {key: vars(self.ratio)[key] for key in ("estimate", "low", "high")},
            "left_out": [asdict(item) for item in self.left_out],
            "by_input": [asdict(item) for item in self.by_input],
        }


def synops(counts: SpikeCounts, reached: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Synaptic operations of one inference that the spikes of each layer cause, a mean over images.

    Equal to what `measure_cost` counts in event-driven layers, but for layers that the images themselves drive.

    Raises
    ------
    ModelError
        If the recording is of other neurons.
    """
    return {name: float(counts.per_neuron(name).double() @ _reached(counts, reached, name)) / counts.n_images
            for name in counts.layers}  # fmt: skip


def synops_drift(
    baseline: SpikeCounts,
    quantized: SpikeCounts,
    reached_fp: Mapping[str, torch.Tensor],
    reached: Mapping[str, torch.Tensor],
) -> SynOpsDrifts:
    """The change in synaptic operations from one recording to the other, and its bound.

    Parameters
    ----------
    baseline, quantized
        Recordings of the same neurons on the same images.
    reached_fp, reached
        What a spike costs in the baseline and in the quantized network, see `isofire.firing.cost.synops_per_spike`; the
        same for both only where they are built alike.

    Raises
    ------
    ModelError
        If the recordings do not belong together.
    """
    check_match(baseline, quantized)
    before, after, as_built = synops(baseline, reached_fp), synops(quantized, reached), synops(quantized, reached_fp)
    layers = {}
    for name in baseline.layers:
        alike = torch.allclose(_reached(baseline, reached_fp, name), _reached(quantized, reached, name), rtol=1e-9)
        structure = 0.0 if alike else after[name] - as_built[name]
        bound = _bound(baseline, quantized, reached_fp, name) + abs(structure)
        layers[name] = SynOpsDrift(baseline=before[name], quantized=after[name], bound=bound, structure=structure)
    left_out, by_input = _beside(reached_fp, reached)
    first, second = _per_block(baseline, reached_fp), _per_block(quantized, reached)
    return SynOpsDrifts(layers=layers, ratio=_ratio(first, second), left_out=left_out, by_input=by_input)


def _beside(*reached: Mapping[str, torch.Tensor]) -> tuple[tuple[LeftOut, ...], tuple[LeftOut, ...]]:
    """What is in no number of one of the networks, and what the input drives in both alike."""
    known = [item for item in reached if isinstance(item, SynopsPerSpike)]
    left_out = {(item.name, item.reason): item for found in known for item in found.left_out}
    by_input = {item.name: item for found in known for item in found.by_input}
    alike = all(found.input_synapses == known[0].input_synapses for found in known)
    if alike:
        return tuple(left_out.values()), tuple(by_input.values())
    reason = "driven by the input's events, through other synapses in each of the networks"
    return (*left_out.values(), *(replace(item, reason=reason) for item in by_input.values())), ()


def _ratio(first: torch.Tensor, second: torch.Tensor) -> Interval | None:
    """A ratio of sums over the same blocks: its error is that of what the ratio leaves unexplained in each."""
    total, blocks = float(first.sum()), len(first)
    if total == 0 or blocks < 2:
        return None
    ratio = float(second.sum()) / total
    rest = second - ratio * first
    error = math.sqrt(blocks / (blocks - 1) * float((rest**2).sum())) / total
    half = t_value(LEVEL, blocks - 1) * error
    return Interval(estimate=ratio, low=max(ratio - half, 0.0), high=ratio + half, level=LEVEL, error=error)


def _per_block(counts: SpikeCounts, reached: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Operations of each block that holds images."""
    used = counts.images_per_block > 0
    return torch.stack(
        [counts.counts[name].flatten(1)[used].double() @ _reached(counts, reached, name) for name in counts.layers]
    ).sum(0)


def _bound(baseline: SpikeCounts, quantized: SpikeCounts, reached: Mapping[str, torch.Tensor], name: str) -> float:
    fans = _reached(baseline, reached, name)
    before, after = baseline.per_neuron(name), quantized.per_neuron(name)
    total = 0.0
    for fan in fans.unique():
        group = fans == fan
        distance = emd_from_counts(before[group], after[group], baseline.denominator)
        total += float(fan) * int(group.sum()) * baseline.steps * distance
    return total


def _reached(counts: SpikeCounts, reached: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in reached or len(reached[name]) != counts.n_neurons(name):
        raise ModelError(f"the synapses must be those of the recorded network, layer {name!r} is not in both alike")
    return reached[name].double()
