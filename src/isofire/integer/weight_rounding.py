"""Why a chip rounds a layer's weights, and what would keep it from that."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from isofire.integer.hardware import HardwareSpec
from isofire.integer.refusals import Refusal
from isofire.quantizers.lattice import Codes, codes_of

_LOST = 0.1
"""From this share of weights that become 0 on, one that is far larger than the others is looked for."""
_EQUAL = 1e-6
_LEVELS = 8
"""Bits of a code that are told as levels; weights in full precision have more."""


@dataclass(frozen=True)
class Rounded:
    """A layer's weights before and after.

    Parameters
    ----------
    weight, scaled, codes
        All weights into a neuron [out, in], in the network, in the chip's units, and rounded.
    grid, top
        Codes are multiples of `grid`, at most `top`.
    lattice
        The codes that the weights have already, if `exact`, with a step of the layer's or of each neuron's as the chip.
    bounds
        As `ChipLayer.bounds` gives them.
    reached
        The largest state on the example, in thresholds.
    """

    weight: Tensor
    scaled: Tensor
    codes: Tensor
    grid: int
    top: int
    lattice: Codes
    bounds: dict[str, Tensor]
    reached: float

    def refusal(self, layer: str, spec: HardwareSpec) -> Refusal:
        """By how much they are rounded, why, and the cure."""
        apart = (self.codes - self.scaled).square().mean().sqrt()
        error = float(apart / self.scaled.square().mean().sqrt().clamp(min=1e-30))
        says = f"weights are rounded to codes of {spec.weights.bits} bits, by {error:.2%} of their root mean square"
        # a root mean square is that of the largest; the others may all be gone
        lost, there = int(((self.codes == 0) & (self.weight != 0)).sum()), int((self.weight != 0).sum())
        if lost:
            says += f"; {lost:,} of {there:,} become 0"
        why, cure = self._why(spec)
        if lost > _LOST * there and int(self.codes.abs().max()) >= self.top // 2:
            ratio = float(self.weight.abs().max() / self.weight[self.weight != 0].abs().median().clamp(min=1e-30))
            cure = f"make the largest weights smaller, or clip them: the largest is {ratio:,.0f} times the median"
            cure += f", and a {spec.weights.scale} has one unit of weights"
        return Refusal(layer, "weights", says + why, cure)

    def _why(self, spec: HardwareSpec) -> tuple[str, str]:
        """What else there is to say, and the cure."""
        one, bits = spec.weights.scale != "neuron", spec.weights.bits - (self.grid > 1)
        method = "method lsq, granularity tensor" if one else "method lsq"
        cure = f"quantize them to at most {bits} bits in training ({method})"
        if not self.lattice.exact:
            own = codes_of(self.weight.float(), 24) if one else self.lattice
            if own.exact and int(own.codes.abs().max()) < 1 << _LEVELS:
                scale = spec.weights.scale
                return f"; each of its outputs has levels of its own, a {scale} of the chip has one unit", cure
            return "", cure
        largest = int(self.lattice.codes.abs().max())
        if largest * self.grid > self.top:
            return f"; their levels are codes up to {largest * self.grid:,}, the chip's up to {self.top:,}", cure
        what = min(self.bounds, key=lambda name: float((self.bounds[name] * self.lattice.step).min()))
        outputs = int((self.codes - self.scaled).abs().gt(_EQUAL).any(1).sum())
        room = (
            f"; their levels would fit, but {what} have no room beside them in {outputs} of {len(self.codes)} outputs"
        )
        if what == "states":
            room += f": on the example they reach {self.reached:,.0f} times the threshold"
            return room, "train with smaller inputs and weights beside the threshold, or shorter time constants"
        if what == "biases":
            return room, f"train with smaller biases, or without: they have {spec.bias.bits} bits in the same unit"
        return room, "train with a threshold that is smaller beside these weights, or set the weights to 0"
