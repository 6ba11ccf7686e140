"""Quantizers: from real values to levels, by composition of a grid, a range and a gradient.

Each is a module that works alone, and as the parametrization of a weight; see `Quantizer`. A setting names it in a
spec; see `isofire.quantizers.setting` and, to add a method, `isofire.quantizers.registry`.
"""

from __future__ import annotations

from isofire.quantizers import grids, ranges
from isofire.quantizers.base import AffineQuantizer, Quantizer, fit_quantizers_
from isofire.quantizers.grids import Affine
from isofire.quantizers.levels import Levels
from isofire.quantizers.lqnet import LQNet
from isofire.quantizers.lsq import LSQ
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.registry import (
    CONSTANTS,
    MEMBRANES,
    WEIGHTS,
    decode,
    register_constant,
    register_membrane,
    register_weights,
)
from isofire.quantizers.setting import ConstantSetting, MembraneSetting, Setting, WeightSetting
from isofire.quantizers.state_lqnet import StateLQNet
from isofire.quantizers.state_lsq import StateLSQ
from isofire.quantizers.table import Table
from isofire.quantizers.tawq import TaWQ
from isofire.quantizers.temporal import TemporalQuantizer
from isofire.quantizers.uniform import Uniform

__all__ = [
    "CONSTANTS",
    "LSQ",
    "MEMBRANES",
    "WEIGHTS",
    "Affine",
    "AffineQuantizer",
    "ConstantSetting",
    "LQNet",
    "Levels",
    "MembraneSetting",
    "NeuronFacts",
    "Quantizer",
    "RangeObserver",
    "Setting",
    "StateLQNet",
    "StateLSQ",
    "TaWQ",
    "Table",
    "TemporalQuantizer",
    "Uniform",
    "WeightSetting",
    "decode",
    "fit_quantizers_",
    "grids",
    "ranges",
    "register_constant",
    "register_membrane",
    "register_weights",
]

# last, because the methods are built from the names above
from isofire.quantizers import methods  # noqa: F401  registers what it holds
