"""`isofire init` asks the network, and what it writes is taken by the commands that it names."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from isofire.adapters import adapter_of
from isofire.cli import main
from isofire.config import read_config
from isofire.config.sweep import read_sweep
from isofire.neurons import LIF


def test_files_say_what_the_network_is_and_are_read(tmp_path, capsys) -> None:
    out = tmp_path / "start"
    assert main(["init", "sew_resnet8-digits", "--data", "digits", "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["library"], document["T"]) == ("isofire", 4)
    # 8x8 images, 16 channels
    assert document["neurons"]["stem_sn"] == 16 * 8 * 8
    text = (out / "quantize.toml").read_text()
    assert "T = 4, 9 layers of neurons (LIF; 5,376 neurons), 10 layers with weights" in text
    settings = read_config(out / "quantize.toml")
    assert settings.data is not None
    assert settings.data.name == "digits"
    assert settings.quant is not None
    sweep = read_sweep(out / "sweep.toml")
    assert [item.pretrained for item in sweep.baselines] == ["sew_resnet8-digits"]
    # what is commented out is TOML too
    shown = ("# [[quant.rules", "# match", "# weights =")
    lines = [line.removeprefix("# ") if line.startswith(shown) else line for line in text.splitlines()]
    assert tomllib.loads("\n".join(lines))["quant"]["rules"][0]["weights"]["bits"] == 8


def test_files_that_are_there_stay(tmp_path, capsys) -> None:
    (tmp_path / "sweep.toml").write_text("mine")
    command = ["init", "sew_resnet8-digits", "--data", "digits", "-o", str(tmp_path)]
    assert main(command) == 2
    assert "give --force to write over it" in capsys.readouterr().err
    assert (tmp_path / "sweep.toml").read_text() == "mine"
    assert not (tmp_path / "quantize.toml").exists()
    assert main([*command, "--force"]) == 0


def test_without_data_it_says_what_to_give(tmp_path, capsys) -> None:
    assert main(["init", "--model", "isofire.models:sew_resnet8", "-o", str(tmp_path)]) == 2
    assert "init needs data to ask the network with" in capsys.readouterr().err


NETS = """
import torch
from isofire.data import load as of_package
from isofire.neurons import LIF, PerStep, Repeat
from torch import nn

def build():
    torch.manual_seed(0)
    return drawn()

def drawn():
    return nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.Linear(64, 16)), LIF(), PerStep(nn.Linear(16, 10)))

def load(split):
    data = of_package("digits", split).first(150)
    return data.normalize(data.images), data.labels
"""


def test_what_it_says_to_run_runs_as_it_stands(tmp_path, monkeypatch, capsys) -> None:
    """A network and a pair of tensors of one's own, down to the page; nobody trained it, which all of them say."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "init_nets.py").write_text(NETS)
    assert main(["init", "--model", "init_nets:build", "--data", "init_nets:load", "-o", "start"]) == 0
    said = capsys.readouterr().out
    assert "! the network is not above chance: right on" in said
    lines = [line.strip() for line in said.splitlines() if line.strip().startswith("isofire ")]
    assert [line.split()[1] for line in lines] == ["quantize", "sweep", "report"]
    text = (tmp_path / "start" / "sweep.toml").read_text()
    assert f"# run: {lines[1]}" in text
    # two kinds of cells are enough here
    cut = text[: text.index("[[cells]]                      # weights whose")].replace("[2, 4, 8]", "[2]")
    (tmp_path / "start" / "sweep.toml").write_text(cut)
    for line in lines:
        more = ["--workers", "1"] if " sweep " in line else []
        assert main([*line.split()[1:], *more]) == 0, line
    told = capsys.readouterr()
    assert told.out.count("! baseline not above chance") == 1
    assert "! baseline network: not above chance" in told.out
    assert "Baseline network not above chance" in (tmp_path / "start" / "sweep" / "report.html").read_text()


def test_a_sweep_of_weights_that_are_drawn_anew_is_refused_before_it_starts(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "init_nets.py").write_text(NETS)
    network = ["--model", "init_nets:drawn", "--data", "init_nets:load"]
    assert main(["init", *network, "-o", "start"]) == 0
    assert main(["sweep", "start/sweep.toml", "--allow-code", "-o", "out"]) == 2
    told = capsys.readouterr().err
    assert "init_nets:drawn draws its weights anew in each call (1.1.weight); name trained ones by --weights" in told
    assert not (tmp_path / "out").exists()


def test_a_result_of_other_settings_stays(tmp_path, monkeypatch, capsys) -> None:
    """The same command may be given again, another one needs --force or another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "init_nets.py").write_text(NETS)
    (tmp_path / "spec.toml").write_text('[quant]\nfirst_layer = "quantize"\n[quant.weights]\nmethod = "uniform"\n')
    network = ["--model", "init_nets:build", "--data", "init_nets:load"]
    quantize = ["quantize", *network, "-c", "spec.toml", "-o", "q"]
    bits = [["--set", f"quant.weights.bits={number}"] for number in (3, 4)]
    compare = ["compare", "q/model.safetensors", *network, "-o", "c"]
    assert main([*quantize, *bits[0]]) == main([*compare, "--n", "20"]) == 0
    kept = {file: (tmp_path / file).read_bytes() for file in ("q/row.json", "c/row.json")}
    assert main([*quantize, *bits[1]]) == main([*compare, "--n", "30"]) == 2
    told = capsys.readouterr().err
    assert "q/model.safetensors is there already, made with other settings (quant); give --force" in told
    assert "c/comparison.json is there already, made with other settings (data); give --force" in told
    assert kept == {file: (tmp_path / file).read_bytes() for file in kept}
    assert main([*quantize, *bits[0]]) == main([*compare, "--n", "20"]) == 0
    assert main([*quantize, *bits[1], "--force"]) == main([*compare, "--n", "30", "--force"]) == 0
    assert json.loads((tmp_path / "q" / "row.json").read_text())["rows"][0]["bits"] == 4
    # and a baseline is not trained over it
    (tmp_path / "train.toml").write_text('[model]\nbuilder = "sew_resnet8"\n[data]\nname = "digits"\n[train]\nlr = 1\n')
    assert main(["train", "-c", "train.toml", "--set", "train.epochs=1", "-o", "q"]) == 2
    assert "not of isofire train" in capsys.readouterr().err


def test_states_are_quantized_where_the_neurons_can(tmp_path, monkeypatch) -> None:
    """One layer of two that stores nothing after the reset stays float; where both do not, the place changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    both = NETS.replace("LIF(), PerStep", "LIF(), PerStep(nn.Linear(16, 16)), IF(), PerStep")
    (tmp_path / "two_nets.py").write_text(both.replace("import LIF", "import IF, LIF"))
    refused: dict[str, set[str]] = {}

    def refusal(self: object, neuron: object, placement: str) -> str | None:
        return "it has no place" if type(neuron).__name__ in refused.get(placement, set()) else None

    adapter = adapter_of(LIF())
    monkeypatch.setattr(type(adapter), "refusal", refusal)

    def written() -> tuple[dict[str, Any], dict[str, Any]]:
        run = ["init", "--model", "two_nets:build", "--data", "two_nets:load", "-o", "start", "--force"]
        assert main(run) == 0
        return tuple(tomllib.loads((tmp_path / "start" / f"{name}.toml").read_text()) for name in ("quantize", "sweep"))

    refused["post_reset"] = refused["pre_fire"] = {"IF"}
    quantize, sweep = written()
    assert quantize["quant"]["membrane"] == {"method": "firing", "bits": 2}
    assert quantize["quant"]["rules"] == [{"match": "4", "membrane": "float"}]
    assert sweep["cells"][-1]["spec"]["rules"] == [{"match": "4", "membrane": "float"}]
    refused.update(post_reset={"IF", "LIF"}, pre_fire=set())
    quantize, sweep = written()
    assert quantize["quant"]["membrane"]["placement"] == sweep["cells"][-1]["membrane"]["placement"] == "pre_fire"
    assert "rules" not in quantize["quant"]
    refused["pre_fire"] = {"IF", "LIF"}
    quantize, sweep = written()
    assert "membrane" not in quantize["quant"]
    assert not any("membrane" in cell for cell in sweep["cells"])
    assert "stays in floating point: it has no place" in (tmp_path / "start" / "sweep.toml").read_text()
