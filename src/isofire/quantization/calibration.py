"""Choosing every quantizer's range, step or basis, and measuring batch norm anew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from isofire.adapters import batch_first, from_rest
from isofire.batches import Data, read_batches
from isofire.errors import SpecError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.plan import make_plan
from isofire.quantization.reestimate import reestimate_batch_norm
from isofire.quantizers import Quantizer, RangeObserver, Uniform
from isofire.running import device_of, evaluating, forward
from isofire.settings import UniformMembrane, WeightSetting
from isofire.spec import QuantSpec

CALIBRATION_IMAGES = 1024
CALIBRATION_BATCH = 128


def require_data(model: nn.Module, spec: QuantSpec, data: object) -> None:
    """Raise SpecError if something is to be estimated from data and there is none."""
    if data is not None:
        return
    settings = [spec.weights, spec.membrane, *(s for rule in spec.rules for s in (rule.weights, rule.membrane))]
    estimated = any(isinstance(setting, UniformMembrane) and setting.is_estimated for setting in settings)
    weights = any(isinstance(setting, WeightSetting) for setting in settings)
    anew = reestimates(model, spec, weights)
    if estimated or anew:
        raise SpecError(
            f"{'batch-norm statistics' if anew else 'membrane ranges'} are estimated from data: pass data "
            "(some training images), or set reestimate_bn = 'never' and fixed membrane ranges"
        )


def calibrate_model_(model: nn.Module, spec: QuantSpec, data: Data | Tensor | None, max_images: int) -> None:
    """Weight quantizers; then batch norm and membrane ranges, with full-precision membranes; see `calibrate_`."""
    weights = list(weight_quantizers(model))
    for name, quantizer in weights:
        quantizer.calibrate(original(model.get_submodule(name)))
    membranes = [module for module in model.modules() if isinstance(module, MembraneQuantizer)]
    estimated = [m for m in membranes if isinstance(m.quantizer, Uniform) and m.quantizer.rule is not None]
    anew = reestimates(model, spec, bool(weights))
    if data is None:
        return
    passes = anew + bool(estimated) + (anew and spec.reestimate_bn == "always" and bool(membranes))
    if passes > 1 and isinstance(data, Iterator):
        raise SpecError(
            f"calibration walks through the data {passes} times, but an iterator can be used once; "
            "pass a list of batches, (inputs, labels) or an image set"
        )
    with evaluating(model), from_rest(model), torch.no_grad():
        try:
            if anew:
                _observe_(membranes)
                reestimate_batch_norm(model, _inputs(model, data, max_images))
            if estimated:
                # fresh ones: while batch norm was measured, it ran on the statistics of single batches
                _observe_(membranes)
                for inputs in _inputs(model, data, max_images):
                    forward(model, inputs)
                for membrane in estimated:
                    assert isinstance(membrane.quantizer, Uniform)
                    assert membrane.observer is not None
                    membrane.quantizer.calibrate_from(membrane.observer)
        finally:
            for membrane in membranes:
                membrane.observer = None
        if anew and spec.reestimate_bn == "always" and membranes:
            reestimate_batch_norm(model, _inputs(model, data, max_images))


def weight_quantizers(model: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Name of each layer whose weight is fake-quantized, and its quantizer."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for quantizer in module.parametrizations["weight"]:  # type: ignore[index]
                if isinstance(quantizer, Quantizer):
                    yield name, quantizer


def original(layer: nn.Module) -> Tensor:
    """The full-precision weight under a layer's quantizer."""
    return layer.parametrizations["weight"].original  # type: ignore[index,union-attr]


def reestimates(model: nn.Module, spec: QuantSpec, weights: bool | None = None) -> bool:
    """Whether quantizing by the spec measures batch norm anew; `weights`, if known, says whether it reaches any."""
    if weights is None:
        weights = any(item.setting is not None and item.target == "weights" for item in make_plan(model, spec).choices)
    norms = any(isinstance(module, _BatchNorm) and module.running_mean is not None for module in model.modules())
    return norms and (spec.reestimate_bn == "always" or (spec.reestimate_bn == "weights" and weights))


def _observe_(membranes: list[MembraneQuantizer]) -> None:
    for membrane in membranes:
        membrane.observer = RangeObserver(membrane.quantizer.granularity, channel_axis=1)


def _inputs(model: nn.Module, data: Data | Tensor, max_images: int) -> Iterator[Tensor]:
    place = device_of(model)
    if isinstance(data, Tensor):
        axis = 1 if data.ndim == 5 and not batch_first(model) else 0
        for inputs in data.narrow(axis, 0, min(max_images, data.shape[axis])).split(CALIBRATION_BATCH, axis):
            yield inputs.to(place)
        return
    for inputs, _ in read_batches(data, CALIBRATION_BATCH, max_images):
        yield inputs.to(place)
