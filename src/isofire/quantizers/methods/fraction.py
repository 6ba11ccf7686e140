"""`fraction`: decays as whole numbers of 2^bits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isofire.quantizers.registry import register_constant
from isofire.quantizers.setting import ConstantSetting


@register_constant
class Fraction(ConstantSetting, frozen=True, kw_only=True, tag="fraction"):
    """The share of a state that is lost in a step becomes d / 2^bits (Loihi: 12 bits). `gain` as in `bitshift`.

    What leaks loses at least one part, and a membrane keeps at least one: a neuron that never forgets is another kind,
    which only a chip's lowering may choose.
    """

    targets = frozenset({"decays"})

    bits: int = 12
    gain: Literal["keep", "l2"] = "keep"

    def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
        lost = parts(values.double(), self.bits, synapse=synapse)
        # what leaks at all does not come to leak nothing
        least = (values > 0).to(torch.int64)
        return (lost.maximum(least).double() / 2**self.bits).to(values.dtype)


def parts(share: Tensor, bits: int, *, synapse: bool) -> Tensor:
    """Parts of 2^bits, int64, for shares lost in a step; of a membrane at least one is kept."""
    whole = 2**bits
    return (whole * share).round().clamp(0, whole if synapse else whole - 1).to(torch.int64)
