"""Whether a converted network still is what its spec says: training it, or loading other weights, takes it off."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from isofire.adapters import has_compiled, is_integer
from isofire.errors import ModelError
from isofire.quantization.constants import rounded_biases
from isofire.quantization.contract import try_round
from isofire.quantization.even_levels import is_on_a_grid, on_grids
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.kept_levels import (
    distinct,
    keep_levels_,
    kept_levels,
    off_levels,
    on_other_rows,
    rows_of_levels,
)
from isofire.quantization.plan import LayerAssignment, make_plan
from isofire.quantization.verbs import spec_of
from isofire.quantizers import WeightSetting

_ON_PURPOSE = "_isofire_changed_on_purpose"
_CHANGED = (
    "they were changed after they were quantized, as by training or by loading others (or copying them in; a state "
    "dict brings their levels along); train the prepared network, and convert it then"
)


def require_levels(model: nn.Module, *, but_changed: bool = False) -> None:
    """Check that the weights and biases of a converted model, or of converted parts of one, are in the bits of its
    spec; any other model passes, and with `but_changed` so does a copy that was changed on purpose (`leave_levels_`).

    Raises
    ------
    ModelError
        If a layer has more values than levels, weights on none of the levels that they were written on, or biases that
        its setting would round to others.
    """
    for choice, layer in _converted(model, but_changed=but_changed):
        if choice.target == "weights":
            require_levels_of(choice.name, layer, choice.of(WeightSetting))
            continue
        bias = layer.bias
        assert isinstance(bias, Tensor)
        rounded = try_round(choice, bias.detach())
        # of a method whose values move when rounded again nothing is known
        if not torch.equal(rounded, bias) and torch.equal(try_round(choice, rounded), rounded):
            raise ModelError(
                f"the biases of {choice.name!r} are no values of {choice.setting.describe()}: {_CHANGED}"  # type: ignore[union-attr]
            )


def require_levels_of(name: str, layer: nn.Module, setting: WeightSetting) -> None:
    """Raise ModelError if the layer's weights are not on levels of its setting."""
    if (told := _off_levels(layer, setting)) is not None:
        raise ModelError(f"the weights of {name!r} {told}: {_CHANGED}")


def leave_levels_(model: nn.Module) -> None:
    """Say that a copy of a quantized network is changed on purpose, so that it may run beside what it is a copy of.

    It stays none that has the bits of its spec: costs and files go on refusing what is off them.
    """
    for part in model.modules():
        if spec_of(part) is not None:
            part.__dict__[_ON_PURPOSE] = True


def keep_levels_of_file_(model: nn.Module) -> None:
    """Keep the levels of a converted model's weights, which come from a file that says that they are quantized so."""
    for choice, layer in _converted(model):
        if choice.target == "weights" and _off_levels(layer, choice.of(WeightSetting)) is None:
            keep_levels_(layer, choice.of(WeightSetting))


def _off_levels(layer: nn.Module, setting: WeightSetting) -> str | None:
    """What is wrong with its weights; None if nothing is."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows, bits = rows_of_levels(weight.detach(), setting), setting.stored_bits
    if not bool(rows.isfinite().all()):
        return "are not all finite"
    found = distinct(rows)
    if (most := int(found.count.max())) > 2**bits:
        return f"have {most} values where {setting.describe()} has {2**bits} levels at most"
    kept = kept_levels(layer)
    if kept is None or len(kept.levels) != len(rows):
        return (
            None if is_on_a_grid(found.values, setting) else f"are on no even levels as those of {setting.describe()}"
        )
    if kept.bits != bits:
        return f"were quantized to {kept.bits} bits, where {setting.describe()} has {bits}"
    off = _off(found.values, kept.levels, setting)
    count = int(off.gather(1, found.places).sum()) if bool(off.any()) else 0
    told = f"are off the levels that they were quantized to, {count} of {rows.numel()} ({setting.describe()})"
    return told if count else None


def _off(values: Tensor, levels: Tensor, setting: WeightSetting) -> Tensor:
    """Which values are off the levels of their row, and of any other that it may have been given in its place: one on a
    grid of the setting's, as a network of the same spec has it, or that of another output of the layer."""
    off = off_levels(values, levels)
    for others in (lambda rows: on_grids(rows, setting), lambda rows: on_other_rows(rows, levels)):
        missed = off.any(1).nonzero().flatten()
        if len(missed):
            off[missed] &= ~others(values[missed])[:, None]
    return off


def _converted(model: nn.Module, *, but_changed: bool = False) -> Iterator[tuple[LayerAssignment, nn.Module]]:
    """Quantized weights and biases, with their layers, of the model and of parts that were quantized by themselves."""
    for part in model.modules():
        spec = spec_of(part)
        attached = any(True for _ in weight_quantizers(part)) or any(True for _ in rounded_biases(part))
        if spec is None or attached or is_integer(part) or (but_changed and _ON_PURPOSE in part.__dict__):
            continue
        if has_compiled(part):
            # rules are about names as they were before
            continue
        plan = make_plan(part, spec)
        for choice in (*plan.chosen("weights"), *plan.chosen("biases")):
            yield choice, part.get_submodule(choice.name)
