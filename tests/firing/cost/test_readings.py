"""The readings of multiply-accumulates and of energy: each by its name, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from isofire.errors import SpecError
from isofire.firing.cost import measure_cost
from isofire.firing.cost.energy import estimate
from isofire.neurons import LIF, Repeat
from isofire.quantizers import RangeObserver
from isofire.sweep.executors.processes import Processes


def test_readings_that_there_are_not_are_refused() -> None:
    model = nn.Sequential(Repeat(3), nn.Linear(4, 5), LIF(), nn.Linear(5, 2))
    cost = measure_cost(model, (torch.rand(6, 4), torch.zeros(6, dtype=torch.int64)))
    calls: list[tuple[Callable[[Any], object], str]] = [
        (lambda given: cost.energy(at=given), "at: must be float or real"),
        (lambda given: cost.energy(first_layer=given), "first_layer: must be every_step or once"),
        (cost.macs, "first_layer: must be every_step or once"),
        (cost.synapses[0].macs, "first_layer: must be every_step or once"),
        (lambda given: estimate([], [], given), "at: must be float or real"),
        (RangeObserver, "granularity must be 'tensor' or 'channel'"),
        (lambda given: Processes(1, given), "start must be 'spawn' or 'fork'"),
    ]
    for call, told in calls:
        with pytest.raises(SpecError, match=f"{told}, got 'both'"):
            call("both")
    # 4 x 5 weights of pixels: once, or in each of 3 steps
    assert (cost.macs(), cost.macs("every_step")) == (20, 60)
