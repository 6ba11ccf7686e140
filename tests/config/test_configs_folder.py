"""Every configuration in the package must be one that its command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from isofire.config import read_config
from isofire.config.packaged import FOLDER, located
from isofire.errors import SpecError
from isofire.models import build
from isofire.quantization import make_plan
from isofire.sweep import read_sweep

FILES = sorted(FOLDER.rglob("*.toml"))
RUNS = [path for path in FILES if path.parent == FOLDER]


def test_there_are_some():
    assert {"digits-demo.toml", "cifar10-sew8.toml", "cifar10-sew8-road-test.toml"} <= {path.name for path in RUNS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_reads(path):
    if "cells" in path.read_text():
        assert read_sweep(path).cells
    else:
        read_config(path)


@pytest.mark.parametrize("name", ["digits-demo.toml", "cifar10-sew8.toml", "cifar10-sew8-road-test.toml"])
def test_model_can_be_built_and_quantized(name):
    config = read_config(FOLDER / name)
    assert config.model is not None
    assert config.quant is not None
    assert config.train is not None
    assert config.qat is not None
    plan = make_plan(build(config.model), config.quant)
    assert any(choice.setting is not None for choice in plan.choices)


def test_they_are_found_from_any_folder_by_the_names_in_the_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_sweep("configs/demo/digits.toml").cells
    assert read_config(Path("configs/digits-demo.toml")).train is not None
    with pytest.raises(SpecError, match=r"configs/nothing\.toml"):
        read_config(Path("configs/nothing.toml"))


def test_a_file_of_ones_own_by_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits-demo.toml").write_text("seed = 7\n")
    assert read_config(Path("configs/digits-demo.toml")).seed == 7


@pytest.mark.parametrize("path", ["../configs/digits-demo.toml", "configs/../config/run.py", "digits-demo.toml"])
def test_other_names_are_left_as_they_are(path):
    assert located(path) == Path(path)


def test_road_test_is_two_epochs_of_cifar10_less_5000():
    config = read_config(FOLDER / "cifar10-sew8-road-test.toml")
    assert config.data is not None
    assert config.train is not None
    assert (config.data.name, config.data.valid, config.data.train_images) == ("cifar10", 5000, None)
    assert config.train.epochs == 2
