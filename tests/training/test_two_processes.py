"""Two processes and one folder: one of them trains there, and a file of another run is told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from isofire.data import ImageSet
from isofire.errors import CheckpointError, OutputError
from isofire.folder_lock import hold
from isofire.training import Recipe, train

CONFIG = """
[model]
builder = "sew_resnet8"
width = 0.25
T = 2
in_channels = 1
[data]
name = "digits"
valid = 60
train_images = 300
test_images = 30
[train]
epochs = 8
lr = 0.1
batch_size = 32
"""
COMMAND = (sys.executable, "-m", "isofire", "train", "-c", "small.toml", "--device", "cpu", "--threads", "1")


@pytest.fixture
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("_config")
def test_of_two_that_train_in_one_folder_one_is_refused_and_the_other_keeps_its_own(tmp_path: Path) -> None:
    runs = [start("--seed", str(seed), "--out", "shared") for seed in (0, 1)]
    ends = [run.communicate(timeout=300) for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 2], ends
    assert "shared is in use by another run" in ends[codes.index(2)][1]
    winner = codes.index(0)
    alone = start("--seed", str(winner), "--out", "alone")
    assert alone.wait(timeout=300) == 0
    from isofire.models import load_model

    one, two = (load_model(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("shared", "alone"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.slow
@pytest.mark.usefixtures("_config")
def test_seeds_and_recipes_have_folders_of_their_own_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    runs = [start("--seed", "0"), start("--seed", "1"), start("--seed", "0", "--set", "train.lr=0.2")]
    assert [run.wait(timeout=300) for run in runs] == [0, 0, 0]
    found = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(found) == 3
    assert [name.rpartition("-")[0] for name in found] == ["small-seed0", "small-seed0", "small-seed1"]
    killed = start("--seed", "2")
    while not list((tmp_path / "runs").glob("small-seed2-*/training/last.safetensors")):
        time.sleep(0.05)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    # the lock went with the process
    assert start("--seed", "2").wait(timeout=300) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_a_folder_is_held_by_one_and_free_again_afterwards(tmp_path: Path) -> None:
    refused = pytest.raises(OutputError, match="is in use by another run, which would mix with this one")
    with hold(tmp_path / "new"), refused, hold(tmp_path / "new"):
        raise AssertionError
    with hold(tmp_path / "new"):
        pass


def test_training_in_a_held_folder_is_refused(
    tmp_path: Path, make_net: Callable[..., nn.Module], train_set: ImageSet
) -> None:
    with hold(tmp_path), pytest.raises(OutputError, match="is in use by another run"):
        train(make_net(), train_set, None, Recipe(epochs=1, lr=0.1, batch_size=10), out=tmp_path, progress=False)
    assert not (tmp_path / "last.safetensors").exists()


def test_best_weights_of_another_run_are_not_loaded(
    tmp_path: Path, make_net: Callable[..., nn.Module], train_set: ImageSet, valid_set: ImageSet
) -> None:
    results = []
    for seed in (0, 1):
        recipe = Recipe(epochs=2, lr=0.1, batch_size=10, seed=seed)
        out = tmp_path / str(seed)
        results.append(train(make_net(seed), train_set, valid_set, recipe, out=out, progress=False, device="cpu"))
    (tmp_path / "1" / "best.safetensors").replace(tmp_path / "0" / "best.safetensors")
    net = make_net(5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"best.safetensors holds epoch \d of another run"):
        results[0].load_best_(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
