"""What a register does with a number: overflow, decay, quotients. On int64 tensors, and nowhere else decided."""

from __future__ import annotations

from typing import Literal

import msgspec
import torch
from torch import Tensor

from isofire.conversion import MisfitError
from isofire.errors import ModelError

Overflow = Literal["refuse", "saturate", "clip", "wrap"]
Rounding = Literal["floor", "zero", "nearest"]
WIDEST = 62
"""Bits of the widest state: sums of two such states still fit int64."""


class DecayRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a state decays in a step.

    Parameters
    ----------
    kind
        "shift": x loses x >> d. "fraction": x keeps (2^bits - d) / 2^bits of itself.
    bits
        Of a shift, the width of d; of a fraction, its binary digits.
    rounding
        Of what is lost (shift) or kept (fraction); a shift knows "floor" alone.
    least
        Smallest loss of a state that is not 0, of a shift: 1 on Xylo, where no state stays for ever.
    """

    kind: Literal["shift", "fraction"]
    bits: int
    rounding: Rounding
    least: int = 0

    def __post_init__(self) -> None:
        # of a shift, by up to 63 places
        most = 6 if self.kind == "shift" else 24
        if not 1 <= self.bits <= most:
            raise MisfitError("bits", f"of a {self.kind} must lie in 1..{most}, got {self.bits}")
        if self.kind == "shift" and self.rounding != "floor":
            raise MisfitError("rounding", f"a decay by bit shift rounds to the 'floor', got {self.rounding!r}")
        if self.least not in (0, 1) or (self.least and self.kind == "fraction"):
            raise MisfitError("least", f"must be 0, or 1 for a shift, got {self.least} for a {self.kind}")

    @property
    def largest(self) -> int:
        """The largest d."""
        return 2**self.bits - 1 if self.kind == "shift" else 2**self.bits

    def apply(self, x: Tensor, d: Tensor) -> Tensor:
        """The state `x` a step later, for decays `d` (int64, broadcast to `x`).

        Examples
        --------
        >>> rule = DecayRule(kind="shift", bits=4, rounding="floor", least=1)
        >>> rule.apply(torch.tensor([100, 1, -100]), torch.tensor(3))
        tensor([ 88,   0, -87])
        """
        if self.kind == "shift":
            lost = x >> d
            return x - (torch.where(lost == 0, x.sign(), lost) if self.least else lost)
        kept = x * (2**self.bits - d)
        match self.rounding:
            case "floor":
                return kept >> self.bits
            case "zero":
                return kept.sign() * (kept.abs() >> self.bits)
            case "nearest":
                return (kept + (1 << (self.bits - 1))) >> self.bits


def fit(x: Tensor, bits: int, overflow: Overflow, where: str) -> Tensor:
    """`x` as a signed register of `bits` bits holds it.

    "saturate" stops at -2^(bits-1) and 2^(bits-1) - 1, "clip" at +-(2^(bits-1) - 1), "wrap" keeps the low bits.

    Raises
    ------
    ModelError
        If `overflow` is "refuse" and a number does not fit.

    Examples
    --------
    >>> [fit(torch.tensor(-130), 8, how, "v").item() for how in ("saturate", "clip", "wrap")]
    [-128, -127, 126]
    """
    half = 1 << (bits - 1)
    match overflow:
        case "saturate":
            return x.clamp(-half, half - 1)
        case "clip":
            return x.clamp(1 - half, half - 1)
        case "wrap":
            return ((x + half) & (2 * half - 1)) - half
        case "refuse":
            if x.numel() and (int(x.amax()) > half - 1 or int(x.amin()) < -half):
                worst = int(x.abs().amax())
                raise ModelError(
                    f"{where}: a state reaches {worst:,}, which {bits} bits do not hold; lower the network for as "
                    "many steps as it is run, or give it wider states"
                )
            return x
