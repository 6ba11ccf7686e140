"""Networks of nothing but integers, as chips run them: arithmetic of registers, chips as data, a reference engine."""

from isofire.integer.adapter import IntegerAdapter
from isofire.integer.arithmetic import DecayRule
from isofire.integer.connection import INPUT, Connection, SumPool
from isofire.integer.differences import Differences, LayerDifference, differences
from isofire.integer.hardware import PRESETS, BiasRules, HardwareSpec, NeuronRules, WeightRules
from isofire.integer.lowering import lower
from isofire.integer.network import READOUT, Encoder, IntegerNetwork, Readout, Trace
from isofire.integer.population import Population, State, StateTable

__all__ = [
    "INPUT",
    "PRESETS",
    "READOUT",
    "BiasRules",
    "Connection",
    "DecayRule",
    "Differences",
    "Encoder",
    "HardwareSpec",
    "IntegerAdapter",
    "IntegerNetwork",
    "LayerDifference",
    "NeuronRules",
    "Population",
    "Readout",
    "State",
    "StateTable",
    "SumPool",
    "Trace",
    "WeightRules",
    "differences",
    "lower",
]
