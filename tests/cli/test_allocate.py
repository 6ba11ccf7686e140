"""`isofire allocate`: limits that do not go together, and one that cannot be met."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what must be kept to: a budget, --weight-kib"),
        (("--synops", "5", "--max-floors", "2"), "give one of the two kinds"),
        (("--energy-uj", "-1"), "--energy-uj must be positive, got -1"),
        (("--weight-kib", "0"), "--weight-kib must be positive, got 0"),
        (("--max-floors", "0"), "--max-floors must be positive, got 0"),
        (("--max-accuracy-drop", "-1"), "--max-accuracy-drop is a share of images, from 0 to below 1, got -1"),
        (("--max-accuracy-drop", "1"), "--max-accuracy-drop is a share of images, from 0 to below 1, got 1"),
    ],
)
def test_mistakes(run, config, words, message):
    result = run("allocate", "fp.safetensors", "-c", config, *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_the_least_that_can_be_kept_to_is_said(run, trained, config):
    rules = "quant.rules=[{match='re:stages.*', weights='float'}]"
    words = ("-c", config, "--set", rules, "--set", "quant.first_layer='quantize'", "--bits", "4", "--n", "20")
    result = run("allocate", trained / "model.safetensors", *words, "--weight-kib", "0.001", "--json")
    assert result.code == 2
    # the first layer: 4 kernels of 3 x 3 in 4 bits, and a 32-bit step each; the last one stays float
    # 34 / 1,024 is .0332031, rounded up
    text = json.loads(result.out)["error"]["message"]
    least = "with these bits the least is 0.03321 KiB (34 bytes); raise it"
    assert f"the limit weight = 0.001 KiB (1.024 bytes) cannot be met: {least}" in text


def test_accuracy_of_a_network_that_guesses_is_not_kept(run, tmp_path, monkeypatch):
    (tmp_path / "guessing_nets.py").write_text(
        "import torch\nfrom isofire.neurons import LIF, PerStep, Repeat\nfrom torch import nn\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    layers = PerStep(nn.Flatten(), nn.Linear(64, 8)), LIF(v_threshold=0.3), PerStep(nn.Linear(8, 10))\n"
        "    net = nn.Sequential(Repeat(2), *layers)\n"
        "    nn.init.zeros_(net[3][0].weight)\n"
        "    return net\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "spec.toml").write_text(
        '[quant]\nfirst_layer = "quantize"\n[quant.weights]\nmethod = "uniform"\nbits = 8\n'
    )
    words = ("--model", "guessing_nets:build", "--data", "digits", "-c", "spec.toml", "--bits", "8", "--n", "40")
    found = run("allocate", *words, "--max-accuracy-drop", "0.5")
    assert (found.code, "! baseline not above chance" in found.out) == (3, True), found.err
    # it has one layer of neurons, so nothing for that rule to rank
    assert "it ranks layers of neurons after the first" in found.out
    assert run("allocate", *words, "--weight-kib", "9").code == 0
