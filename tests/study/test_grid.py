"""A grid of cells: what it expands to, and that a finished cell is never run again."""

from __future__ import annotations

import json

import pytest
import torch

from isofire.errors import CheckpointError, SpecError
from isofire.models import save_model, sew_resnet8
from isofire.spec import LSQWeights, QuantSpec, UniformMembrane
from isofire.study import grid as grid_module
from isofire.study import read_rows
from isofire.study.__main__ import main
from isofire.study.grid import Grid, cell_key, run_grid
from isofire.study.splits import load_splits

TEXT = """
seeds = [0, 1]
calibration_images = 64
[data]
name = "digits"
train_images = 128
test_images = 60
[qat]
epochs = 1
lr = 0.01
batch_size = 64
[[cells]]
mode = ["ptq"]
[[cells]]
mode = ["ptq", "qat"]
bits = [2, 4]
weights = { method = "lsq" }
[[cells]]
mode = ["ptq"]
bits = [3]
membrane = { range = [0.0, 1.0] }
spec = { reestimate_bn = "always" }
"""


@pytest.fixture
def grid(tmp_path) -> Grid:
    path = tmp_path / "grid.toml"
    path.write_text(TEXT)
    return Grid.from_toml(path)


@pytest.fixture
def baseline() -> torch.nn.Module:
    torch.manual_seed(0)
    return sew_resnet8(in_channels=1, width=0.25, T=2).eval()


def test_groups_expand_to_mode_times_bits_times_seed(grid) -> None:
    lsq = [("ptq", 2), ("ptq", 4), ("qat", 2), ("qat", 4)]
    once = [("ptq", None)]
    once += [(mode, QuantSpec(weights=LSQWeights(bits=bits))) for mode, bits in lsq]
    once += [("ptq", QuantSpec(membrane=UniformMembrane(bits=3, range=(0.0, 1.0)), reestimate_bn="always"))]
    assert list(grid.settings()) == [(mode, spec, seed) for seed in (0, 1) for mode, spec in once]


def test_rows_are_stored_and_a_second_run_computes_nothing(grid, baseline, tmp_path, monkeypatch, capsys) -> None:
    rows = run_grid(grid, baseline, tmp_path / "out")
    assert len(rows) == 12
    assert {row["seed"] for row in rows} == {0, 1}
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 12
    assert [row["accuracy"] for row in read_rows(tmp_path / "out" / "results.csv")] == [row["accuracy"] for row in rows]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["environment"]["data"]["train"]
    assert "[12/12]" in capsys.readouterr().err

    def never(*_args, **_kwargs):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(grid_module, "run_cell", never)
    assert run_grid(grid, baseline, tmp_path / "out", progress=False) == rows
    with torch.no_grad():
        baseline.fc.bias += 1.0
    with pytest.raises(AssertionError, match="run again"):
        run_grid(grid, baseline, tmp_path / "out")


def test_a_damaged_cell_is_named(grid, baseline, tmp_path) -> None:
    run_grid(grid, baseline, tmp_path / "out", progress=False)
    victim = sorted((tmp_path / "out" / "cells").iterdir())[0]
    victim.write_text(victim.read_text()[:40])
    with pytest.raises(CheckpointError, match=f"{victim.name}.*remove it to run it again"):
        run_grid(grid, baseline, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bits = [2, 4]", "bits = [2, 40]", "got 40"),
        ('method = "lsq"', 'method = "lsp"', "lsp"),
        ("seeds = [0, 1]", "seed = 0", "unknown field `seed`"),
        ('mode = ["ptq"]', 'mode = ["pqt"]', "pqt"),
        ("epochs = 1", "epochs = 0", "epochs"),
        ("seeds = [0, 1]", 'test_split = "tset"', "tset"),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path, old: str, new: str, message: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(SpecError, match=message):
        Grid.from_toml(path)


def test_equal_weights_in_another_network_are_another_cell(grid, baseline) -> None:
    splits = load_splits(grid.data)
    torch.manual_seed(0)
    longer = sew_resnet8(in_channels=1, width=0.25, T=3).eval()
    longer.load_state_dict(baseline.state_dict())
    keys = {cell_key(grid, model, splits, "ptq", None, 0) for model in (baseline, longer)}
    assert len(keys) == 2


def test_the_stored_grid_runs_again_in_its_folder(grid, baseline, tmp_path, monkeypatch, capsys) -> None:
    small = TEXT.replace("seeds = [0, 1]", "").partition("[[cells]]")[0] + '[[cells]]\nmode = ["ptq"]\n'
    (tmp_path / "grid.toml").write_text(small)
    save_model(tmp_path / "m.safetensors", baseline)
    for source in (tmp_path / "grid.toml", tmp_path / "out" / "grid.toml"):
        command = ["study", str(source), "--baseline", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", command)
        assert main() == 0
    assert "BN re-estimated" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*command[:2], "--baseline", "nowhere", "--out", str(tmp_path / "out")])
    assert main() == 2
    assert "nowhere" in capsys.readouterr().err
