"""`isofire init` asks the network, and what it writes is taken by the commands that it names."""

from __future__ import annotations

import json
import tomllib

from isofire.cli import main
from isofire.config import read_config
from isofire.config.sweep import read_sweep


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
