"""Rounding what neurons and layers hold beside weights and membranes: decays, thresholds, biases."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.errors import ModelError, SpecError
from isofire.neurons import Neuron
from isofire.quantization.contract import try_round
from isofire.quantization.plan import LayerAssignment, QuantPlan
from isofire.quantizers import ConstantSetting
from isofire.quantizers.ste import plain


class RoundedBias(nn.Module):
    """The parametrization of a bias: rounded, with a straight-through gradient."""

    def __init__(self, setting: ConstantSetting) -> None:
        super().__init__()
        self.setting = setting

    def forward(self, bias: Tensor) -> Tensor:
        return plain(bias, self.setting.round(bias.detach()))

    def extra_repr(self) -> str:
        return self.setting.describe()


def round_constants_(model: nn.Module, plan: QuantPlan, undo: ExitStack) -> None:
    """Round decays, then thresholds; they stay rounded. `undo` gives the old ones back.

    Raises
    ------
    SpecError
        If neurons could not fire with what they are given, or their decays are learned and thresholds should follow.
    """
    for choice in (*plan.chosen("decays"), *plan.chosen("thresholds")):
        neuron = model.get_submodule(choice.name)
        assert isinstance(neuron, Neuron)
        undo.callback(_restore, neuron, dict(neuron.__dict__), dict(neuron._buffers))
        try:
            (_round_decays_ if choice.target == "decays" else _round_threshold_)(choice, neuron)
        except SpecError as error:
            raise SpecError(f"{choice.target} of {choice.name!r} (rule {choice.rule!r}): {error}") from error


def attach_biases_(model: nn.Module, plan: QuantPlan, undo: ExitStack) -> None:
    """Round biases in every forward pass, as weights are; converting makes them lasting.

    Raises
    ------
    ModelError
        If a bias is computed from other parameters, or what it is rounded to is no such bias.
    """
    for choice in plan.chosen("biases"):
        layer = model.get_submodule(choice.name)
        bias = layer._parameters.get("bias")
        if bias is None:
            raise ModelError(f"the bias of {choice.name!r} is computed from others; make that lasting first")
        try_round(choice, bias.detach())
        _tell_cut(choice, bias.detach())
        parametrize.register_parametrization(layer, "bias", RoundedBias(choice.of(ConstantSetting)), unsafe=True)
        undo.callback(parametrize.remove_parametrizations, layer, "bias", leave_parametrized=False)


def rounded_biases(model: nn.Module) -> Iterator[str]:
    """Name of each layer whose bias is rounded in its forward pass."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "bias"):
            parts = module.parametrizations["bias"]  # type: ignore[index]
            if any(isinstance(part, RoundedBias) for part in parts):
                yield name


def _round_decays_(choice: LayerAssignment, neuron: Neuron) -> None:
    setting = choice.of(ConstantSetting)
    before = neuron.response()
    if setting.corrects_gain and before is None:
        raise SpecError(
            "gain = 'l2' needs decays that are known and not learned, whose thresholds could not follow; take gain = "
            "'keep'"
        )
    for state, share in neuron.decays().items():
        try_round(choice, share, synapse=state == "synapse")
    neuron.round_decays_(partial(_rounded, setting))
    if setting.corrects_gain:
        after = neuron.response()
        assert before is not None
        assert after is not None
        # what can no longer be moved keeps its threshold
        ratio = torch.where(after > 0, after / before, torch.ones_like(after))
        rest = neuron.dynamics.rest
        neuron.set_threshold_(rest + (neuron.threshold.double() - rest) * ratio.to(neuron.threshold.device))


def _rounded(setting: ConstantSetting, state: str, share: Tensor) -> Tensor:
    return setting.round(share, synapse=state == "synapse")


def _round_threshold_(choice: LayerAssignment, neuron: Neuron) -> None:
    setting, threshold, rest = choice.of(ConstantSetting), neuron.threshold.detach(), neuron.dynamics.rest
    reach = setting.reach
    if reach is not None and float(threshold.abs().max()) > reach:
        raise SpecError(
            f"a threshold of {float(threshold.abs().max()):g} lies beyond what {setting.describe()} holds, "
            f"less than {reach:g}, and would be cut off; give more bits, or fewer of them to the fraction"
        )
    rounded = try_round(choice, threshold)
    if bool((low := rounded <= rest).any()):
        raise SpecError(
            f"a threshold of {float(threshold[low].max()):g} rounds to {float(rounded[low].max()):g}, which a membrane "
            f"at rest ({rest:g}) has reached without input; give more bits, or more of them to the fraction"
        )
    neuron.set_threshold_(rounded)


def _tell_cut(choice: LayerAssignment, bias: Tensor) -> None:
    """Warn of biases that are cut off and not rounded."""
    reach = choice.of(ConstantSetting).reach
    if reach is not None and (beyond := int((bias.abs() > reach).sum())):
        warnings.warn(
            f"{beyond} of {bias.numel()} biases of {choice.name!r} (rule {choice.rule!r}) lie beyond what "
            f"{choice.of(ConstantSetting).describe()} holds, less than {reach:g}, and are cut off, the largest of them "
            f"{float(bias.abs().max()):g}; give more bits, or fewer of them to the fraction",
            stacklevel=2,
        )


def _restore(neuron: Neuron, attributes: dict[str, object], buffers: dict[str, Tensor | None]) -> None:
    neuron.__dict__.update(attributes)
    neuron._buffers.update(buffers)
