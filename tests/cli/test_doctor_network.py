"""`isofire doctor NETWORK`: faults that were built in are found, in every kind of file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import isofire
from isofire.models import save_model, sew_resnet8

CODE = """
import torch
from torch import nn
from isofire.neurons import IF, PerStep, Repeat

def build():
    torch.manual_seed(0)
    net = nn.Sequential(Repeat(3), nn.Flatten(2), PerStep(nn.Linear(4, 6)), IF(), PerStep(nn.Linear(6, 4)), IF())
    with torch.no_grad():
        net[2][0].weight.fill_(0.5)
        net[2][0].bias.zero_()
        net[4][0].weight.fill_(1.0)
        net[4][0].bias.zero_()
    return net.eval()

def load(split):
    return torch.full((40, 1, 2, 2), 0.25), torch.zeros(40, dtype=torch.long)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "doctor_nets.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("doctor_nets", None)
    yield tmp_path
    sys.modules.pop("doctor_nets", None)


def digits_net() -> nn.Module:
    torch.manual_seed(0)
    return sew_resnet8(width=0.25, T=2, in_channels=1).eval()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A network, and the same with one layer's norm so low that it cannot fire and a 2-bit membrane in another."""
    model = digits_net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # a mean current at which a neuron at rest fires
            nn.init.constant_(module.bias, 2.0)
    save_model(tmp_path / "fp.safetensors", model)
    spec = isofire.QuantSpec(rules=({"match": "stages.0.0.sn1", "membrane": {"bits": 2}},))
    isofire.quantize_(model, spec)
    nn.init.constant_(model.get_submodule("stages.1.0.bn1").bias, -50.0)  # type: ignore[arg-type]
    save_model(tmp_path / "q.safetensors", model)
    return tmp_path / "fp.safetensors", tmp_path / "q.safetensors"


def test_a_silenced_layer_of_a_file(run, files):
    baseline, quantized = files
    result = run("doctor", quantized, "--baseline", baseline, "--data", "digits", "--n", "40", "--json")
    assert result.code == 1, result.err
    found = json.loads(result.out)
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert (found["healthy"], found["n_images"], found["T"]) == (False, 40, 2)
    assert (layers["stages.1.0.sn1"]["rate"], layers["stages.1.0.sn1"]["dead"]) == (0.0, 1.0)
    assert layers["stages.1.0.sn1"]["rate_baseline"] > 0
    # 2 bits on [-1, 1], rounded to nearest: the middle of 1/3 and 1
    assert layers["stages.0.0.sn1"]["fires_from"] == pytest.approx([2 / 3, 2 / 3], abs=1e-6)
    assert [f["layer"] for f in found["faults"] if f["state"] == "broken"] == ["stages.1.0.sn1"]
    shown = run("doctor", quantized, "--baseline", baseline, "--data", "digits", "--n", "40")
    assert shown.code == 1
    assert "broken  stages.1.0.sn1: no neuron fires: its currents are too weak, the highest potential is" in shown.out
    assert "-> " in shown.out


def test_a_healthy_network_and_one_without_data(run, files):
    baseline, quantized = files
    fine = run("doctor", baseline, "--data", "digits", "--n", "20")
    assert (fine.code, "no layer is broken" in fine.out) == (0, True)
    bare = run("doctor", quantized)
    assert bare.code == 0
    assert "no data: firing was not looked at" in bare.out
    assert "stages.0.0.sn1: it fires from 0.667 on, not from 1" in bare.out


def test_a_network_of_ones_own_code_with_levels_below_its_threshold(run, here):
    from doctor_nets import build  # pyright: ignore[reportMissingImports]

    model = build()
    save_file(model.state_dict(), here / "fp.safetensors")
    # 0.5 * 4 * 0.25 = 0.5 a step: full precision fires at the second of three steps
    words = ("--model", "doctor_nets:build", "--data", "doctor_nets:load")
    fine = json.loads(run("doctor", "fp.safetensors", *words, "--json").out)
    assert fine["layers"][0]["rate"] == pytest.approx(1 / 3)
    spec = "[quant.membrane]\nmethod = 'levels'\nlevels = [0.0, 0.6]\nplacement = 'post_reset'\n"
    (here / "spec.toml").write_text(spec)
    made = run("quantize", *words, "--weights", "fp.safetensors", "-c", "spec.toml", "-o", "q")
    assert made.code == 0, made.err
    # 0.5 is stored as 0.6, so it still fires at the second step; as 0.4 too, but only at the third from 0.4 + 0.5 < 1
    same = run("doctor", "q/model.safetensors", *words, "--baseline", "fp.safetensors", "--json")
    assert same.code == 0, same.err
    layer = json.loads(same.out)["layers"][0]
    assert (layer["rate"], layer["levels"], layer["levels_used"]) == (pytest.approx(1 / 3), 2, 2)
    # stored are 0.5 (nearer to 0.6), and 0 after the reset: nothing lies outside
    assert (layer["below"], layer["above"]) == (0.0, 0.0)
    low = run("quantize", *words, "--weights", "fp.safetensors", "-c", "spec.toml", "-o", "low",
              "--set", "quant.membrane.levels=[0.0, 0.3]")  # fmt: skip
    assert low.code == 0, low.err
    # 0.5 is stored as 0.3, and 0.3 + 0.5 is no more than 0.8
    found = run("doctor", "low/model.safetensors", *words, "--baseline", "fp.safetensors", "--json")
    assert found.code == 1
    document = json.loads(found.out)
    assert document["layers"][0]["rate"] == 0.0
    # at steps 1, 2 and 3: 0.5, 0.8, 0.8, all above 0.3
    assert document["layers"][0]["above"] == 1.0
    assert "rounded so that it does not add up" in document["faults"][0]["found"]
    assert "nothing arrives" in document["faults"][1]["found"]


def test_a_nir_graph(run, here):
    pytest.importorskip("nir")
    from isofire import nir

    model = digits_net()
    nir.write(here / "net.nir", model, torch.zeros(1, 1, 8, 8))
    result = run("doctor", "net.nir", "--data", "digits", "--n", "10", "--json")
    assert len(json.loads(result.out)["layers"]) == 9, result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no.safetensors",), "no.safetensors"),
        (("fp.safetensors", "--baseline", "fp.safetensors"), "name the data by --data NAME"),
        (("fp.safetensors", "--n", "5"), "name the data by --data NAME"),
        (("fp.safetensors", "--data", "digits", "--n", "0"), "--n must lie in"),
        (("--baseline", "fp.safetensors"), "isofire doctor NETWORK"),
        (("--n", "5"), "isofire doctor NETWORK"),
    ],
)
def test_mistakes(run, files, words, message):
    result = run("doctor", *words)
    assert result.code == 2, result.out
    assert message in result.err
