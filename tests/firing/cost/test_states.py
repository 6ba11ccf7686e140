"""States that layers keep from step to step without spiking are state memory, or named."""

from __future__ import annotations

import pytest
import torch
from tests.firing.cost.test_real_values import FRAMES, LABELS, REAL, F, Net
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF

TRACES = {"trace", "moving average", "by subtraction", "in place", "momentum", "corrected mean", "second order"}


@pytest.mark.parametrize("name", [*REAL, "mean over time", "sums of two"])
def test_a_trace_that_a_network_keeps_itself_is_named_as_no_part_of_the_state_memory(name: str) -> None:
    others = {"mean over time": lambda z: z.mean(0), "sums of two": lambda z: z + z.flip(-1)}
    cost = measure_cost(Net((REAL | others)[name]).eval(), (FRAMES, LABELS))
    assert cost.memory.state_bits == 32 * F
    told = [str(item) for item in cost.left_out]
    if name in TRACES:
        assert told == ["(model): keeps sums of spikes from step to step, which are in no state memory (share unknown)"]
        assert told[0] in cost.table()
    else:
        assert told == []


class Recurrent(nn.Module):
    """A recurrent layer of torch behind spikes, given all steps or one at a time."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.fire, self.layer = LIF(), layer

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(x)
        if isinstance(self.layer, nn.RNNBase):
            return self.layer(spikes)[0]
        state, out = None, []
        for step in spikes:
            state = self.layer(step, state)
            out.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(out)


@pytest.mark.parametrize(("layer", "numbers"), [
    (nn.RNN(F, 7), 7), (nn.GRU(F, 7, num_layers=2), 14), (nn.LSTM(F, 7), 14), (nn.LSTM(F, 7, proj_size=3), 10),
    (nn.RNNCell(F, 7), 7), (nn.GRUCell(F, 7), 7), (nn.LSTMCell(F, 7), 14),
], ids=lambda value: str(value))  # fmt: skip
def test_states_of_recurrent_layers_are_state_memory(layer: nn.Module, numbers: int) -> None:
    model = Recurrent(layer).eval()
    cost = measure_cost(model, (FRAMES, LABELS))
    assert cost.memory.state_bits == 32 * (F + numbers)
    assert cost.memory.states["layer"].total == 32 * numbers
    assert [line for line in cost.table().splitlines() if line.startswith("layer ") and "none" in line]
    alone = measure_cost(nn.Sequential(model.fire, nn.Linear(F, 7)), (FRAMES, LABELS)).energy()
    assert cost.energy().states > alone.states
    (finding,) = check(model, model, (FRAMES, LABELS), Limits(state_bytes=1e6)).findings
    assert (finding.outcome, "layer" in finding.about) == ("undecided", True)
    (finding,) = check(model, model, (FRAMES, LABELS), Limits(state_bytes=4.0 * F - 1)).findings
    assert finding.outcome == "fails"
