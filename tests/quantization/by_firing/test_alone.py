"""Layers that fire otherwise when tried alone, because what they gave comes back to them, are named."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.quantization import repair_

neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
reset_net = pytest.importorskip("spikingjelly.activation_based.functional").reset_net

STEPS = 8
IMAGES = torch.rand(96, 12, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.zeros(96, dtype=torch.int64)


class Loop(nn.Module):
    """Steps in Python; the second layer may be inhibited by its spikes of the step before, or its state fade."""

    def __init__(self, inhibition: float = 0.0, fade: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.first = nn.Linear(12, 24), neuron.LIFNode(v_threshold=0.2)
        self.b, self.second = nn.Linear(24, 20), neuron.LIFNode(v_threshold=0.12)
        self.out, self.inhibition, self.fade = nn.Linear(20, 3), inhibition, fade

    def forward(self, x: Tensor) -> Tensor:
        back, out = torch.zeros(len(x), 20), []
        for _ in range(STEPS):
            spikes = self.second(self.b(self.first(self.a(x))) - self.inhibition * back)
            back = spikes.mean(1, keepdim=True)
            if self.fade != 1.0:
                self.second.v = self.second.v * self.fade
            out.append(self.out(spikes))
        return torch.stack(out)


SPEC = isofire.QuantSpec(
    weights={"method": "lsq", "bits": 3},
    membrane={"method": "firing", "bits": 2},
    correct="bias",
    first_layer="quantize",
)


@pytest.mark.parametrize("how", [{}, {"inhibition": 2.0}, {"fade": 0.3}])
def test_calibration_names_the_layer(how: dict[str, float], caplog: pytest.LogCaptureFixture) -> None:
    steps = []
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(Loop(**how).eval(), SPEC, (IMAGES, LABELS), on_step=steps.append)
    named = [step.layer for step in steps if step.done == "compared with the network"]
    assert named == (["second"] if how else [])
    assert ("tried alone it gives" in caplog.text) == bool(how)


def test_repair_tells_what_came_of_it_in_the_network() -> None:
    baseline, model = Loop(fade=0.3).eval(), Loop(fade=0.3).eval()
    with torch.no_grad():
        model.b.bias.sub_(0.2)
    (_, second) = repair_(model, baseline, (IMAGES, LABELS))
    assert second.note is not None
    assert "depends on what it gave in an earlier one" in second.note
    counts = []
    for network in (baseline, model):
        seen: list[Tensor] = []
        with network.second.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output.sum(0))):
            reset_net(network)
            network(IMAGES)
        counts.append(torch.stack(seen).sum(0))
    expected = float((counts[1] - counts[0]).abs().mean()) / (len(IMAGES) * STEPS)
    assert second.drift_after == pytest.approx(expected)
    assert f"drift {second.drift_before:.5f} -> {second.drift_after:.5f}; tried alone" in str(second)
