"""What each quantizer of a network is given, beside the levels it offers: histograms of weights and of membranes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.quantization import make_plan, spec_of, weight_quantizers
from isofire.quantization.plan import LayerAssignment
from isofire.quantizers import WeightSetting
from isofire.quantizers.rows import to_rows
from isofire.running import device_of, evaluating
from isofire.spec import CONSTANT_TARGETS

BINS = 64
MOST_LEVELS = 256
"""Quantizers with more levels give an even selection of so many."""

_Quantized = tuple[Neuron, MembraneQuantizer]
_MOST_SAMPLED = 1 << 16
_TAIL = 0.001


def distributions(baseline: nn.Module, quantized: nn.Module, images: Tensor) -> list[dict[str, Any]]:
    """A histogram and the levels for every quantized weight and membrane, in the model's order, as plain JSON values.

    Weights are those of the full-precision network. Membrane potentials are those that reach the quantizer while the
    quantized network, with all its quantizers in place, sees `images`; of a large layer an even selection is counted.
    Quantizers with levels of their own per channel are shown on one axis: each channel is divided by its highest level,
    and `note` says so. Both networks are left as they were.

    Parameters
    ----------
    baseline
        The full-precision network.
    quantized
        Made from it: prepared and calibrated, or converted. Without a spec (a control) nothing is quantized.
    images
        One batch as the network takes it, [N, C, H, W] or frames [T, N, C, H, W].

    Returns
    -------
    list[dict[str, Any]]
        `module`, `target` ("weights" or "membrane"), `bits`, `edges` [B + 1] and `counts` [B] (values beyond the outer
        edges are in the outer bins), `levels` (ascending), `threshold` (of the neuron, None for weights and where the
        axis is divided per channel) and `note` (None, or what else there is to know).

    Raises
    ------
    ModelError
        If the networks do not have the same layers, or a quantizer is not calibrated.
    """
    spec = spec_of(quantized)
    if spec is None:
        return []
    choices = [choice for choice in make_plan(baseline, spec).choices if choice.setting is not None]
    # neurons of other libraries keep their membranes to themselves
    choices = [c for c in choices if c.target not in CONSTANT_TARGETS]
    choices = [c for c in choices if c.target == "weights" or isinstance(quantized.get_submodule(c.name), Neuron)]
    membranes = [choice.name for choice in choices if choice.target == "membrane"]
    neurons = {name: _neuron(quantized, name) for name in membranes}
    levels = {name: _once(membrane.quantizer.levels().cpu()) for name, (_, membrane) in neurons.items()}
    states = _states(quantized, neurons, levels, images) if neurons else {}
    return [
        _of_weight(choice, baseline, quantized)
        if choice.target == "weights"
        else _of_membrane(choice, neurons[choice.name][0], states[choice.name], levels[choice.name])
        for choice in choices
    ]


def histogram(values: Tensor, levels: Tensor, threshold: float | None = None) -> tuple[list[float], list[int]]:
    """Edges [65] and counts [64] of `values` on an axis that shows them between levels.

    The axis spans all but the outermost 0.1 % of the values at either side, the nearest level beyond those (the
    outermost, if there is none beyond), and the threshold.

    Examples
    --------
    >>> edges, counts = histogram(torch.tensor([-0.1, 0.1]), torch.tensor([-10.0, -1.0, 1.0, 10.0]))
    >>> edges[0], edges[-1], sum(counts)
    (-1.0, 1.0, 2)
    """
    values = values.detach().double().cpu().flatten()
    tails = torch.tensor([_TAIL, 1 - _TAIL], dtype=torch.float64)
    low, high = (float(value) for value in _quantiles(values, tails))
    found = sorted(float(level) for level in levels)
    shown = [low, high]
    shown.append(max((level for level in found if level <= low), default=found[0]))
    shown.append(min((level for level in found if level >= high), default=found[-1]))
    if threshold is not None:
        shown.append(threshold)
    start, end = min(shown), max(shown)
    if not start < end:
        start, end = start - 0.5, end + 0.5
    edges = torch.linspace(start, end, BINS + 1, dtype=torch.float64)
    place = torch.bucketize(values, edges[1:-1], right=True)
    return edges.tolist(), torch.bincount(place, minlength=BINS).tolist()


def _of_weight(choice: LayerAssignment, baseline: nn.Module, quantized: nn.Module) -> dict[str, Any]:
    weight = _weight(baseline, choice.name)
    levels, notes = _levels(choice, weight, quantized)
    rows = to_rows(weight, 0).values if levels.shape[0] > 1 else weight.reshape(1, -1)
    if levels.shape[0] != rows.shape[0]:
        raise ModelError(
            f"{choice.name!r} has {levels.shape[0]} sets of levels for {rows.shape[0]} channels; give the baseline "
            "that the quantized network was made from"
        )
    shown, more = _common(levels)
    values = rows / _tops(levels).unsqueeze(1) if levels.shape[0] > 1 else rows
    return _entry(choice, values, shown, None, [*notes, *more])


def _of_membrane(choice: LayerAssignment, neuron: Neuron, values: Tensor, levels: Tensor) -> dict[str, Any]:
    shown, notes = _common(levels)
    return _entry(choice, values, shown, neuron.dynamics.v_threshold if levels.shape[0] == 1 else None, notes)


def _entry(
    choice: LayerAssignment, values: Tensor, levels: Tensor, threshold: float | None, notes: list[str]
) -> dict[str, Any]:
    edges, counts = histogram(values, levels, threshold)
    if levels.numel() > MOST_LEVELS:
        chosen = torch.linspace(0, levels.numel() - 1, MOST_LEVELS).round().long()
        notes = [*notes, f"{MOST_LEVELS} of {levels.numel()} levels"]
        levels = levels[chosen]
    assert choice.setting is not None
    return {
        "module": choice.name,
        "target": choice.target,
        "bits": choice.setting.nominal_bits,
        "edges": edges,
        "counts": counts,
        "levels": [float(level) for level in levels],
        "threshold": threshold,
        "note": "; ".join(notes) or None,
    }


def _common(levels: Tensor) -> tuple[Tensor, list[str]]:
    """One set of levels [L] for all channels' [G, L], and what was done to have one."""
    if levels.shape[0] == 1:
        return levels[0].unique(), []
    top = _tops(levels)
    divided = levels / top.unsqueeze(1)
    shown = divided[int(top.argsort(stable=True)[top.numel() // 2])]
    notes = ["each channel divided by its highest level"]
    if not torch.allclose(divided, shown.expand_as(divided), rtol=0, atol=1e-5, equal_nan=True):
        notes.append("levels of the middle channel")
    return shown[shown.isfinite()].unique(), notes


def _levels(choice: LayerAssignment, weight: Tensor, quantized: nn.Module) -> tuple[Tensor, list[str]]:
    """Levels [G, L] of a weight quantizer; after conversion they are found again, else read off the stored weights."""
    setting = choice.of(WeightSetting)
    temporal = setting.time_steps is not None
    notes = ["levels of the first step"] if temporal else []
    quantizer = dict(weight_quantizers(quantized)).get(choice.name)
    if quantizer is None:
        quantizer, stored = setting.build(weight.shape[0]).eval(), _weight(quantized, choice.name)
        # levels that the setting gives are those of any weights
        fixed = bool(quantizer.calibrated)
        quantizer.calibrate(weight)
        with torch.no_grad():
            found_again = fixed or torch.equal(quantizer(weight), stored)
        if not found_again:
            values = stored[0] if temporal else stored
            rows = values.flatten(1) if quantizer.granularity == "channel" else values.reshape(1, -1)
            return _in_use(rows), [*notes, "levels that the quantized weights take"]
    levels = quantizer.levels().cpu()
    return _once(levels[0] if temporal else levels), notes


def _once(levels: Tensor) -> Tensor:
    """[1, L] where all channels have the same levels."""
    return levels[:1] if bool((levels == levels[0]).all()) else levels


def _in_use(rows: Tensor) -> Tensor:
    """The distinct values of each row [G, L], filled up with NaN."""
    found = [row.unique() for row in rows]
    most = max(values.numel() for values in found)
    out = torch.full((len(found), most), math.nan)
    for line, values in zip(out, found, strict=True):
        line[: values.numel()] = values
    return out


def _tops(levels: Tensor) -> Tensor:
    """The highest absolute level of each channel [G]; 1 for one whose levels are all 0."""
    top = levels.nan_to_num(0.0).abs().amax(1)
    return torch.where(top > 0, top, torch.ones_like(top))


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = getattr(dict(model.named_modules()).get(name), "weight", None)
    if not isinstance(weight, Tensor):
        raise ModelError(f"there is no layer {name!r} with weights; give two networks with the same layers")
    return weight.detach().float().cpu()


def _neuron(model: nn.Module, name: str) -> _Quantized:
    found = dict(model.named_modules()).get(name)
    if not isinstance(found, Neuron) or found.membrane is None:
        raise ModelError(f"{name!r} has no membrane quantizer; give the network that was made from the baseline")
    return found, found.membrane


def _states(
    model: nn.Module, neurons: dict[str, _Quantized], levels: dict[str, Tensor], images: Tensor
) -> dict[str, Tensor]:
    """Potentials [n] of each layer that reach its quantizer, on the axis of its levels."""
    with _listening(neurons, levels) as kept, evaluating(model), torch.no_grad():
        model(images.to(device_of(model)))
    for name, parts in kept.items():
        if not parts:
            raise ModelError(f"the layer of neurons {name!r} did not run on these images, so it has no potentials")
    return {name: torch.cat(parts) for name, parts in kept.items()}


@contextmanager
def _listening(neurons: dict[str, _Quantized], levels: dict[str, Tensor]) -> Iterator[dict[str, list[Tensor]]]:
    """Keep what reaches each membrane quantizer; only the reference path hands its states to a module."""
    kept: dict[str, list[Tensor]] = {name: [] for name in neurons}
    with ExitStack() as undo:
        for name, (neuron, membrane) in neurons.items():
            undo.callback(membrane.register_forward_pre_hook(_keeper(kept[name], levels[name])).remove)
            undo.callback(setattr, neuron, "backend", neuron.backend)
            neuron.backend = "reference"
        yield kept


def _keeper(parts: list[Tensor], levels: Tensor) -> Any:
    tops = _tops(levels)

    def keep(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        state = arguments[0].detach()
        if levels.shape[0] > 1:
            state = state / tops.to(state).reshape(1, -1, *[1] * (state.ndim - 2))
        flat = state.flatten()
        # an odd stride visits every channel and image of shapes that are powers of two
        stride = -(-flat.numel() // _MOST_SAMPLED) | 1
        parts.append(flat[::stride].float().cpu().clone())

    return keep


def _quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """Order statistics without interpolation; torch.quantile refuses more than 2^24 values."""
    ordered = values.sort().values
    return ordered[(shares * (ordered.numel() - 1)).round().long()]
