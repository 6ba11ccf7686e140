"""Quantizers: from real values to levels, by composition of a grid, a range and a gradient.

Each is a module that works alone, and as the parametrization of a weight; see `Quantizer`.
"""

from __future__ import annotations

from isofire.quantizers import grids, ranges
from isofire.quantizers.base import AffineQuantizer, Quantizer
from isofire.quantizers.grids import Affine
from isofire.quantizers.levels import Levels
from isofire.quantizers.lqnet import LQNet
from isofire.quantizers.lsq import LSQ
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.table import Table
from isofire.quantizers.tawq import TaWQ
from isofire.quantizers.uniform import Uniform

__all__ = [
    "LSQ",
    "Affine",
    "AffineQuantizer",
    "LQNet",
    "Levels",
    "Quantizer",
    "RangeObserver",
    "TaWQ",
    "Table",
    "Uniform",
    "grids",
    "ranges",
]
