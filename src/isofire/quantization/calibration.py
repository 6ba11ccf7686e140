"""Choosing every quantizer's range, step or basis, and measuring batch norm anew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from isofire.adapters import adapter_of, axis_by, from_rest, input_axis
from isofire.batches import Data, read_batches, require_count
from isofire.errors import ModelError, SpecError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.by_firing.images import MOST_IMAGES
from isofire.quantization.by_firing.sequence import ByLayer, OnStep
from isofire.quantization.can_fire import check_can_fire
from isofire.quantization.contract import own_code, try_states, try_weights
from isofire.quantization.diagnosis.clipped import tell_clipped
from isofire.quantization.fake_weights import original, weight_quantizers
from isofire.quantization.order import tell_sorted
from isofire.quantization.own_forward import weights_used_as_they_are
from isofire.quantization.plan import LayerAssignment, QuantPlan, make_plan
from isofire.quantization.reestimate import reestimate_batch_norm
from isofire.quantization.shared_scale import require_scales, weight_scale
from isofire.quantization.silent import name_silent
from isofire.quantization.token_levels import tell_tokens
from isofire.quantization.unchanged import unchanged_on_failure
from isofire.quantization.what_fires import note_what_fires_
from isofire.quantizers import MembraneSetting, RangeObserver, WeightSetting
from isofire.quantizers.methods.levels import LevelsMembrane
from isofire.running import device_of, evaluating, forked, forward, statistics_of
from isofire.spec import QuantSpec

CALIBRATION_IMAGES = 1024
CALIBRATION_BATCH = 128
_CALIBRATED_ON = "_isofire_calibrated_on"


def require_data(model: nn.Module, spec: QuantSpec, plan: QuantPlan, data: object) -> None:
    """Raise SpecError if something is to be estimated from data and there is none."""
    if data is not None:
        return
    if calibrates_by_layer(spec, plan):
        raise SpecError(
            "levels, roundings and corrections that keep the firing are chosen by running the network: pass data (some "
            "training images)"
        )
    anew = _reestimates(model, spec, plan)
    if anew or _estimated(plan):
        raise SpecError(
            f"{'batch-norm statistics' if anew else 'membrane ranges'} are estimated from data: pass data "
            "(some training images), or set reestimate_bn = 'never' and fixed membrane ranges"
        )


def calibrated_on(model: nn.Module) -> int | None:
    """How many images a model was calibrated on layer by layer in this process; None if it was not."""
    return model.__dict__.get(_CALIBRATED_ON)


def calibrates_by_layer(spec: QuantSpec, plan: QuantPlan) -> bool:
    """Whether layers are calibrated one after the other, each by what it then does."""
    settings = [choice.setting for choice in plan.choices]
    return spec.correct != "never" or any(
        (isinstance(setting, WeightSetting) and setting.compensates)
        or (isinstance(setting, MembraneSetting) and setting.chosen_by_firing)
        for setting in settings
    )


def calibrate_model_(
    model: nn.Module,
    spec: QuantSpec,
    plan: QuantPlan,
    data: Data | Tensor | None,
    max_images: int,
    on_step: OnStep | None = None,
) -> None:
    """Weight quantizers; then batch norm and membrane ranges, with full-precision membranes; see `calibrate_`.

    Where the spec asks for it, all of that layer by layer, see `isofire.quantization.by_firing`.
    """
    require_count("max_images", max_images)
    membranes = [module for module in model.modules() if isinstance(module, MembraneQuantizer)]
    quantizers = [quantizer for _, quantizer in weight_quantizers(model)] + [m.quantizer for m in membranes]
    touched = [part for item in quantizers for part in item.modules()]
    touched += [module for module in model.modules() if isinstance(module, _NormBase)]
    by_layer = calibrates_by_layer(spec, plan)
    chosen = {choice.name: choice for choice in plan.chosen("weights")}
    model.__dict__.pop(_CALIBRATED_ON, None)
    if by_layer:
        # weights and biases too
        touched = list(dict.fromkeys([*touched, *model.modules()]))
    with unchanged_on_failure(touched):
        for name, quantizer in weight_quantizers(model):
            weight = original(model.get_submodule(name))
            if (choice := chosen.get(name)) is None:
                quantizer.calibrate(weight)
                continue
            with own_code(choice, quantizer, "calibrate"):
                quantizer.calibrate(weight)
            try_weights(choice, quantizer, weight)
        if data is None:
            return
        with weights_used_as_they_are(model, [name for name, _ in weight_quantizers(model)]):
            if by_layer:
                labels: list[Tensor] = []
                batches = list(calibration_batches(model, data, min(max_images, MOST_IMAGES), labels))
                tell_sorted(labels, data, by_batch=False)
                anew = _reestimates(model, spec, plan)
                require_scales(model, [c.name for c in plan.chosen("membrane") if _shares_scale(c)], batches[0])
                # layers are run by themselves too, with the norms and quantizers that they apply
                work = ByLayer(model, plan.choices, batches, correct=spec.correct == "bias", reestimate=anew)
                with evaluating(model):
                    work.run(on_step)
                # they were rounded
                for name, quantizer in weight_quantizers(model):
                    if name in chosen:
                        try_weights(chosen[name], quantizer, original(model.get_submodule(name)))
                model.__dict__[_CALIBRATED_ON] = work.images
                note_what_fires_(model)
                tell_tokens(model, batches[:1])
                if _given(plan):
                    tell_clipped(model, batches[0])
            else:
                _calibrate_on_data_(model, spec, plan, membranes, data, max_images)
        _refuse_grown(model, spec, plan)


def _refuse_grown(model: nn.Module, spec: QuantSpec, plan: QuantPlan) -> None:
    """Raise ModelError for layers that the network has made in its first forward pass: they have no quantizer, and
    would be told of as if they had."""
    known = {(choice.name, choice.target) for choice in plan.choices}
    grown = [choice.name for choice in make_plan(model, spec).choices if (choice.name, choice.target) not in known]
    if grown:
        raise ModelError(
            f"{type(model).__name__} made its layers {', '.join(dict.fromkeys(grown))} in its first forward pass, when "
            "the spec had been resolved; they are there now, so quantize it once more"
        )


def _calibrate_on_data_(
    model: nn.Module,
    spec: QuantSpec,
    plan: QuantPlan,
    membranes: list[MembraneQuantizer],
    data: Data | Tensor,
    max_images: int,
) -> None:
    estimated, anew, first = _estimated(plan), _reestimates(model, spec, plan), _First()
    again = anew and spec.reestimate_bn == "always" and bool(membranes)
    if again and (sharing := [choice for choice in estimated if _shares_scale(choice)]):
        raise SpecError(
            f"the membranes of {sharing[0].name!r} share the scale of weights and norms, which reestimate_bn = "
            "'always' moves after it was taken; use reestimate_bn = 'weights'"
        )
    passes = anew + bool(estimated) + again
    if passes > 1 and isinstance(data, Iterator):
        raise SpecError(
            f"calibration walks through the data {passes} times, but an iterator can be used once; "
            "pass a list of batches, (inputs, labels) or an image set"
        )
    with evaluating(model), from_rest(model), torch.no_grad():
        try:
            for membrane in membranes:
                membrane.passes = True
            if anew:
                reestimate_batch_norm(model, first.of(model, data, max_images))
            if estimated:
                for choice in estimated:
                    _observe_(membrane_of(model, choice))
                inputs = torch.empty(0)
                for inputs in first.of(model, data, max_images):
                    forward(model, inputs)
                # last those that run the network once more, which observers would take for data
                for choice in sorted(estimated, key=_shares_scale):
                    _fit_membrane_(model, choice, inputs)
        finally:
            for membrane in membranes:
                membrane.observer, membrane.passes = None, False
        if again:
            reestimate_batch_norm(model, calibration_batches(model, data, max_images))
        if not passes and next(weight_quantizers(model), None):
            # nothing is measured; how the network uses its weights is looked at all the same, on every image: a branch
            # may be taken by some only
            _try_(model, first.of(model, data, max_images))
        elif not passes and _given(plan):
            with forked(device_of(model)):
                next(first.of(model, data, max_images), None)
        if not passes:
            # sorted images make nothing wrong
            first.labels = []
    tell_sorted(first.labels, data, by_batch=anew)
    name_silent(model, first.kept)
    tell_tokens(model, first.kept)
    if _given(plan):
        for inputs in first.kept:
            tell_clipped(model, inputs)


def _given(plan: QuantPlan) -> bool:
    """Whether membranes have levels by number, which nothing has fitted to their states."""
    return any(isinstance(choice.setting, LevelsMembrane) for choice in plan.chosen("membrane"))


class _First:
    """Keeps the first of some batches that go by, and the labels of all."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.labels: list[Tensor] = []

    def of(self, model: nn.Module, data: Data | Tensor, max_images: int) -> Iterator[Tensor]:
        """`calibration_batches`."""
        self.labels = []
        for inputs in calibration_batches(model, data, max_images, self.labels):
            self.kept = self.kept or [inputs]
            yield inputs


def _try_(model: nn.Module, batches: Iterator[Tensor]) -> None:
    """Forward passes; they draw no random numbers, nor do the data."""
    with forked(device_of(model)):
        for inputs in batches:
            forward(model, inputs)


def _shares_scale(choice: LayerAssignment) -> bool:
    return isinstance(choice.setting, MembraneSetting) and choice.setting.shares_scale


def _fit_membrane_(model: nn.Module, choice: LayerAssignment, inputs: Tensor) -> None:
    membrane, setting = membrane_of(model, choice), choice.of(MembraneSetting)
    assert membrane.observer is not None
    if not membrane.observer.count:
        raise ModelError(
            f"neuron {choice.name!r} is not called in eval mode, so no range can be estimated for its membrane; leave "
            f"it float by a rule {{match = {choice.name!r}, membrane = 'float'}}, or give it a fixed range"
        )
    if setting.shares_scale:
        scale = weight_scale(model, choice.name, inputs)
        with own_code(choice, setting, "take_scale"):
            setting.take_scale(membrane.quantizer, scale)
        try_states(choice, membrane.quantizer, membrane.observer)
        return
    with own_code(choice, setting, "calibrate"):
        setting.calibrate(membrane.quantizer, membrane.observer)
    try_states(choice, membrane.quantizer, membrane.observer)
    low, high = membrane.observer.extremes().unbind(1)
    check_can_fire(model, choice, membrane.quantizer, (low, high))


def reestimates(model: nn.Module, spec: QuantSpec) -> bool:
    """Whether quantizing by the spec measures batch norm anew."""
    return _reestimates(model, spec, make_plan(model, spec))


def _reestimates(model: nn.Module, spec: QuantSpec, plan: QuantPlan) -> bool:
    weights = bool(plan.chosen("weights"))
    return bool(statistics_of(model)) and (
        spec.reestimate_bn == "always" or (spec.reestimate_bn == "weights" and weights)
    )


def _estimated(plan: QuantPlan) -> list[LayerAssignment]:
    """Layers of neurons whose levels are chosen from data."""
    return [
        choice
        for choice in plan.chosen("membrane")
        if isinstance(choice.setting, MembraneSetting) and choice.setting.is_estimated
    ]


def membrane_of(model: nn.Module, choice: LayerAssignment) -> MembraneQuantizer:
    neuron = model.get_submodule(choice.name)
    adapter = adapter_of(neuron)
    membrane = None if adapter is None else adapter.membrane(neuron)
    assert membrane is not None
    return membrane


def _observe_(membrane: MembraneQuantizer) -> None:
    membrane.observer = RangeObserver(membrane.quantizer.granularity, channel_axis=1)
    membrane.passes = False


def calibration_batches(
    model: nn.Module, data: Data | Tensor, max_images: int, seen: list[Tensor] | None = None
) -> Iterator[Tensor]:
    """Inputs of the first `max_images` images, where the model lives; their labels, if there are any, go to `seen`."""
    place = device_of(model)
    if isinstance(data, Tensor):
        axis = input_axis(model, data)
        for inputs in data.narrow(axis, 0, min(max_images, data.shape[axis])).split(CALIBRATION_BATCH, axis):
            yield inputs.to(place)
        return
    for inputs, labels in read_batches(data, CALIBRATION_BATCH, max_images, axis_by(model)):
        if seen is not None:
            seen.append(labels)
        yield inputs.to(place)
