"""The verbs, prepare, calibrate, (train), convert, in this order; and `quantize_`, which does all after training."""

from __future__ import annotations

import math
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from isofire.adapters import copy_of, is_integer
from isofire.batches import Data
from isofire.errors import ModelError
from isofire.quantization.attach import attach_, attach_converted_, remove_quantizer_
from isofire.quantization.by_firing.sequence import OnStep
from isofire.quantization.calibration import (
    CALIBRATION_IMAGES,
    calibrate_model_,
    require_data,
)
from isofire.quantization.constants import rounded_biases
from isofire.quantization.contract import try_weights
from isofire.quantization.fake_weights import original, weight_quantizers
from isofire.quantization.full_precision import require_full_precision
from isofire.quantization.kept_levels import keep_levels_
from isofire.quantization.left_out import tell_left_out
from isofire.quantization.parted import tell_parted
from isofire.quantization.plan import QuantPlan, make_plan
from isofire.quantization.unchanged import unchanged_on_failure
from isofire.quantizers import WeightSetting
from isofire.running import evaluating, require_module
from isofire.spec import QuantSpec

_SPEC = "_isofire_spec"
"""Attribute of a prepared model; no name that a network of the user's own could have."""


@torch.inference_mode(False)
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
    return prepare_(copy_of(model), spec)


@torch.inference_mode(False)
def prepare_(model: nn.Module, spec: QuantSpec) -> nn.Module:
    """`prepare` in place; a model that cannot be prepared is left as it was."""
    _refuse_prepared(model)
    plan = make_plan(model, spec)
    tell_left_out(model, plan)
    tell_parted(model, plan)
    _prepare_(model, spec, plan)
    return model


@torch.inference_mode(False)
def calibrate(
    model: nn.Module, data: Data | Tensor | None = None, *, max_images: int = CALIBRATION_IMAGES
) -> nn.Module:
    """A copy of a prepared model with ranges, steps and bases chosen; see `calibrate_`."""
    return calibrate_(copy_of(model), data, max_images=max_images)


@torch.inference_mode(False)
def calibrate_(
    model: nn.Module,
    data: Data | Tensor | None = None,
    *,
    max_images: int = CALIBRATION_IMAGES,
    on_step: OnStep | None = None,
) -> nn.Module:
    """Choose every quantizer's range from the weights and, for membranes, from the states that `data` evokes.

    In this order: weight quantizers; batch-norm statistics (as `spec.reestimate_bn` says) and membrane ranges, both
    with quantized weights and full-precision membranes; batch-norm statistics again if "always". A spec with a method
    that keeps the firing (`gptq`, `firing`) or with `correct` is calibrated layer by layer from input to output
    instead, each layer on what the quantized ones before it deliver, on the first images, see `calibrated_on`.

    Parameters
    ----------
    data
        An image set, (inputs, labels), batches, or inputs alone. None is enough if nothing is estimated from data.
    max_images
        How many of them to use, at most; layer by layer 256, and as many as keep a layer's inputs below 512 MiB.
    on_step
        Called with what was done to each layer, as it is done, where layers are calibrated one after the other.

    Raises
    ------
    ModelError
        If the model was not prepared; where layers are calibrated one after the other, if it was calibrated before.
    SpecError
        If data is needed and None was given, or `max_images` is no whole number of at least 1.
    """
    spec = spec_of(model)
    if spec is None:
        raise _unprepared(model, "calibrate", "call prepare(model, spec) first")
    plan = make_plan(model, spec)
    require_data(model, spec, plan, data)
    require_full_precision(model, spec, plan)
    calibrate_model_(model, spec, plan, data, max_images, on_step)
    return model


@torch.inference_mode(False)
def convert(model: nn.Module) -> nn.Module:
    """A copy of a prepared, calibrated model with its quantized weights written in place of the full-precision ones.

    The copy is in eval mode and holds no parametrization; membrane quantizers stay, as part of its neurons.

    Raises
    ------
    ModelError
        If the model was not prepared, or quantized weights are not finite or on none of their quantizer's levels.
    """
    return convert_(copy_of(model))


@torch.inference_mode(False)
def convert_(model: nn.Module) -> nn.Module:
    """`convert` in place; a model that cannot be converted is left as it was."""
    return _convert_(model, tried=False)


def _unprepared(model: nn.Module, verb: str, cure: str) -> ModelError:
    """Of a model without a spec, or with one of a part alone."""
    part = next(iter(quantized_parts(model)), None)
    if part is not None:
        cure = f"its part {part!r} is one: {verb}_(model.get_submodule({part!r}))"
    return ModelError(f"{verb} needs a prepared model; {cure}")


def _convert_(model: nn.Module, *, tried: bool) -> nn.Module:
    """`tried`: the quantizers have been tried on these very weights."""
    spec = spec_of(model)
    if spec is None:
        raise _unprepared(model, "convert", "call prepare(model, spec) and calibrate first")
    with evaluating(model):
        plan = make_plan(model, spec)
        weights, biases = _weights_to_write(model, plan, tried), _biases_to_write(model)
    model.eval()
    # nothing fails from here on
    for name, weight in weights.items():
        layer = model.get_submodule(name)
        _own_class_(layer)
        remove_quantizer_(layer)
        layer.weight = weight
    for choice in plan.chosen("weights"):
        if choice.name in weights:
            keep_levels_(model.get_submodule(choice.name), choice.of(WeightSetting))
    for name, bias in biases.items():
        layer = model.get_submodule(name)
        _own_class_(layer)
        parametrize.remove_parametrizations(layer, "bias", leave_parametrized=False)
        layer.bias = bias
    return model


@torch.inference_mode(False)
def quantize_(
    model: nn.Module,
    spec: QuantSpec,
    data: Data | Tensor | None = None,
    *,
    max_images: int = CALIBRATION_IMAGES,
    on_step: OnStep | None = None,
) -> nn.Module:
    """Quantize a trained model in place: prepare, calibrate, convert; returned in eval mode.

    Parameters
    ----------
    data
        Some training images, as in `calibrate_`: batch-norm statistics are re-estimated on them unless the spec says
        "never", and estimated membrane ranges need them.
    on_step
        As in `calibrate_`.

    Raises
    ------
    ModelError, SpecError
        As `prepare` and `calibrate_`; the model is left as it was then.

    Examples
    --------
    >>> spec = QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4, "placement": "post_reset"})
    >>> isofire.quantize_(model, spec, train_set)  # doctest: +SKIP
    """
    _refuse_prepared(model)
    plan = make_plan(model, spec)
    require_data(model, spec, plan, data)
    tell_left_out(model, plan)
    tell_parted(model, plan)
    with _prepare_(model, spec, plan) as undo, unchanged_on_failure(model.modules()):
        calibrate_model_(model, spec, plan, data, max_images, on_step)
        _convert_(model, tried=True)
        undo.pop_all()
    return model


def spec_of(model: nn.Module) -> QuantSpec | None:
    """The spec that a model was prepared with; None for a full-precision model."""
    spec = model.__dict__.get(_SPEC)
    return spec if isinstance(spec, QuantSpec) else None


def quantized_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> module of what was quantized by a spec of its own; the whole network is called ""."""
    return {name: part for name, part in model.named_modules() if spec_of(part) is not None}


def note_spec_(model: nn.Module, spec: QuantSpec | None) -> None:
    """Have `spec_of` give the spec of a network that was made from a quantized one; None: of one in full precision."""
    if spec is not None:
        model.__dict__[_SPEC] = spec


def is_quantized(model: nn.Module) -> bool:
    """Whether a model was quantized, or is one of whole numbers, whatever it was made from."""
    return spec_of(model) is not None or is_integer(model)


def is_converted(model: nn.Module) -> bool:
    """Whether `convert` has written the quantized weights in place (also true if the spec quantizes no weights)."""
    attached = next(weight_quantizers(model), None) or next(rounded_biases(model), None)
    return spec_of(model) is not None and attached is None


def require_trainable(model: nn.Module) -> None:
    """Raise ModelError for a converted model with quantized weights or biases: training would take them off their
    levels, and it would still be told of as quantized."""
    spec = spec_of(model)
    if spec is None or not is_converted(model):
        return
    plan = make_plan(model, spec)
    if layers := [choice.name for choice in (*plan.chosen("weights"), *plan.chosen("biases"))]:
        raise ModelError(
            f"the quantized weights of {', '.join(dict.fromkeys(layers))} are written in, and training would take them "
            "off their levels; train what prepare and calibrate give, and convert it then"
        )


@torch.inference_mode(False)
def restore_(model: nn.Module, spec: QuantSpec, *, converted: bool) -> nn.Module:
    """A full-precision model made ready to take the state dict of a prepared or converted one."""
    if not converted:
        _refuse_prepared(model)
        _prepare_(model, spec, make_plan(model, spec))
        return model
    attach_converted_(model, make_plan(model, spec))
    model.__dict__[_SPEC] = spec
    return model.eval()


def _refuse_prepared(model: nn.Module) -> None:
    require_module(model)
    if (part := next(iter(quantized_parts(model)), None)) is not None:
        where = f"its part {part!r}" if part else "this model"
        raise ModelError(f"{where} is already prepared or quantized; start again from the full-precision one")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not is_lazy(tensor) and tensor.is_inference():
            raise ModelError(
                f"{name!r} was made inside torch.inference_mode, so torch allows no further change; build or load "
                "the network outside of it"
            )


def _prepare_(model: nn.Module, spec: QuantSpec, plan: QuantPlan) -> ExitStack:
    """Attach what the plan says; closing what it returns gives the full-precision model back."""
    undo = attach_(model, plan)
    model.__dict__[_SPEC] = spec
    undo.callback(model.__dict__.pop, _SPEC)
    return undo


@torch.no_grad()
def _weights_to_write(model: nn.Module, plan: QuantPlan, tried: bool) -> dict[str, nn.Parameter]:
    """The levels of each quantized layer as a new parameter.

    The full-precision one may belong to other layers too, which keep it. Layers that share it and their quantizer share
    the new one.
    """
    chosen = {choice.name: choice for choice in plan.chosen("weights")}
    made: dict[tuple[int, ...], nn.Parameter] = {}
    found = {}
    for name, quantizer in weight_quantizers(model):
        layer, full = model.get_submodule(name), original(model.get_submodule(name))
        key = id(full), *map(id, layer.parametrizations["weight"])  # type: ignore[index]
        if key not in made:
            weight = layer.weight.detach().clone()  # type: ignore[operator, union-attr]
            if name in chosen and not (tried and math.isfinite(weight.sum().item())):
                try_weights(chosen[name], quantizer, full, weight)
            made[key] = nn.Parameter(weight, requires_grad=full.requires_grad)
        found[name] = made[key]
    return found


@torch.no_grad()
def _biases_to_write(model: nn.Module) -> dict[str, nn.Parameter]:
    """Each layer's rounded bias as a new parameter; layers that share one share the new one."""
    made: dict[tuple[int, str], nn.Parameter] = {}
    found = {}
    for name in rounded_biases(model):
        layer = model.get_submodule(name)
        held = layer.parametrizations["bias"]  # type: ignore[index]
        full, setting = held.original, held[0].setting  # type: ignore[union-attr, index]
        key = id(full), setting.describe()
        if key not in made:
            made[key] = nn.Parameter(layer.bias.detach().clone(), requires_grad=full.requires_grad)  # type: ignore[operator, union-attr]
        found[name] = made[key]
    return found


def _own_class_(layer: nn.Module) -> None:
    """Detach a parametrized layer from the class that its deep copies share.

    torch injects a class with the property `weight` and deletes that property when the parametrization is removed,
    which would break every copy of the layer.
    """
    shared = type(layer)
    content = {key: value for key, value in shared.__dict__.items() if key not in ("__dict__", "__weakref__")}
    layer.__class__ = type(shared.__name__, shared.__bases__, content)  # pyright: ignore[reportAttributeAccessIssue]
