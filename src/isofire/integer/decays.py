"""Decays as a chip has them: the nearest bit shift or fraction to a time constant."""

from __future__ import annotations

import math
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.integer.arithmetic import DecayRule
from isofire.quantizers.methods.bitshift import ShiftBy, shifts
from isofire.quantizers.methods.fraction import parts


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
        code = shifts(1.0 / tau, rule.largest, synapse=synapse, by=shift_by)
        return ChipDecay(code, 2.0 ** code.double())
    code = parts(1.0 / tau, rule.bits, synapse=synapse)
    return ChipDecay(code, 2**rule.bits / code.double())
