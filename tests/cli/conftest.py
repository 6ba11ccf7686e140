from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from isofire.cli import main

torch.set_num_threads(1)

CONFIG = """
[model]
builder = "sew_resnet8"
width = 0.25
T = 2
in_channels = 1

[data]
name = "digits"
valid = 100
train_images = 128
test_images = 60

[train]
epochs = 2
lr = 0.1
batch_size = 16
warmup_epochs = 0

[quant.weights]
method = "lsq"
bits = 3

[qat]
epochs = 1
lr = 0.02
batch_size = 32
warmup_epochs = 0

[calibration]
images = 32
"""


@dataclass
class Result:
    """Exit status and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Call the program in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISOFIRE_DEBUG", raising=False)

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `isofire train`."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", "--config", str(config), "--out", str(folder), "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="session")
def quantized(config: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `isofire quantize`."""
    folder = tmp_path_factory.mktemp("quantized")
    arguments = ["quantize", str(trained / "model.safetensors"), "-c", str(config), "-o", str(folder)]
    assert main([*arguments, "--device", "cpu"]) == 0
    return folder
