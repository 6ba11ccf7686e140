"""What the demo quantizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from isofire.config import Mode
from isofire.spec import LQNetWeights, LSQWeights, QuantSpec, UniformMembrane, UniformWeights

_PAPER_RANGE = (-1.0, 1.0)
_UNSIGNED = (0.0, 1.0)
Placement = Literal["pre_fire", "post_reset"]


@dataclass(frozen=True)
class DemoCell:
    """One row of the demo: a spec (None: a control) and how it is applied; `shown` in the figure of rates as that."""

    spec: QuantSpec | None
    mode: Mode
    shown: str | None = None


def demo_cells() -> list[DemoCell]:
    """Controls, weights and membranes after training, then weights and membranes trained with it."""
    return [
        DemoCell(None, "ptq"),
        DemoCell(None, "qat"),
        *(DemoCell(_uniform(bits), "ptq", "weights, 2 bit\nin [-1, 1]" if bits == 2 else None) for bits in (2, 4, 8)),
        *(DemoCell(QuantSpec(weights=UniformWeights(bits=bits, range="mse")), "ptq") for bits in (2, 4)),
        *(DemoCell(QuantSpec(weights=LQNetWeights(bits=bits)), "ptq") for bits in (2, 4)),
        *(DemoCell(_membrane(bits, "pre_fire"), "ptq", _PRE if bits == 2 else None) for bits in (2, 4, 6, 8)),
        *(DemoCell(_membrane(bits, "post_reset"), "ptq", _POST if bits == 2 else None) for bits in (2, 4, 6, 8)),
        *(DemoCell(_membrane(bits, "post_reset", _PAPER_RANGE), "ptq") for bits in (4, 8)),
        *(DemoCell(_uniform(bits), "qat") for bits in (2, 4)),
        *(DemoCell(QuantSpec(weights=LSQWeights(bits=bits)), "qat") for bits in (2, 4)),
        *(DemoCell(QuantSpec(weights=LQNetWeights(bits=bits)), "qat") for bits in (2, 4)),
        DemoCell(_membrane(2, "pre_fire"), "qat"),
        DemoCell(_membrane(2, "post_reset"), "qat"),
    ]


def quick_cells() -> list[DemoCell]:
    """One of each kind, for tests."""
    return [
        DemoCell(None, "ptq"),
        DemoCell(None, "qat"),
        DemoCell(_membrane(2, "pre_fire"), "ptq", _PRE),
        DemoCell(QuantSpec(weights=LSQWeights(bits=2)), "qat"),
    ]


_PRE, _POST = "membrane, 2 bit\nbefore fire", "membrane, 2 bit\nafter reset"


def _uniform(bits: int) -> QuantSpec:
    return QuantSpec(weights=UniformWeights(bits=bits, range=_PAPER_RANGE, granularity="tensor"))


def _membrane(bits: int, placement: Placement, span: tuple[float, float] = _UNSIGNED) -> QuantSpec:
    return QuantSpec(membrane=UniformMembrane(bits=bits, placement=placement, range=span, signed=span[0] < 0))
