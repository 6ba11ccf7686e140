"""The levels that weights were written on, kept beside them, so that a later change is seen.

Weights of a row that are no more than its levels can have any values in so many bits; only what was written tells those
that were changed since. It is kept in the layer, goes along in its copies and pickles, and in the metadata of its state
dict, which torch saves and loads with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isofire.quantizers import WeightSetting

_KEPT = "_isofire_levels"
_IN_METADATA = "isofire_levels"
_CASTS = (torch.float16, torch.bfloat16)
_ROUNDINGS = 4.0


@dataclass(frozen=True)
class KeptLevels:
    """What a layer's weights were written in: so many bits, on levels `[rows, L]`."""

    bits: int
    levels: Tensor


def rows_of_levels(weight: Tensor, setting: WeightSetting) -> Tensor:
    """Weights that share levels, a row each; of weights that change with the step, those of each step."""
    steps = weight[None] if setting.time_steps is None else weight
    return steps.flatten(0, 1).flatten(1) if setting.level_granularity == "channel" else steps.flatten(1)


def keep_levels_(layer: nn.Module, setting: WeightSetting) -> None:
    """Keep the levels that the layer's weights are on now."""
    expect_levels_(layer)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    levels = distinct(rows_of_levels(weight.detach(), setting)).values
    layer.__dict__[_KEPT] = KeptLevels(setting.stored_bits, levels)


def expect_levels_(layer: nn.Module) -> None:
    """Have the layer take over the levels that a state dict brings with its weights; without any they are not known."""
    if _KEPT not in layer.__dict__:
        layer.__dict__[_KEPT] = None
        layer.register_state_dict_post_hook(_give)
        layer.register_load_state_dict_pre_hook(_take)


def kept_levels(layer: nn.Module) -> KeptLevels | None:
    """None where they are not known."""
    return layer.__dict__.get(_KEPT)


class Distinct(NamedTuple):
    """Values of each row, ascending, `[rows, L]`, of which rows that have fewer repeat their largest; their number,
    `[rows]`; and the sorted weights' places among them."""

    values: Tensor
    count: Tensor
    places: Tensor


def distinct(rows: Tensor) -> Distinct:
    """What the weights of each row are, once each."""
    ordered = rows.sort(1).values
    places = torch.zeros_like(ordered, dtype=torch.int64)
    torch.cumsum(ordered[:, 1:] != ordered[:, :-1], 1, out=places[:, 1:])
    count = places[:, -1] + 1
    values = ordered[:, -1:].repeat(1, int(count.max())).scatter_(1, places, ordered)
    return Distinct(values, count, places)


def off_levels(values: Tensor, levels: Tensor) -> Tensor:
    """Which values are on none of the levels of their row, bool of the values' shape.

    Those may have been cast in between, and a row multiplied by a factor, as norms are folded into weights. Zeros are
    those of a mask: they are no change that training makes.
    """
    levels = levels.to(values.device)
    off = _off(values, levels.to(values.dtype))
    # few rows need more than this
    missed = off.any(1).nonzero().flatten()
    if len(missed):
        off[missed] = _off_all(values[missed], levels[missed])
    return off


def on_other_rows(values: Tensor, levels: Tensor) -> Tensor:
    """Which rows of values are on the levels of any one row, as where outputs change places, bool `[rows]`."""
    largest = values.gather(1, values.abs().argmax(1, keepdim=True))
    found = torch.zeros_like(largest, dtype=torch.bool).flatten()
    for dtype in dict.fromkeys((levels.dtype, values.dtype, *_CASTS)):
        for level in levels.to(values.device, dtype).unique(dim=0):
            likely = (~found & (largest == level.to(values)).any(1)).nonzero().flatten()
            if len(likely):
                found[likely] = ~_off(values[likely], level.expand(len(likely), -1)).any(1)
        if bool(found.all()):
            break
    return found


def _off_all(rows: Tensor, levels: Tensor) -> Tensor:
    """As `off_levels`, by what leaves the fewest of a row."""
    off = [_off(rows, levels.to(dtype)) for dtype in (levels.dtype, rows.dtype, *_CASTS)]
    rounding = torch.finfo(rows.dtype).eps
    # in half precision too many numbers are multiples
    if rounding < torch.finfo(torch.float16).eps:
        largest = rows.abs().amax(1, keepdim=True).double()
        factor = largest / levels.abs().amax(1, keepdim=True).double().clamp(min=torch.finfo(torch.float32).tiny)
        multiples, near = levels.double() * factor, rows.abs().double() * rounding * _ROUNDINGS
        off += [_off(rows, multiples, near), _off(rows, -multiples.flip(1), near)]
    tried = torch.stack(off)
    best = tried.sum(2).argmin(0)
    return tried[best, torch.arange(len(rows), device=rows.device)]


def _off(rows: Tensor, levels: Tensor, tolerance: Tensor | float = 0.0) -> Tensor:
    """Which values of each row are further than this from every level, or no numbers."""
    rows, levels = rows.double().contiguous(), levels.double().contiguous()
    above = torch.searchsorted(levels, rows).clamp(max=levels.shape[1] - 1)
    near = [(levels.gather(1, place) - rows).abs() for place in (above, (above - 1).clamp(min=0))]
    return ~(torch.minimum(*near) <= tolerance) & (rows != 0)


def _give(layer: nn.Module, _state: object, _prefix: str, metadata: dict[str, Any]) -> None:
    if (kept := kept_levels(layer)) is not None:
        # of plain values, which torch.load takes with weights_only
        metadata[_IN_METADATA] = {"bits": kept.bits, "levels": kept.levels}


def _take(layer: nn.Module, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any], *_: object) -> None:
    given, told = state.get(f"{prefix}weight", state.get(f"{prefix}weight_orig")), metadata.get(_IN_METADATA)
    # others are refused, and the layer keeps its weights
    if isinstance(given, Tensor) and given.shape == layer.weight.shape:  # type: ignore[union-attr]
        layer.__dict__[_KEPT] = None if told is None else KeptLevels(told["bits"], told["levels"])
