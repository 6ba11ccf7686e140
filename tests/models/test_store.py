"""Models on disk: what is read back computes the same, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isofire.errors import CheckpointError, ModelError, SpecError
from isofire.models import load_model, save_model, sew_resnet8
from isofire.neurons import Neuron
from isofire.quantization import calibrate_, convert, is_converted, prepare, quantize_, spec_of
from isofire.spec import QuantSpec
from isofire.training import save_weights

SPECS: dict[str, Any] = {
    "weights": {"weights": {"method": "uniform", "bits": 4, "range": "minmax"}},
    "membrane": {"membrane": {"bits": 3, "range": [-1.0, 1.0], "placement": "post_reset"}},
    "both, learned": {
        "weights": {"method": "lsq", "bits": 3},
        "membrane": {"bits": 4, "range": "minmax", "placement": "pre_fire", "granularity": "channel"},
    },
}


def test_a_full_precision_model(tmp_path: Path, lively: Any, images: Any) -> None:
    model, x = lively(sew_resnet8(width=0.25, neuron="plif", connect="iand", T=3)), images(2, 3, 8, 8)
    save_model(tmp_path / "net.safetensors", model, {"accuracy": 0.5})
    again, note = load_model(tmp_path / "net.safetensors")
    assert note["accuracy"] == 0.5
    assert again.config == model.config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("name", SPECS)
def test_a_quantized_model(name: str, tmp_path: Path, lively: Any, images: Any) -> None:
    model, x = lively(sew_resnet8(width=0.25)), images(2, 3, 8, 8)
    with torch.no_grad():
        full_precision = model(x)
    quantize_(model, QuantSpec.from_dict(SPECS[name]), images(16, 3, 8, 8, seed=1))
    save_model(tmp_path / "net.safetensors", model)
    again, _ = load_model(tmp_path / "net.safetensors")
    assert spec_of(again) == spec_of(model)
    assert is_converted(again)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
        assert not torch.equal(again(x), full_precision)
    membranes = [m.membrane is not None for m in again.modules() if isinstance(m, Neuron)]
    assert all(membranes) == any(membranes) == ("membrane" in SPECS[name])


def test_a_model_in_training(tmp_path: Path, lively: Any, images: Any) -> None:
    model = prepare(lively(sew_resnet8(width=0.25)), QuantSpec.from_dict(SPECS["both, learned"]))
    calibrate_(model, images(16, 3, 8, 8, seed=1))
    save_model(tmp_path / "net.safetensors", model)
    again, _ = load_model(tmp_path / "net.safetensors")
    assert not is_converted(again)
    x = images(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))
        assert torch.equal(convert(again)(x), model(x))


def test_a_model_without_a_description(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Linear has no `config` to build it from"):
        save_model(tmp_path / "net.safetensors", nn.Linear(2, 3))


def test_weights_without_an_architecture(tmp_path: Path) -> None:
    save_weights(tmp_path / "weights.safetensors", sew_resnet8(width=0.25), {})
    with pytest.raises(CheckpointError, match="holds weights without an architecture"):
        load_model(tmp_path / "weights.safetensors")


def test_an_architecture_of_another_version(tmp_path: Path) -> None:
    model = sew_resnet8(width=0.25)
    assert model.config is not None
    model.config["builder"] = "sew_resnet9"
    save_model(tmp_path / "net.safetensors", model)
    with pytest.raises(CheckpointError, match="cannot be built here: builder must be one of"):
        load_model(tmp_path / "net.safetensors")


def test_a_missing_and_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none"):
        load_model(tmp_path / "none.safetensors")
    path = save_model(tmp_path / "net.safetensors", sew_resnet8(width=0.25))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="net"):
        load_model(path)


def test_a_note_cannot_replace_what_the_file_needs(tmp_path) -> None:
    with pytest.raises(SpecError, match="must not use the keys model, quantization, converted, got 'model'"):
        save_model(tmp_path / "m.safetensors", sew_resnet8(width=0.25), {"model": "mine"})
    assert not list(tmp_path.iterdir())
