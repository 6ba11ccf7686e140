"""Weights that lie on levels of equal distances, and whether they do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isofire.quantizers import LSQ, Uniform, WeightSetting
from isofire.quantizers.lattice import Codes, codes_of

_MOST_BITS = 8
"""Float32 tells the points of a finer lattice from any other numbers less and less."""


def codes_on(weight: Tensor, setting: WeightSetting) -> Codes:
    """On a lattice of which levels without a 0 are the odd points."""
    most = 2 ** math.ceil(setting.nominal_bits)
    found = codes_of(weight, 24, known=2 * most)
    if found.exact and len(points(found.codes)) > most and setting.level_granularity == "channel":
        # a lattice of all outputs together, as of steps that are powers of two, has more points than one's levels
        rows = [codes_of(row[None], 24, known=2 * most) for row in weight]
        codes, steps, exact = zip(*rows, strict=True)
        found = Codes(torch.cat(codes), torch.cat(steps), all(exact))
    # levels that a cast has moved lie on a lattice too, of far more points
    return found._replace(exact=found.exact and int(found.codes.abs().max()) <= 2 * most)


def points(codes: Tensor) -> range:
    """From the least to the largest; of levels without a 0 the odd ones. Outputs of zeros alone have any."""
    codes = codes.flatten(1)
    used = codes[(codes != 0).any(1)] if bool(codes.any()) else codes
    return range(int(used.min()), int(used.max()) + 1, 2 if bool((used % 2 != 0).all()) else 1)


def is_on_a_grid(rows: Tensor, setting: WeightSetting) -> bool:
    """Whether rows of weights that share levels lie on a grid about 0 of the setting's bits; True where that says
    nothing: of other levels, of more bits, and of weights that a cast may have moved."""
    was_cast = any(torch.equal(rows.to(dtype).to(rows.dtype), rows) for dtype in (torch.float16, torch.bfloat16))
    return was_cast or not _has_grid(setting) or all(_is_on_a_grid(row, setting) for row in rows)


def on_grids(rows: Tensor, setting: WeightSetting) -> Tensor:
    """Which rows are on such a grid for certain, bool `[rows]`; none where it says nothing."""
    told = [_is_on_a_grid(row, setting) for row in rows] if _has_grid(setting) else [False] * len(rows)
    return torch.tensor(told, device=rows.device)


def _has_grid(setting: WeightSetting) -> bool:
    quantizer = setting.build(1)
    even = isinstance(quantizer, LSQ) or (
        isinstance(quantizer, Uniform) and (quantizer.rule is not None or bool((quantizer.lo == -quantizer.hi).all()))
    )
    return even and setting.stored_bits <= _MOST_BITS


def _is_on_a_grid(row: Tensor, setting: WeightSetting) -> bool:
    # a mask may have put zeros between levels that have none
    used, most = row[row != 0][None], 2**setting.stored_bits
    found = codes_of(used, 24, known=2 * most) if used.numel() else None
    return found is None or (found.exact and len(points(found.codes)) <= most)
