"""Which rounding of which layer: float networks with one change, beside networks that are rounded by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import SpecError
from isofire.export import read_bundle, write_bundle
from isofire.firing import Comparison
from isofire.integer import Change, Changes, lower
from isofire.models import save_model
from isofire.neurons import IF, LIF, CubaLIF, PerStep, Recurrent
from isofire.study import blame


def cuba(tau: float, tau_synapse: float, several: bool) -> CubaLIF:
    return CubaLIF(tau, tau_synapse, synapse="after_decay", v_reset=None, several=several)


def between(tau: float = 6.0, tau_synapse: float = 3.0) -> nn.Sequential:
    """Of its two layers of neurons the first has time constants between bit shifts."""
    torch.manual_seed(0)
    hidden, output = nn.Linear(8, 24, bias=False), nn.Linear(24, 8, bias=False)
    with torch.no_grad():
        hidden.weight.mul_(2.0), output.weight.mul_(2.0)
    return nn.Sequential(
        PerStep(hidden), cuba(tau, tau_synapse, True), PerStep(output), cuba(8.0, 2.0, False)
    ).eval()  # fmt: skip


def spikes(count: int = 40) -> Tensor:
    return torch.randint(0, 4, (12, count, 8), generator=torch.Generator().manual_seed(1)).float()


def measured(found: Comparison) -> dict[str, float]:
    return dict(found.overall) | {layer.layer: layer.mfr for layer in found.layers}


def same(found: Comparison, due: Comparison) -> None:
    ours, theirs = measured(found), measured(due)
    assert {key: ours[key] for key in theirs if key in ours} == pytest.approx(
        {key: value for key, value in theirs.items() if key in ours}, abs=1e-9, nan_ok=True
    )


def test_the_decays_of_a_layer_are_named_and_measured() -> None:
    model, x = between(), spikes()
    data = [(x, torch.arange(40) % 8)]
    chip = lower(model, x, hardware="xylo-a2", approximate=True)
    found = blame(model, chip, None, data)
    lines = {(item.name, item.target): item for item in found.quantizers}
    assert ("1", "decays") in lines
    # 8 and 2 are bit shifts
    assert ("3", "decays") not in lines
    decays = lines["1", "decays"]
    # shares of 1/6 and 1/3 are nearest to 2^-3 and 2^-2: 8 and 4 steps
    same(decays.alone, isofire.compare(model, between(8.0, 4.0), data))
    assert decays.starts == decays.worst == "1"
    assert decays.alone.overall["emd_layer_mean"] > 20 * lines["0.0", "weights"].alone.overall["emd_layer_mean"]
    assert decays.without is not None
    assert decays.without.overall["emd_layer_mean"] < 0.1 * found.everything.overall["emd_layer_mean"]
    same(found.everything, isofire.compare(model, chip, data))
    states = lines["all layers", "states"]
    twin = Changes(model, chip).make(Changes(model, chip).all)
    same(states.alone, isofire.compare(twin, chip, data))
    assert "1 decays" in found.table()
    assert "\nchange " in found.table()


def test_one_layers_weights_alone_are_its_codes() -> None:
    model, x = between(8.0, 4.0), spikes()
    chip = lower(model, x, hardware="xylo-a2", approximate=True)
    changed: Any = Changes(model, chip).make([Change("2.0", "weights")])
    assert torch.equal(changed[0][0].weight, model[0][0].weight)
    ratio = changed[2][0].weight.detach().double() / model[2][0].weight.detach().double()
    weight = changed[2][0].weight.detach().double()
    step = weight.abs().amax(1, keepdim=True) / chip.connections[1].weight.abs().amax(1, keepdim=True)
    assert torch.allclose(weight / step, chip.connections[1].weight.double(), atol=1e-4)
    assert float((ratio - 1.0).abs().median()) < 0.02


def hand_rounded(model: nn.Sequential, bits: int) -> nn.Sequential:
    """Rows of weights on 2^(bits-1) - 1 steps to their largest."""
    twin = copy.deepcopy(model)
    for layer in (twin[0][0], twin[2][0]):
        step = layer.weight.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        layer.weight = nn.Parameter((layer.weight.detach() / step).round() * step)
    return twin


def test_integers_of_their_own() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        PerStep(nn.Linear(8, 24)), LIF(3.0), PerStep(nn.Linear(24, 8)), IF(v_threshold=0.3)
    ).eval()  # fmt: skip
    x = torch.rand(12, 40, 8, generator=torch.Generator().manual_seed(1)) * 3
    data = [(x, torch.arange(40) % 8)]
    integers = lower(model, x, input_bits=4, weight_bits=4)
    found = blame(model, integers, None, data)
    lines = {(item.name, item.target): item for item in found.quantizers}
    assert set(lines) == {
        ("input", "inputs"), ("0.0", "weights"), ("1", "decays"), ("2.0", "weights"), ("all layers", "states")
    }  # fmt: skip
    rounded: Any = copy.deepcopy(model)
    rounded[0][0] = hand_rounded(model, 4)[0][0]
    same(lines["0.0", "weights"].alone, isofire.compare(model, rounded, data))
    # 4 bits have 7 steps on a side, of a power of two: 3 / 0.5 = 6
    inputs = isofire.compare(model, model, [((x / 0.5).round() * 0.5, torch.arange(40) % 8)])
    alone = lines["input", "inputs"].alone
    assert [layer.mfr for layer in alone.layers] == pytest.approx([layer.mfr for layer in inputs.layers])
    assert alone.overall["emd_layer_mean"] > 0
    # 1/3 as 20 binary digits moves no spike, and nothing is left for the states
    assert lines["1", "decays"].alone.overall["emd_layer_mean"] == 0.0
    assert lines["all layers", "states"].alone.overall["emd_layer_mean"] == 0.0
    assert found.everything.overall["emd_layer_mean"] > 0


@pytest.mark.parametrize("recurrent", [False, True])
def test_all_changes_but_states_give_the_integers_spikes(recurrent: bool) -> None:
    """Batch norm, pools, membrane levels and recurrent weights: each change is undone in the right units."""
    torch.manual_seed(0)
    if recurrent:
        cell = Recurrent(CubaLIF(4.0, 3.0, v_threshold=0.7), nn.Linear(12, 12))
        model = nn.Sequential(PerStep(nn.Linear(8, 12)), cell, PerStep(nn.Linear(12, 5))).eval()
        x = torch.rand(10, 30, 8)
    else:
        model = nn.Sequential(
            PerStep(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)), LIF(3.0, v_threshold=0.3),
            PerStep(nn.AvgPool2d(2), nn.Conv2d(6, 4, 2)),
            LIF(2.0, v_threshold=0.1, v_reset=None), PerStep(nn.Flatten(), nn.Linear(16, 5)),
        )  # fmt: skip
        x = torch.rand(6, 30, 1, 8, 8)
        model.train()(x), model.eval()
    integers = lower(model, x, input_bits=5, weight_bits=5)
    found = blame(model, integers, None, [(x, torch.arange(30) % 5)])
    lines = {(item.name, item.target): item for item in found.quantizers}
    assert ("1.weight" in [name for name, _ in lines]) == recurrent
    assert found.everything.overall["emd_layer_mean"] > 1e-4
    assert (
        lines["all layers", "states"].alone.overall["emd_layer_mean"]
        < 1e-3 * (found.everything.overall["emd_layer_mean"])
    )
    assert lines["all layers", "states"].alone.agreement == 1.0


def test_a_chips_integers_from_a_file_are_refused(tmp_path: Path) -> None:
    model, x = between(), spikes()
    chip = lower(model, x, hardware="xylo-a2", approximate=True)
    again = read_bundle(write_bundle(tmp_path / "chip", chip, chip.codes(x[:, :1])))
    with pytest.raises(SpecError, match=r"rules of a chip.*--hardware"):
        blame(model, again, None, [(x, torch.arange(40) % 8)])


def test_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    from isofire.cli import main

    torch.manual_seed(0)
    model = isofire.models.build({"builder": "sew_resnet8", "width": 0.125, "T": 2, "in_channels": 1})
    images = next(iter(isofire.data.load("digits", "test").first(40).batches(40)))[0]
    model.train()(images)
    file = save_model(tmp_path / "fp.safetensors", model.eval())
    integers = lower(model, images, input_bits=3, weight_bits=3)
    bundle = write_bundle(tmp_path / "codes", integers, integers.codes(images[:1]))
    assert main(["blame", str(file), str(bundle), "--data", "digits", "--n", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["quantizers"]
    assert [item["name"] for item in found if item["target"] == "inputs"] == ["input"]
    assert next(item["name"] for item in found if item["target"] == "weights") == "stem"
    assert (found[-1]["name"], found[-1]["target"]) == ("all layers", "states")
    for words, said in (
        (["--preset", "keep-firing"], "leave one out"), (["--hardware", "loihi1"], "leave one out"),
    ):  # fmt: skip
        assert main(["blame", str(file), str(bundle), "--data", "digits", *words]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["blame", str(file), "--hardware", "none-such", "--data", "digits", "--n", "20"]) == 2


def test_a_bundle_may_stand_alone_beside_a_network_that_is_built(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from isofire.cli import main

    code = """
import torch
from torch import nn
from isofire.neurons import LIF, PerStep
def build():
    torch.manual_seed(0)
    return nn.Sequential(PerStep(nn.Linear(6, 8)), LIF(3.0), PerStep(nn.Linear(8, 3)), LIF(3.0))
def load(split):
    return torch.ones(5, 4, 6), torch.zeros(4, dtype=torch.int64)
"""
    (tmp_path / "blamed_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import blamed_nets  # type: ignore[import-not-found]

    integers = lower(blamed_nets.build(), torch.ones(5, 4, 6))
    bundle = write_bundle(tmp_path / "codes", integers, torch.ones(5, 1, 6, dtype=torch.int64))
    words = ["--model", "blamed_nets:build", "--data", "blamed_nets:load", "--json"]
    assert main(["blame", str(bundle), *words]) == 0
    found = json.loads(capsys.readouterr().out)["quantizers"]
    assert [(item["name"], item["target"]) for item in found][-1] == ("all layers", "states")
