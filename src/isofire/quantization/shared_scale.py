"""The scale that membranes share with the weights before them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isofire.adapters import batch_first, charge_of, find_neurons, input_axis
from isofire.errors import SpecError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.by_firing.trace import trace
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.layer_before import LayerBefore, layer_before
from isofire.quantizers import AffineQuantizer
from isofire.quantizers.weight_scale import WeightScale
from isofire.running import evaluating
from isofire.telling import pick

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
        If no single layer gives the currents, its weights are float, or their levels are no multiples of one step a
        channel of the neurons.
    ModelError
        If the neuron's charge is not of the form leak V + gain X.
    """
    neuron, adapter = find_neurons(model)[name]
    inputs = _few_images(model, inputs, _IMAGES)
    charge = charge_of(name, neuron, adapter)
    before = layer_before(model, name, inputs)
    layer = before.layer
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
    step = _step_of(name, before, affine.step.double()) * before.gains.abs()
    if not bool((step > 0).all()):
        channel = int((step <= 0).nonzero()[0])
        raise SpecError(
            f"{name!r} has no scale to share in channel {channel}: the norm between it and {layer!r} multiplies by 0; "
            f"prune the channel, or leave the neurons float by a rule (match {name!r}, membrane 'float')"
        )
    unit = charge.gain / charge.leak
    offset = round(float(affine.origin[0] / affine.step[0]))
    return WeightScale(step * unit, min(abs(affine.k_min + offset), abs(affine.k_max + offset)), unit)


def require_scales(model: nn.Module, names: Sequence[str], inputs: Tensor) -> None:
    """Raise SpecError if one of these layers of neurons, where inputs reach it, finds no weights to share a scale with.

    Known from the network as it runs with float membranes, so before anything is measured.
    """
    if not names:
        return
    membranes = [module for module in model.modules() if isinstance(module, MembraneQuantizer)]
    with evaluating(model), torch.no_grad():
        try:
            for membrane in membranes:
                membrane.passes = True
            reached = trace(model, [inputs], ()).calls
            for name in names:
                if name in reached:
                    weight_scale(model, name, inputs)
        finally:
            for membrane in membranes:
                membrane.passes = False


def _step_of(name: str, before: LayerBefore, steps: Tensor) -> Tensor:
    """The step of each of the neurons' channels, of a layer's `steps` `[G]`."""
    each = steps[before.channels] if len(steps) > 1 else steps.expand(before.channels.shape)
    least, most = each.amin((0, 2)), each.amax((0, 2))
    if not torch.equal(least, most):
        raise SpecError(
            f"channel {int((least < most).nonzero()[0])} of {name!r} takes outputs of several channels of "
            f"{before.layer!r}, whose weights have steps of their own; give these weights granularity 'tensor', or "
            f"leave the neurons float by a rule (match {name!r}, membrane 'float')"
        )
    return least


def _has_zero(quantizer: AffineQuantizer) -> bool:
    affine = quantizer.affine()
    places = affine.origin.double() / affine.step.double()
    return bool(torch.allclose(places, places.round(), atol=1e-5, rtol=0))


def _few_images(model: nn.Module, inputs: Tensor, count: int) -> Tensor:
    """`count` images of a batch that tell most, or all of it where the network was built for batches of one size."""
    return inputs if batch_first(model) else pick(inputs, input_axis(model, inputs), count)
