"""Decays as a chip has them: the nearest bit shift or fraction to a time constant."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.integer.arithmetic import DecayRule

ShiftBy = Literal["factor", "log2"]


class ChipDecay(NamedTuple):
    """What `DecayRule.apply` takes as d, int64, and the time constant that it is, float64; both one or one a neuron."""

    code: Tensor
    tau: Tensor


def nearest_decay(rule: DecayRule | None, tau: Tensor, *, synapse: bool, shift_by: ShiftBy = "factor") -> ChipDecay:
    """The nearest decay to time constants `tau` in steps (1 - 1 / tau is kept).

    Parameters
    ----------
    rule
        None: the chip has none.
    synapse
        Of a current: it is never wiped by a shift of 0, except where tau is 1; a membrane keeps at least one part in a
        fraction's whole.
    shift_by
        Of bit shifts: "factor" rounds -log2 of the share that is lost in a step, 1 / tau. "log2" is Rockpool's rule,
        round(log2(t)) of the time constant t in exp(-1 / t), which is smaller, and 0 for short ones.

    Examples
    --------
    >>> rule = DecayRule(kind="shift", bits=4, rounding="floor", least=1)
    >>> tau = torch.tensor([1.864], dtype=torch.float64)
    >>> nearest_decay(rule, tau, synapse=True).code, nearest_decay(rule, tau, synapse=True, shift_by="log2").code
    (tensor([1]), tensor([0]))
    """
    if shift_by not in get_args(ShiftBy):
        raise SpecError(f"shift_by must be one of {', '.join(get_args(ShiftBy))}, got {shift_by!r}")
    if rule is None:
        return ChipDecay(torch.zeros_like(tau, dtype=torch.int64), torch.full_like(tau, math.inf))
    if rule.kind == "shift":
        lasting = tau if shift_by == "factor" else -1.0 / torch.log1p(-1.0 / tau)
        least = (tau > 1.0).long() if synapse and shift_by == "factor" else torch.zeros_like(tau, dtype=torch.int64)
        code = torch.log2(lasting).round().clamp(0, rule.largest).to(torch.int64).maximum(least)
        return ChipDecay(code, 2.0 ** code.double())
    whole = 2**rule.bits
    code = (whole / tau).round().clamp(0, whole if synapse else whole - 1).to(torch.int64)
    return ChipDecay(code, whole / code.double())
