"""`fixed`: thresholds and biases as fixed-point numbers."""

from __future__ import annotations

from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers.registry import register_constant
from isofire.quantizers.setting import ConstantSetting


@register_constant
class Fixed(ConstantSetting, frozen=True, kw_only=True, tag="fixed"):
    """Multiples of 2^-`fraction`, of `bits` bits with sign: the nearest, at most (2^(bits - 1) - 1) of them."""

    targets = frozenset({"thresholds", "biases"})

    bits: int
    fraction: int

    @property
    def reach(self) -> float:
        return (2 ** (self.bits - 1) - 0.5) * 2.0**-self.fraction

    def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
        top = 2 ** (self.bits - 1) - 1
        step = 2.0**-self.fraction
        return ((values.double() / step).round().clamp(-top, top) * step).to(values.dtype)

    def _check_whole(self) -> None:
        if self.bits < 2:
            raise SpecError(f"bits of a fixed-point number with sign must lie in 2..{self.max_bits}, got {self.bits}")
        if not -32 <= self.fraction <= 32:
            raise SpecError(f"fraction must lie in -32..32, got {self.fraction}")
