"""Spiking neurons over T steps, with an optional quantizer of the membrane inside the step."""

from isofire.neurons.base import Neuron
from isofire.neurons.dynamics import Dynamics
from isofire.neurons.fold import PerStep, Repeat, StepLayer, apply_per_step
from isofire.neurons.integrate_and_fire import IF, LIF, ParametricLIF
from isofire.neurons.membrane import MembraneQuantizer
from isofire.neurons.surrogate import ATan, Sigmoid, Surrogate, Triangle, surrogate

__all__ = [
    "IF",
    "LIF",
    "ATan",
    "Dynamics",
    "MembraneQuantizer",
    "Neuron",
    "ParametricLIF",
    "PerStep",
    "Repeat",
    "Sigmoid",
    "StepLayer",
    "Surrogate",
    "Triangle",
    "apply_per_step",
    "surrogate",
]
