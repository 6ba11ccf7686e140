"""`bitshift`: decays that a chip does by shifting, x loses x >> d."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers.registry import register_constant
from isofire.quantizers.setting import ConstantSetting

ShiftBy = Literal["factor", "log2"]


@register_constant
class BitShift(ConstantSetting, frozen=True, kw_only=True, tag="bitshift"):
    """The share of a state that is lost in a step becomes 2^-d, d a whole number of `bits` bits.

    `by`: "factor" takes the d nearest to -log2 of the share, at least 1 for currents. "log2" is Rockpool's rule,
    round(log2(t)) of the time constant t in exp(-1 / t): smaller, and 0 for short ones, which wipes the state every
    step. `gain` "l2": thresholds are multiplied by how much more a membrane answers an input, in the root of summed
    squares.
    """

    targets = frozenset({"decays"})

    bits: int = 4
    by: ShiftBy = "factor"
    gain: Literal["keep", "l2"] = "keep"

    def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
        return (2.0 ** -shifts(values.double(), 2**self.bits - 1, synapse=synapse, by=self.by).double()).to(
            values.dtype
        )

    def _check_whole(self) -> None:
        if self.bits > 5:
            raise SpecError(f"bits of a shift must lie in 1..5, which shifts by up to 31, got {self.bits}")


def shifts(share: Tensor, most: int, *, synapse: bool, by: ShiftBy) -> Tensor:
    """The shift, int64 in 0..most, for shares lost in a step, float64 in 0..1.

    Examples
    --------
    >>> share = torch.tensor([0.5366], dtype=torch.float64)
    >>> [int(shifts(share, 15, synapse=True, by=rule)) for rule in ("factor", "log2")]
    [1, 0]
    """
    lasting = 1.0 / share if by == "factor" else -1.0 / torch.log1p(-share)
    least = (share < 1.0).long() if synapse and by == "factor" else torch.zeros_like(share, dtype=torch.int64)
    return torch.log2(lasting).round().clamp(0, most).to(torch.int64).maximum(least)
