"""What an inference costs on a chip: synaptic operations, events, memory, energy; and what drift can do to it."""

from isofire.firing.cost.bound import SynOpsDrift, SynOpsDrifts, synops, synops_drift
from isofire.firing.cost.energy import HOROWITZ, SOURCES, Energy, EnergyConstants
from isofire.firing.cost.gained import CostComparison
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.cost.measure import measure_cost
from isofire.firing.cost.memory import Memory, memory_of
from isofire.firing.cost.percentiles import Percentiles
from isofire.firing.cost.report import Cost, NeuronCost, SynapseCost
from isofire.firing.cost.synops_per_spike import SynopsPerSpike, reach, reach_on

__all__ = [
    "HOROWITZ",
    "SOURCES",
    "Cost",
    "CostComparison",
    "Energy",
    "EnergyConstants",
    "LeftOut",
    "Memory",
    "NeuronCost",
    "Percentiles",
    "SynOpsDrift",
    "SynOpsDrifts",
    "SynapseCost",
    "SynopsPerSpike",
    "measure_cost",
    "memory_of",
    "reach",
    "reach_on",
    "synops",
    "synops_drift",
]
