"""Every file in configs/ must be one that its command takes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from isofire.config import read_config
from isofire.models import build
from isofire.quantization import make_plan
from isofire.sweep import read_sweep

FOLDER = Path(__file__).parents[2] / "configs"
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


def test_demo_config_in_the_package_is_the_one_in_configs():
    inside = (resources.files("isofire.cli") / "assets" / "demo.toml").read_bytes()
    assert inside == (FOLDER / "demo" / "digits.toml").read_bytes()


def test_road_test_is_two_epochs_of_cifar10_less_5000():
    config = read_config(FOLDER / "cifar10-sew8-road-test.toml")
    assert config.data is not None
    assert config.train is not None
    assert (config.data.name, config.data.valid, config.data.train_images) == ("cifar10", 5000, None)
    assert config.train.epochs == 2
