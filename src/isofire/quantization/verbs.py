"""The verbs, prepare, calibrate, (train), convert, in this order; and `quantize_`, which does all after training."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.batches import Data, read_batches
from isofire.errors import ModelError, SpecError
from isofire.modes import evaluating
from isofire.neurons import Membrane, Neuron
from isofire.quantization.build import membrane_quantizer, weight_quantizer
from isofire.quantization.plan import Choice, make_plan
from isofire.quantization.reestimate import reestimate_batch_norm
from isofire.quantization.temporal import make_temporal_
from isofire.quantizers import Quantizer, RangeObserver, Uniform
from isofire.spec import QuantSpec, TaWQWeights, UniformMembrane

CALIBRATION_IMAGES = 1024
CALIBRATION_BATCH = 128


def prepare(model: nn.Module, spec: QuantSpec) -> nn.Module:
    """A copy of the model with uncalibrated quantizers on its weights and membranes.

    Weights stay trainable: they are fake-quantized in every forward pass, with a straight-through gradient, through
    `torch.nn.utils.parametrize`; convolution and linear modules keep their class.

    Raises
    ------
    ModelError
        If the model has no spiking neuron, is already prepared, or has NaN or infinite weights.
    SpecError
        If a rule matches nothing.
    """
    return prepare_(_copy(model), spec)


def prepare_(model: nn.Module, spec: QuantSpec) -> nn.Module:
    """`prepare` in place; a model that cannot be prepared is left as it was."""
    if spec_of(model) is not None:
        raise ModelError("this model is already prepared or quantized; start again from the full-precision one")
    plan = make_plan(model, spec)
    chosen = [choice for choice in plan.choices if choice.setting is not None]
    _check_weights(model, chosen)
    membranes = {c.name: _membrane(model, c) for c in chosen if isinstance(c.setting, UniformMembrane)}
    for choice in chosen:
        if choice.name in membranes:
            neuron = model.get_submodule(choice.name)
            assert isinstance(neuron, Neuron)
            neuron.membrane = membranes[choice.name]
        else:
            _attach_weight_quantizer_(model, choice)
    model.quantization = spec  # type: ignore[assignment]
    return model


def calibrate(
    model: nn.Module, data: Data | Tensor | None = None, *, max_images: int = CALIBRATION_IMAGES
) -> nn.Module:
    """A copy of a prepared model with ranges, steps and bases chosen; see `calibrate_`."""
    return calibrate_(_copy(model), data, max_images=max_images)


def calibrate_(
    model: nn.Module, data: Data | Tensor | None = None, *, max_images: int = CALIBRATION_IMAGES
) -> nn.Module:
    """Choose every quantizer's range from the weights and, for membranes, from the states that `data` evokes.

    In this order: weight quantizers; batch-norm statistics (as `spec.reestimate_bn` says) and membrane ranges, both
    with quantized weights and full-precision membranes; batch-norm statistics again if "always".

    Parameters
    ----------
    data
        An image set, (inputs, labels), batches, or inputs alone. None is enough if nothing is estimated from data.
    max_images
        How many of them to use.

    Raises
    ------
    ModelError
        If the model was not prepared.
    SpecError
        If data is needed and None was given.
    """
    spec = spec_of(model)
    if spec is None:
        raise ModelError("calibrate needs a prepared model; call prepare(model, spec) first")
    weights = dict(weight_quantizers(model))
    for name, quantizer in weights.items():
        quantizer.calibrate(_original(model.get_submodule(name)))
    membranes = [m.membrane for m in model.modules() if isinstance(m, Neuron) and m.membrane is not None]
    estimated = [m for m in membranes if not _has_fixed_range(m)]
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    reestimates = norms and (spec.reestimate_bn == "always" or (spec.reestimate_bn == "weights" and bool(weights)))
    if (estimated or reestimates) and data is None:
        raise SpecError(
            f"{'batch-norm statistics' if reestimates else 'membrane ranges'} are estimated from data: pass data "
            "(some training images), or set reestimate_bn = 'never' and fixed membrane ranges"
        )
    with evaluating(model), torch.no_grad():
        observers = _observe_membranes_(membranes)
        try:
            if reestimates:
                reestimate_batch_norm(model, _inputs(data, max_images))
            if estimated:
                for inputs in _inputs(data, max_images):
                    model(inputs)
        finally:
            for membrane in membranes:
                membrane.observer = None
        for membrane, observer in zip(membranes, observers, strict=True):
            if not _has_fixed_range(membrane):
                membrane.quantizer.calibrate_from(observer)  # type: ignore[operator]
        if reestimates and spec.reestimate_bn == "always" and membranes:
            reestimate_batch_norm(model, _inputs(data, max_images))
    return model


def convert(model: nn.Module) -> nn.Module:
    """A copy of a prepared, calibrated model with its quantized weights written in place of the full-precision ones.

    The copy is in eval mode and holds no parametrization; membrane quantizers stay, as part of its neurons.

    Raises
    ------
    ModelError
        If the model was not prepared.
    """
    return convert_(_copy(model))


def convert_(model: nn.Module) -> nn.Module:
    """`convert` in place."""
    if spec_of(model) is None:
        raise ModelError("convert needs a prepared model; call prepare(model, spec) and calibrate first")
    model.eval()
    for name, _ in list(weight_quantizers(model)):
        layer = model.get_submodule(name)
        _own_class_(layer)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model


def quantize_(
    model: nn.Module, spec: QuantSpec, data: Data | Tensor | None = None, *, max_images: int = CALIBRATION_IMAGES
) -> nn.Module:
    """Quantize a trained model in place: prepare, calibrate, convert; returned in eval mode.

    Parameters
    ----------
    data
        Some training images, as in `calibrate_`: batch-norm statistics are re-estimated on them unless the spec says
        "never", and estimated membrane ranges need them.

    Raises
    ------
    ModelError, SpecError
        As `prepare` and `calibrate_`; the model is left as it was if preparing fails.

    Examples
    --------
    >>> spec = QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4, "placement": "post_reset"})
    >>> isofire.quantize_(model, spec, train_set)  # doctest: +SKIP
    """
    return convert_(calibrate_(prepare_(model, spec), data, max_images=max_images))


def spec_of(model: nn.Module) -> QuantSpec | None:
    """The spec that a model was prepared with; None for a full-precision model."""
    spec = model.__dict__.get("quantization")
    return spec if isinstance(spec, QuantSpec) else None


def is_converted(model: nn.Module) -> bool:
    """Whether `convert` has written the quantized weights in place (also true if the spec quantizes no weights)."""
    return spec_of(model) is not None and next(weight_quantizers(model), None) is None


def weight_quantizers(model: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Name of each layer whose weight is fake-quantized, and its quantizer."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for quantizer in module.parametrizations["weight"]:  # type: ignore[index]
                if isinstance(quantizer, Quantizer):
                    yield name, quantizer


def integer_weights(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Codes (int32, the weight's shape; 0 is the lowest level) and levels [groups, L] of a prepared model's layers."""
    result = {}
    for name, quantizer in weight_quantizers(model):
        weight = _original(model.get_submodule(name)).detach()
        result[name] = (quantizer.codes(weight), quantizer.levels())
    return result


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ModelError(
            f"cannot copy {type(model).__name__}: {error}; use the in-place verb on a fresh model"
        ) from error


def _own_class_(layer: nn.Module) -> None:
    """Detach a parametrized layer from the class that its deep copies share.

    torch injects a class with the property `weight` and deletes that property when the parametrization is removed,
    which would break every copy of the layer.
    """
    shared = type(layer)
    content = {key: value for key, value in shared.__dict__.items() if key not in ("__dict__", "__weakref__")}
    layer.__class__ = type(shared.__name__, shared.__bases__, content)  # pyright: ignore[reportAttributeAccessIssue]


def _check_weights(model: nn.Module, choices: list[Choice]) -> None:
    for choice in choices:
        if choice.target != "weights":
            continue
        weight = model.get_submodule(choice.name).weight
        bad = int((~torch.isfinite(weight)).sum())  # type: ignore[arg-type]
        if bad:
            raise ModelError(
                f"weights must be finite, {choice.name!r} has {bad} NaN or infinite values; "
                "the training diverged: go back to an earlier checkpoint"
            )


def _membrane(model: nn.Module, choice: Choice) -> Membrane:
    setting = choice.setting
    assert isinstance(setting, UniformMembrane)
    channels = 1
    if setting.granularity == "channel":
        channels = _channels_before(model, choice.name)
    return Membrane(membrane_quantizer(setting, channels), setting.placement)


def _channels_before(model: nn.Module, name: str) -> int:
    """Channels of a layer of neurons: those of the last weighted layer or norm defined before it."""
    channels = None
    for other, module in model.named_modules():
        if other == name:
            break
        for attribute in ("num_features", "out_channels", "out_features"):
            channels = getattr(module, attribute, channels)
    if not isinstance(channels, int):
        raise SpecError(f"cannot tell the channels of neuron {name!r}; use granularity 'tensor' for it")
    return channels


def _attach_weight_quantizer_(model: nn.Module, choice: Choice) -> None:
    assert choice.setting is not None
    assert not isinstance(choice.setting, UniformMembrane)
    layer = model.get_submodule(choice.name)
    temporal = isinstance(choice.setting, TaWQWeights)
    if temporal:
        layer = make_temporal_(model, choice.name)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    quantizer = weight_quantizer(choice.setting, weight).to(weight.device)
    # parametrize runs the quantizer once to check its result: it must be ready, and must not learn from that run
    with torch.no_grad():
        quantizer.calibrate(weight)
        parametrize.register_parametrization(layer, "weight", quantizer, unsafe=temporal)


def _original(module: nn.Module) -> Tensor:
    return module.parametrizations["weight"].original  # type: ignore[index,union-attr]


def _has_fixed_range(membrane: Membrane) -> bool:
    return isinstance(membrane.quantizer, Uniform) and membrane.quantizer.rule is None


def _observe_membranes_(membranes: list[Membrane]) -> list[RangeObserver]:
    observers = []
    for membrane in membranes:
        quantizer = membrane.quantizer
        membrane.observer = RangeObserver(quantizer.granularity, channel_axis=1)
        observers.append(membrane.observer)
    return observers


def _inputs(data: Data | Tensor | None, max_images: int) -> Iterator[Tensor]:
    assert data is not None
    if isinstance(data, Tensor):
        yield from data[:max_images].split(CALIBRATION_BATCH)
        return
    for inputs, _ in read_batches(data, CALIBRATION_BATCH, max_images):
        yield inputs
