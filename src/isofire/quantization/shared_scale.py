"""The scale that membranes share with the weights before them: which layer that is, and what stands in between.

The layer is found by running the network: it is one whose outputs, a channel's all alike, times a factor and plus a
constant are the neurons' currents. So norms may come between, and anything else (a second branch, a pool) is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import batch_first, charge_of, find_neurons, input_axis
from isofire.errors import SpecError
from isofire.quantization.by_firing.patches import KINDS
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import Call, Trace, calls_of, trace
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantizers import AffineQuantizer
from isofire.quantizers.weight_scale import WeightScale
from isofire.telling import pick

_CLOSE = 1e-4
_IMAGES = 16


def weight_scale(model: nn.Module, name: str, inputs: Tensor) -> WeightScale:
    """The scale of the quantized weights before the neurons `name`, as their stored potential sees it.

    Parameters
    ----------
    model
        Prepared; its weights calibrated and its norms measured.
    inputs
        A batch, on the model's device; a few of its images are enough.

    Raises
    ------
    SpecError
        If no single layer gives the currents, its weights are float, or their levels are no multiples of one step.
    ModelError
        If the neuron's charge is not of the form leak V + gain X.
    """
    neuron, adapter = find_neurons(model)[name]
    inputs = _few_images(model, inputs, _IMAGES)
    charge = charge_of(name, neuron, adapter)
    layers = [own for own, module in model.named_modules() if isinstance(module, KINDS)]
    seen = trace(model, [inputs], layers)
    layer, gains = _layer_before(model, name, seen, layers, inputs)
    quantizer = dict(weight_quantizers(model)).get(layer)
    if quantizer is None:
        raise SpecError(
            f"{name!r} shares its scale with the weights of {layer!r}, which are full precision; quantize them too "
            f"(first_layer = 'quantize' for a first layer), or leave the neurons float by a rule (match {name!r}, "
            "membrane 'float')"
        )
    if not isinstance(quantizer, AffineQuantizer) or not _has_zero(quantizer):
        raise SpecError(
            f"{name!r} shares its scale with the weights of {layer!r}, whose levels must be multiples of one step, got "
            f"{type(quantizer).__name__}({quantizer.extra_repr()}); take weights with method 'lsq', or 'uniform' with "
            "grid 'midtread' or 'twos_complement'"
        )
    affine = quantizer.affine()
    step = affine.step.double().expand(len(gains)) * gains.abs()
    if not bool((step > 0).all()):
        channel = int((step <= 0).nonzero()[0])
        raise SpecError(
            f"{name!r} has no scale to share in channel {channel}: the norm between it and {layer!r} multiplies by 0; "
            f"prune the channel, or leave the neurons float by a rule (match {name!r}, membrane 'float')"
        )
    unit = charge.gain / charge.leak
    offset = round(float(affine.origin[0] / affine.step[0]))
    return WeightScale(step * unit, min(abs(affine.k_min + offset), abs(affine.k_max + offset)), unit)


def _has_zero(quantizer: AffineQuantizer) -> bool:
    affine = quantizer.affine()
    places = affine.origin.double() / affine.step.double()
    return bool(torch.allclose(places, places.round(), atol=1e-5, rtol=0))


def _layer_before(
    model: nn.Module, name: str, seen: Trace, layers: Sequence[str], inputs: Tensor
) -> tuple[str, Tensor]:
    """The layer that alone gives the neurons' currents, and the factor of each channel, `[C]` float64."""
    neuron, adapter = find_neurons(model)[name]
    expected = seen.calls[name]
    before = [own for own in seen.order[: seen.order.index(name)] if own in layers]
    for layer in reversed(before):
        outputs, calls = _run(model, name, layer, inputs, expected, 0.0)
        replay = Replay(neuron, adapter, [calls])
        out, currents = _rows_of(model, layer, outputs), _currents(calls, replay.channel_axis)
        if out.shape != currents.shape:
            continue
        move = float(out.abs().max()) or 1.0
        _, moved = _run(model, name, layer, inputs, expected, move)
        slope = (_currents(moved, replay.channel_axis) - currents) / move
        gains = slope.mean((0, 2))
        constant = currents - out * gains[:, None]
        if _alike(slope, 1.0) and _alike(constant, float(currents.abs().max())):
            return layer, gains * _norm_gain(replay)
    raise SpecError(
        f"the currents of {name!r} are not those of one convolution or linear layer, norms apart, so that there is no "
        f"scale to share; take another membrane method, or leave the neurons float by a rule (match {name!r}, membrane "
        "'float')"
    )


def _run(
    model: nn.Module, name: str, layer: str, inputs: Tensor, expected: int, move: float
) -> tuple[list[Tensor], list[Call]]:
    """What the layer gives, and what the neurons are then given, if `move` is added to the layer's output."""
    outputs: list[Tensor] = []

    def note(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach())
        return output + move

    with model.get_submodule(layer).register_forward_hook(note):
        (calls,) = calls_of(model, name, [inputs], expected)
    return outputs, calls


def _rows_of(model: nn.Module, layer: str, outputs: Sequence[Tensor]) -> Tensor:
    """Outputs as `[M, C, P]` float64."""
    module = model.get_submodule(layer)
    if isinstance(module, nn.Linear):
        return torch.cat([x.reshape(-1, x.shape[-1], 1) for x in outputs]).double()
    space = len(module.kernel_size)  # type: ignore[arg-type]
    return torch.cat([x.reshape(-1, x.shape[-space - 1], x.shape[-space:].numel()) for x in outputs]).double()


def _currents(calls: Sequence[Call], axis: int) -> Tensor:
    """Currents as `[M, C, P]` float64."""
    return torch.cat(
        [
            c.input.flatten(0, axis - 1).reshape(-1, c.input.shape[axis], c.input.shape[axis + 1 :].numel())
            for c in calls
        ]
    ).double()


def _alike(values: Tensor, scale: float) -> bool:
    """Whether the values of each channel `[M, C, P]` are one."""
    low, high = values.amin((0, 2)), values.amax((0, 2))
    return bool((high - low <= _CLOSE * max(scale, float(values.abs().max()))).all())


def _norm_gain(replay: Replay) -> Tensor:
    """Factor of the norm that the neuron applies itself, `[C]`; 1 without one."""
    norm = replay.norm
    if norm is None or norm.running_var is None:
        return torch.ones((), dtype=torch.float64)
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    return gain if norm.weight is None else gain * norm.weight.detach().double()


def _few_images(model: nn.Module, inputs: Tensor, count: int) -> Tensor:
    """`count` images of a batch that tell most, or all of it where the network was built for batches of one size."""
    return inputs if batch_first(model) else pick(inputs, input_axis(model, inputs), count)
