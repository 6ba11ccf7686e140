"""A method of constants in one file: so many decimal digits after the point."""

from __future__ import annotations

import math

from torch import Tensor

from isofire.quantizers import ConstantSetting


class DecimalConstant(ConstantSetting, frozen=True, kw_only=True, tag="digits"):
    """Thresholds and biases of so many decimal digits."""

    targets = frozenset({"thresholds", "biases"})

    digits: int

    @property
    def nominal_bits(self) -> float:
        return round(self.digits * math.log2(10), 3)

    def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
        return (values.double() * 10**self.digits).round().div(10**self.digits).to(values.dtype)
