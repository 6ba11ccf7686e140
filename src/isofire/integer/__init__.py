"""Networks of nothing but integers, as chips run them: arithmetic of registers, chips as data, a reference engine."""

from isofire.integer.adapter import IntegerAdapter
from isofire.integer.arithmetic import DecayRule
from isofire.integer.changes import Change, Changes
from isofire.integer.connection import INPUT, Connection, SumPool
from isofire.integer.decays import ChipDecay, nearest_decay
from isofire.integer.diagnosis import Cure, Finding, diagnose
from isofire.integer.differences import Differences, LayerDifference, differences
from isofire.integer.hardware import PRESETS, BiasRules, HardwareSpec, NeuronRules, WeightRules
from isofire.integer.limits import Resource, Resources
from isofire.integer.lowering import lower
from isofire.integer.mapping import ChipMapping
from isofire.integer.network import READOUT, Encoder, IntegerNetwork, Readout, Trace
from isofire.integer.netx import read_netx
from isofire.integer.population import Population, State, StateTable
from isofire.integer.refusals import APPROXIMATIONS, Refusal, RefusedError
from isofire.integer.steps import Steps, steps_of
from isofire.integer.twin import with_changes

__all__ = [
    "APPROXIMATIONS",
    "INPUT",
    "PRESETS",
    "READOUT",
    "BiasRules",
    "Change",
    "Changes",
    "ChipDecay",
    "ChipMapping",
    "Connection",
    "Cure",
    "DecayRule",
    "Differences",
    "Encoder",
    "Finding",
    "HardwareSpec",
    "IntegerAdapter",
    "IntegerNetwork",
    "LayerDifference",
    "NeuronRules",
    "Population",
    "Readout",
    "Refusal",
    "RefusedError",
    "Resource",
    "Resources",
    "State",
    "StateTable",
    "Steps",
    "SumPool",
    "Trace",
    "WeightRules",
    "diagnose",
    "differences",
    "lower",
    "nearest_decay",
    "read_netx",
    "steps_of",
    "with_changes",
]
