"""What isofire's own neurons keep from step to step, for the memory of their states."""

from __future__ import annotations

from torch import nn

from isofire.firing.cost.memory import memory_of
from isofire.neurons import IF, LIF, CubaLIF, PerStep


def test_a_current_based_neuron_keeps_two_numbers_and_the_others_one() -> None:
    net = nn.Sequential(PerStep(nn.Linear(4, 8)), CubaLIF(), PerStep(nn.Linear(8, 8)), LIF(), IF())
    states = memory_of(net, {"1": 8, "3": 8, "4": 8}).states
    assert {name: state.total for name, state in states.items()} == {"1": 8 * 2 * 32, "3": 8 * 32, "4": 8 * 32}
