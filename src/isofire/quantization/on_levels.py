"""Whether a converted network still is what its spec says: training it, or loading other weights, takes it off."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.quantization.constants import rounded_biases
from isofire.quantization.contract import try_round
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.plan import make_plan
from isofire.quantization.verbs import spec_of
from isofire.quantizers import WeightSetting

_CHANGED = (
    "they were changed after they were quantized, as by training or by loading others; train the prepared network, and "
    "convert it then"
)


def require_levels(model: nn.Module) -> None:
    """Check that the weights and biases of a converted model are in the bits of its spec; any other model passes.

    Raises
    ------
    ModelError
        If a layer has more values than levels, or biases that its setting would round to others.
    """
    spec = spec_of(model)
    if spec is None or any(True for _ in weight_quantizers(model)) or any(True for _ in rounded_biases(model)):
        return
    plan = make_plan(model, spec)
    for choice in plan.chosen("weights"):
        weight, setting = model.get_submodule(choice.name).weight, choice.of(WeightSetting)
        assert isinstance(weight, Tensor)
        for step in (weight,) if setting.time_steps is None else weight:
            require_levels_of(choice.name, step.detach(), setting)
    for choice in plan.chosen("biases"):
        bias = model.get_submodule(choice.name).bias
        assert isinstance(bias, Tensor)
        rounded = try_round(choice, bias.detach())
        # of a method whose values move when rounded again nothing is known
        if not torch.equal(rounded, bias) and torch.equal(try_round(choice, rounded), rounded):
            raise ModelError(
                f"the biases of {choice.name!r} are no values of {choice.setting.describe()}: {_CHANGED}"  # type: ignore[union-attr]
            )


def require_levels_of(name: str, weight: Tensor, setting: WeightSetting) -> None:
    """Raise ModelError if there are more values than levels."""
    most = max(int((row.sort().values.diff() != 0).sum()) + 1 for row in rows_of_levels(weight, setting))
    if most > 2**setting.stored_bits:
        raise ModelError(
            f"the weights of {name!r} have {most} values where {setting.describe()} has {2**setting.stored_bits} "
            f"levels at most: {_CHANGED}"
        )


def rows_of_levels(weight: Tensor, setting: WeightSetting) -> Tensor:
    """Weights that share levels, a row each."""
    return weight.flatten(1) if setting.level_granularity == "channel" else weight.reshape(1, -1)
