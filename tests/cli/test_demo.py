from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from isofire.cli.demo import demo_config
from isofire.cli.demo_cells import demo_cells
from isofire.models import load_model
from isofire.quantization import labels_of
from isofire.study import read_rows


def test_reduced_demo_does_it_all(run):
    result = run("demo", "--quick", "--out", "d", "--device", "cpu")
    assert result.code == 0, result.err
    files = {path.name for path in Path("d").iterdir()}
    assert {"baseline.safetensors", "results.csv", "results.json", "table.md", "environment.json"} <= files
    rows = read_rows("d/results.csv")
    assert rows == read_rows("d/results.json")
    assert [(row["target"], row["mode"]) for row in rows] == [
        ("none", "ptq"), ("none", "qat"), ("membrane", "ptq"), ("weights", "qat")
    ]  # fmt: skip
    assert "quantize nothing and drift by up to" in result.out
    assert max(len(line) for line in result.out.split("\n\n")[1].splitlines()) <= 100
    assert "baseline: accuracy" in result.err
    model, note = load_model("d/baseline.safetensors")
    assert note["test"]["accuracy"] == rows[0]["accuracy_fp"]
    pytest.importorskip("matplotlib")
    for name in ("accuracy-emd.png", "rates.png"):
        assert (Path("d") / name).read_bytes().startswith(b"\x89PNG")
    del model


def test_reduced_demo_as_json_is_the_same_twice(run):
    documents = []
    torch.set_num_threads(2)
    for out in ("a", "b"):
        result = run("demo", "--quick", "--out", out, "--json", "--seed", 3, "--device", "cpu")
        documents.append(json.loads(result.out))
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in found["rows"]] for found in documents]
    assert rows[0] == rows[1]
    assert all(row["seed"] == 3 for row in rows[0])
    assert torch.get_num_threads() == 1


def test_without_matplotlib_the_demo_still_ends_well(run, monkeypatch):
    monkeypatch.setattr("isofire.cli.figures.find_spec", lambda _: None)
    result = run("demo", "--quick", "--out", "d", "--device", "cpu")
    assert result.code == 0
    assert "isofire[report]" in result.err
    assert not list(Path("d").glob("*.png"))


def test_full_demo_covers_what_it_promises():
    cells = [(labels_of(cell.spec), cell.mode) for cell in demo_cells()]
    assert [(labels["target"], mode) for labels, mode in cells[:2]] == [("none", "ptq"), ("none", "qat")]
    trained = {
        (labels["method"], labels["bits"]) for labels, mode in cells if mode == "qat" and labels["target"] == "weights"
    }
    assert {(method, bits) for method in ("uniform", "lsq", "lqnet") for bits in (2, 4)} == trained
    membranes = {(labels["placement"], labels["bits"]) for labels, mode in cells if labels["target"] == "membrane"}
    assert {(place, bits) for place in ("pre_fire", "post_reset") for bits in (2, 4, 6, 8)} == membranes
    config = demo_config(seed=4)
    assert config.seed == 4
    assert config.train is not None
    assert config.qat is not None
    assert config.train.seed == 4


def test_settings_change_the_configuration_of_the_package(run):
    result = run("demo", "--quick", "--set", "model.T=2", "--set", "data.test_images=40", "--set", "seed=6",
                 "--json", "--device", "cpu")  # fmt: skip
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert {(row["T"], row["n_images"], row["seed"]) for row in rows} == {(2, 40, 6)}


def test_another_configuration_takes_the_place_of_the_package(run, config):
    result = run("demo", "--quick", "-c", config, "--set", "data.test_images=30", "--set", "out=from-config",
                 "--seed", 8, "--json", "--device", "cpu")  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert {(row["T"], row["n_images"], row["seed"]) for row in found["rows"]} == {(2, 30, 8)}
    assert found["baseline"]["valid"]["n"] == 100
    assert Path("from-config/results.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "train.epochz=1"), "did you mean 'epochs'"),
        (("--set", "train.epochs"), "key=value"),
        (("--config", "no.toml"), "cannot read no.toml"),
        (("--config", "bare.toml"), "needs a [model] table"),
    ],
)
def test_mistakes_are_found_before_the_work(run, tmp_path, arguments, message):
    (tmp_path / "bare.toml").write_text('[data]\nname = "digits"\n')
    result = run("demo", *arguments, "--out", "d")
    assert result.code == 2
    assert message in result.err
    assert not Path("d").exists()


def test_several_processes_are_refused(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("demo", "--quick", "--out", "d")
    assert result.code == 2
    assert "isofire demo runs in one process" in result.err
    assert not Path("d").exists()
