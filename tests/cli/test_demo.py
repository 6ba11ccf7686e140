from __future__ import annotations

import json
from pathlib import Path

import pytest

from isofire.study import read_rows
from isofire.sweep import Results

TINY = ("--set", "baselines.0.model.width=0.25", "--set", "baselines.0.train.epochs=1", "--set", "qat.epochs=1",
        "--set", "data.train_images=200", "--set", "data.test_images=60", "--set", "calibration_images=64",
        "--set", "qat.warmup_epochs=0", "--device", "cpu", "--workers", "1")  # fmt: skip
CONTROL = '{mode=["ptq"]}'
STATES = '{mode=["ptq"],membrane={bits=2,range=[0.0,1.0]}}'
TRAINED = '{mode=["qat"],weights={method="lsq",bits=2}}'


def test_reduced_demo_does_it_all(run):
    result = run("demo", *TINY, "--set", f"cells=[{CONTROL},{STATES},{TRAINED}]", "--out", "d")
    assert result.code == 0, result.err
    rows = read_rows("d/results.csv")
    assert {(row["target"], row["mode"], row["seed"]) for row in rows} == {
        ("none", "ptq", 0), ("membrane", "ptq", 0), ("weights", "qat", 0)
    }  # fmt: skip
    assert "3 cells: 3 done" in result.out
    assert "wrote d/report.html" in result.out
    assert "sew8" in Path("d/report.html").read_text()
    assert len(Results.open("d").rows) == 3
    pytest.importorskip("matplotlib")
    assert Path("d/accuracy-emd.png").read_bytes().startswith(b"\x89PNG")


def test_json_seed_and_another_file(run):
    result = run("demo", "-c", "configs/demo/digits.toml", *TINY,
                 "--set", f"cells=[{CONTROL}]", "--seed", 3, "--json", "--out", "d")  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [(row["seed"], row["n_images"]) for row in found["rows"]] == [(3, 60)]
    assert "d/report.html" in found["files"]


def test_without_the_packages_for_pages_it_still_ends_well(run, monkeypatch):
    for place in ("isofire.cli.figures", "isofire.cli.demo"):
        monkeypatch.setattr(f"{place}.find_spec", lambda _: None)
    result = run("demo", *TINY, "--set", f"cells=[{CONTROL}]", "--out", "d")
    assert result.code == 0, result.err
    assert result.err.count("isofire[report]") == 2
    assert not list(Path("d").glob("*.png"))
    assert not Path("d/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "qat.epochz=1"), "did you mean 'epochs'"),
        (("--set", "qat.epochs"), "key=value"),
        (("--config", "no.toml"), "cannot read no.toml"),
        (("--config", "bare.toml"), "a sweep needs a name"),
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
    result = run("demo", "--out", "d")
    assert result.code == 2
    assert "isofire demo runs in one process" in result.err
    assert not Path("d").exists()
