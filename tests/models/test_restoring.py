"""Settings of a few bytes that ask for more memory than their file can fill are refused before any is taken."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from isofire.errors import CheckpointError
from isofire.models import load_model, save_model, sew_resnet8
from isofire.models.restoring import build_for
from isofire.models.user_code import open_named, save_named
from isofire.quantization import convert, prepare
from isofire.spec import QuantSpec

TAWQ = QuantSpec(weights={"method": "tawq", "steps": 2})


def changed(source: Path, target: Path, change: Any) -> Path:
    """The same tensors under a header that `change` altered."""
    with safe_open(source, framework="pt") as file:
        header = json.loads(file.metadata()["isofire"])
    change(header["note"])
    save_file(load_file(source), target, {"isofire": json.dumps(header)})
    return target


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save_model(tmp_path / "small.safetensors", sew_resnet8(width=0.125, in_channels=1, T=2))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", 1000.0),
        ("width", 20.0),
        ("num_classes", 1_000_000),
        ("in_channels", 60_000),
        ("builder", "sew_resnet18"),
        ("T", 10**9),
        ("T", 2**70),
        ("width", 1e300),
        ("num_classes", 10**12),
    ],
)
def test_a_network_larger_than_its_file(small: Path, tmp_path: Path, setting: str, value: Any) -> None:
    path = changed(small, tmp_path / "changed.safetensors", lambda note: note["model"].update({setting: value}))
    with pytest.raises(CheckpointError):
        load_model(path)


def test_the_sizes_are_told_and_a_file_that_fits_is_read(small: Path, tmp_path: Path) -> None:
    assert load_model(small)[0].T == 2
    values = sum(tensor.numel() for tensor in load_file(small).values())
    larger = sum(tensor.numel() for tensor in sew_resnet8(width=0.25, in_channels=1).state_dict().values())
    with pytest.raises(CheckpointError, match=f"of {larger:,} values, and the file holds {values:,}"):
        build_for(small, {"builder": "sew_resnet8", "width": 0.25, "in_channels": 1})


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("steps", [3000, 60_000, 10**10])
def test_weights_of_more_steps_than_the_file_holds(tmp_path: Path, converted: bool, steps: int) -> None:
    model = prepare(sew_resnet8(width=0.125, in_channels=1, T=2), TAWQ)
    path = save_model(tmp_path / "q.safetensors", convert(model) if converted else model)
    assert load_model(path)[0].T == 2
    path = changed(
        path, tmp_path / "changed.safetensors", lambda note: note["quantization"]["weights"].update(steps=steps)
    )
    with pytest.raises(CheckpointError):
        load_model(path)


def test_the_same_of_a_network_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "bomb_nets.py").write_text(
        "from isofire.models import sew_resnet8\n"
        "def build():\n    return sew_resnet8(width=0.125, in_channels=1, T=2)\n"
    )
    model = convert(prepare(sew_resnet8(width=0.125, in_channels=1, T=2), TAWQ))
    path = save_named(tmp_path / "q.safetensors", model, "bomb_nets:build", {})
    assert open_named("bomb_nets:build", path)[1]["converted"]
    path = changed(
        path, tmp_path / "changed.safetensors", lambda note: note["quantization"]["weights"].update(steps=60_000)
    )
    with pytest.raises(CheckpointError, match=r"weights of .* values, and the file holds"):
        open_named("bomb_nets:build", path)
