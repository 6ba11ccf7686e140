"""What `isofire init` writes for a network of snnTorch, whose neurons reset a step late, runs as it stands."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.cli import main
from isofire.config.sweep import read_sweep

snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)

NETS = """
import snntorch as snn, torch
from isofire.adapters import OverTime
from isofire.data import load as of_package
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), snn.Leaky(beta=0.9, init_hidden=True),
                        nn.Linear(16, 10), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    return OverTime(net, steps=3)

def load(split):
    data = of_package("digits", split).first(100)
    return data.normalize(data.images), data.labels
"""


def test_membranes_are_quantized_where_these_neurons_store_them(tmp_path, monkeypatch, capsys, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_nets.py").write_text(NETS)
    network = ["--model", "late_nets:build", "--data", "late_nets:load"]
    assert main(["init", *network, "-o", "start"]) == 0
    assert tomllib.loads((tmp_path / "start" / "quantize.toml").read_text())["quant"]["membrane"] == {
        "method": "firing", "bits": 6, "placement": "pre_fire",
    }  # fmt: skip
    sweep = read_sweep(tmp_path / "start" / "sweep.toml", allow_code=True)
    assert [group.membrane["placement"] for group in sweep.cells if group.membrane is not None] == ["pre_fire"]
    run = ["quantize", "--model", "late_nets:build", "-c", "start/quantize.toml", "--allow-code", "-o", "q"]
    assert main(run) == 0
    assert "firing" in capsys.readouterr().out
    preset = ["quantize", *network, "--preset", "keep-firing", "-o", "p", "--json"]
    # of two layers with weights nothing would be quantized
    preset += ["--set", "quant.first_layer=quantize", "--set", "quant.last_layer=quantize"]
    assert main(preset) == 0
    assert "--preset keep-firing: states are rounded at pre_fire" in caplog.text
    assert '"pre_fire"' in capsys.readouterr().out


class Loop(nn.Module):
    """As snnTorch's tutorials write it: the loop carries the membrane; or the neuron keeps it."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(64, 24), snntorch.Leaky(beta=0.9, init_hidden=hidden)
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        mem, spikes = self.lif.reset_mem(), []
        for _ in range(6):
            current = self.fc(x.flatten(1))
            if self.hidden:
                fired = self.lif(current)
            else:
                fired, mem = self.lif(current, mem)
            spikes.append(fired)
        return torch.stack(spikes)


def test_levels_of_a_state_that_the_loop_carries_are_those_of_one_that_the_neuron_keeps() -> None:
    data = isofire.data.load("digits", "train").first(64)
    spec = isofire.QuantSpec(membrane={"method": "firing", "bits": 3, "placement": "pre_fire"})
    found = []
    for hidden in (True, False):
        model, steps = Loop(hidden=hidden), []
        quantized = isofire.quantize_(copy.deepcopy(model), spec, data, on_step=steps.append)
        (chosen,) = (step for step in steps if step.done == "levels chosen")
        found.append((quantized.lif.membrane.quantizer.levels(), chosen.before, chosen.after))
    (kept, *of_kept), (carried, *of_carried) = found
    assert torch.equal(carried, kept)
    assert of_carried == of_kept
    assert of_carried[0] != of_carried[1]
