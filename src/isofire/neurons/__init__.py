"""Spiking neurons over T steps, with an optional quantizer of the membrane inside the step."""

from isofire.neurons.base import Backend, Neuron
from isofire.neurons.dynamics import Common, Dynamics, State
from isofire.neurons.fast_path import Call, FastPath
from isofire.neurons.fold import PerStep, Repeat, StepLayer, apply_per_step
from isofire.neurons.kinds.cuba_lif import CubaLIF
from isofire.neurons.kinds.integrate_and_fire import IF, LIF, ParametricLIF
from isofire.neurons.li import LI
from isofire.neurons.membrane import MembraneQuantizer
from isofire.neurons.recurrent import Recurrent
from isofire.neurons.registry import NEURONS, register_neuron
from isofire.neurons.surrogate import ATan, Sigmoid, Surrogate, Triangle, surrogate

__all__ = [
    "IF",
    "LI",
    "LIF",
    "NEURONS",
    "ATan",
    "Backend",
    "Call",
    "Common",
    "CubaLIF",
    "Dynamics",
    "FastPath",
    "MembraneQuantizer",
    "Neuron",
    "ParametricLIF",
    "PerStep",
    "Recurrent",
    "Repeat",
    "Sigmoid",
    "State",
    "StepLayer",
    "Surrogate",
    "Triangle",
    "apply_per_step",
    "register_neuron",
    "surrogate",
]
