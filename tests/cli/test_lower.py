"""`isofire lower`: one command says which rounding silenced a network, and what mends it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofire.export import read_bundle

CODE = """
import math
import torch
from torch import nn
from isofire.neurons import CubaLIF, PerStep

def tau(steps):
    # from exp(-1 / t) to 1 - 1 / tau
    return 1 / -math.expm1(-1 / steps)

def short():
    \"\"\"tau_mem 0.16 s, tau_syn 0.065 s, dt 0.05 s: a network as users quantized it, and it fell silent.\"\"\"
    torch.manual_seed(0)
    hidden = CubaLIF(tau(3.2), tau(1.3), synapse="after_decay", v_reset=None, several=True)
    out = CubaLIF(tau(3.2), tau(1.3), synapse="after_decay", v_reset=None)
    net = nn.Sequential(PerStep(nn.Linear(12, 64, bias=False)), hidden, PerStep(nn.Linear(64, 8, bias=False)), out)
    with torch.no_grad():
        net[0][0].weight.copy_(torch.randn(64, 12) * 0.8)
        net[2][0].weight.copy_(torch.randn(8, 64) * 0.2)
    return net

def spikes(split):
    torch.manual_seed(1)
    return [((torch.rand(60, 8, 12) < 0.3).float(), torch.zeros(8, dtype=torch.long))]

def real(split):
    return [(torch.rand(6, 4, 12), torch.zeros(4, dtype=torch.long))]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "chip_nets.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("chip_nets", None)
    yield
    sys.modules.pop("chip_nets", None)


NETWORK = ("--model", "chip_nets:short", "--data", "chip_nets:spikes", "--hardware", "xylo-a2")


def test_the_rounding_that_silenced_a_network_and_its_cure(here: Any, run: Callable[..., Any]) -> None:
    done = run("lower", *NETWORK, "--shift-by", "log2")
    assert done.code == 0, done.err
    assert "layer '1' falls silent" in done.out
    assert "by its decays (alone: 0.0000)" in done.out
    assert "a shift of 0, which wipes the current before it is used" in done.out
    assert "mend  --shift-by factor --gain l2" in done.out
    assert "fan-out of a hidden neuron" in done.out
    found = json.loads(run("lower", *NETWORK, "--shift-by", "log2", "--json").out)
    finding, cures = found["finding"], found["finding"]["cures"]
    assert (finding["layer"], finding["silent"], finding["cause"], finding["chip_rate"]) == ("1", True, "decays", 0.0)
    # int8 weights alone leave the rate where it was
    assert abs(found["rates"]["1"]["weights"] / finding["float_rate"] - 1) < 0.02
    assert cures[0]["options"] == {"shift_by": "factor", "gain": "l2"}
    assert abs(cures[0]["rate"] / finding["float_rate"] - 1) < 0.1
    assert 0.0 <= cures[0]["accuracy"] <= 1.0
    mended = json.loads(run("lower", *NETWORK, "--gain", "l2", "--json").out)
    assert mended["rates"]["1"]["chip"] == pytest.approx(cures[0]["rate"])
    assert mended["finding"] is None or not mended["finding"]["silent"]


def test_the_integers_are_written_and_are_the_network(here: Any, run: Callable[..., Any]) -> None:
    done = run("lower", *NETWORK, "--gain", "l2", "--out", "codes", "--json")
    assert done.code == 0, done.err
    network = read_bundle("codes")
    assert network.latency == {"1": 0, "3": 1, "readout": 0}
    # a spike a neuron and step, as the command said
    frames = sys.modules["chip_nets"].spikes("test")[0][0]
    rate = float(network.aligned(network.codes(frames)).spikes["1"].double().mean())
    assert rate == pytest.approx(json.loads(done.out)["rates"]["1"]["chip"])


def test_what_a_chip_cannot_run_is_a_list_and_status_1(here: Any, run: Callable[..., Any]) -> None:
    words = ("lower", "--model", "chip_nets:short", "--data", "chip_nets:real", "--hardware", "xylo-a2")
    done = run(*words)
    assert done.code == 1
    assert "inputs are real numbers, the chip takes 0 to 15 spikes a step" in done.out
    assert json.loads(run(*words, "--json").out)["refusals"][0]["rule"] == "inputs"


def test_an_unknown_chip_is_told(here: Any, run: Callable[..., Any]) -> None:
    done = run("lower", "--model", "chip_nets:short", "--data", "chip_nets:spikes", "--hardware", "xylo-z9")
    assert (done.code, "xylo-a2" in done.err) == (2, True)
