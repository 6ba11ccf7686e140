"""Weights on few levels as packed codes: smaller, and the same bits when they are read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import isofire
from isofire import QuantSpec, data
from isofire.errors import CheckpointError
from isofire.models import build, load_model, save_model
from isofire.training.checkpoint import count_values, load_weights, save_weights
from isofire.training.packing import packed, unpacked


def same_bits(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and torch.equal(one.view(torch.int32), two.contiguous().view(torch.int32))


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 255, 256])
@pytest.mark.parametrize("shape", [(5, 700), (3, 4, 11, 13), (1, 900)])
def test_every_bit_comes_back(count: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(count)
    levels = torch.randn(shape[0], count, generator=generator)
    levels[:, 0] = -0.0
    if count > 2:
        levels[0, 1], levels[0, 2] = 0.0, float("nan")
    index = torch.randint(0, count, (shape[0], math.prod(shape[1:])), generator=generator)
    weight = levels.gather(1, index).view(shape)
    held = packed({"model/w": weight, "model/b": torch.ones(3)})
    size = sum(tensor.numel() * tensor.element_size() for name, tensor in held.items() if "model/w" in name)
    assert size < weight.numel() * 4
    bits = max(1, math.ceil(math.log2(count)))
    assert count == 1 or held["packed/model/w/codes"].numel() <= math.ceil(weight.numel() * bits / 8)
    again = unpacked(held)
    assert again.keys() == {"model/w", "model/b"}
    assert same_bits(again["model/w"], weight)


def test_what_would_not_be_smaller_stays_as_it_is() -> None:
    tensors = {"a": torch.randn(4, 1000), "b": torch.ones(9), "c": torch.zeros(3, 1), "d": torch.ones(4, 9).double()}
    assert packed(tensors).keys() == tensors.keys()


@pytest.fixture(scope="module")
def quantized() -> nn.Module:
    images = next(iter(data.load("digits", "train").batches(64)))[0]
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.5, "T": 2, "in_channels": 1})
    spec = QuantSpec(
        weights={"method": "lsq", "bits": 4}, first_layer="quantize", last_layer="quantize", reestimate_bn="never"
    )
    return isofire.quantize_(model.eval(), spec, images)


def test_a_quantized_network_takes_the_size_of_its_bits_and_comes_back(quantized: nn.Module, tmp_path: Path) -> None:
    state = quantized.state_dict()
    path = save_model(tmp_path / "q.safetensors", quantized)
    weights = sum(tensor.numel() for name, tensor in state.items() if tensor.ndim > 1)
    rest = sum(tensor.numel() * tensor.element_size() for tensor in state.values() if tensor.ndim < 2)
    # half a byte a weight, each channel's 16 levels, names and header
    assert path.stat().st_size < weights * 1.0 + rest + 16384 < weights * 4
    again, _ = load_model(path)
    assert again.state_dict().keys() == state.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert count_values(path) == sum(tensor.numel() for tensor in state.values())


def changed(path: Path, name: str, tensor: Tensor | None) -> None:
    """The file with another tensor under a name, or without it."""
    with safe_open(path, framework="pt") as file:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    del tensors[name]
    save_file(tensors | ({} if tensor is None else {name: tensor}), path, metadata=about)


@pytest.mark.parametrize(
    ("part", "tensor", "said"),
    [
        ("codes", None, "lacks its codes"), ("shape", None, "lacks its shape"), ("levels", None, "lacks its levels"),
        ("shape", torch.tensor([10**9, 10**9]), "do not fit"), ("shape", torch.tensor([-8, -90]), "do not fit"),
        ("shape", torch.tensor([8.0, 90.0]), "do not fit"), ("levels", torch.zeros(8, 300), "do not fit"),
        ("levels", torch.zeros(7, 3), "do not fit"), ("codes", torch.zeros(3, dtype=torch.uint8), "do not fit"),
        ("levels", torch.zeros(8, 3).half(), "other types"), ("codes", torch.zeros(180), "other types"),
        ("codes", torch.full((180,), 255, dtype=torch.uint8), "levels that are not there"),
    ],
)  # fmt: skip
def test_damaged_parts_are_refused(part: str, tensor: Tensor | None, said: str, tmp_path: Path) -> None:
    layer = nn.Linear(90, 8)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(0, 3, (8, 90)).float())
    path = save_weights(tmp_path / "w.safetensors", layer)
    changed(path, f"packed/model/weight/{part}", tensor)
    with pytest.raises(CheckpointError, match=rf"w\.safetensors is damaged: .*{said}.*restore"):
        load_weights(path, layer)


def test_files_without_packed_weights_are_read_as_before(tmp_path: Path) -> None:
    layer = nn.Linear(90, 8)
    path = save_weights(tmp_path / "w.safetensors", layer)
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {"model/weight", "model/bias"}
        assert '"format":1' in file.metadata()["isofire"]
    load_weights(path, again := nn.Linear(90, 8))
    assert torch.equal(again.weight, layer.weight)
