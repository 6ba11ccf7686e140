"""Levels that weights were written on are known later, so weights that are few are seen to have been changed too."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, parameters_to_vector, prune, vector_to_parameters

import isofire
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.integer import lower
from isofire.neurons import LIF, PerStep
from isofire.quantization import restore_
from isofire.quantization.kept_levels import distinct, off_levels
from isofire.quantization.on_levels import require_levels
from isofire.training import load_weights, save_weights

CHANGED = "were changed after they were quantized"
METHODS: list[dict[str, Any]] = [
    {"method": "uniform", "bits": 8}, {"method": "uniform", "bits": 4, "grid": "midtread", "power_of_two": True},
    {"method": "uniform", "bits": 4, "range": [-0.2, 0.5]}, {"method": "lsq", "bits": 4}, {"method": "lsq", "bits": 12},
    {"method": "lqnet", "bits": 4}, {"method": "levels", "levels": 16}, {"method": "gptq", "bits": 5},
]  # fmt: skip


def count_off(rows: Tensor, levels: Tensor) -> int:
    """How many weights are on none of the levels of their row."""
    found = distinct(rows)
    return int(off_levels(found.values, levels).gather(1, found.places).sum())


def network() -> nn.Module:
    """A convolution of 9 weights an output, and a linear layer of 8."""
    torch.manual_seed(0)
    convolution = PerStep(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.AvgPool2d(4), nn.Flatten())
    return nn.Sequential(convolution, LIF(v_threshold=0.3), nn.Linear(8, 3)).eval()


def spec(weights: dict[str, Any]) -> isofire.QuantSpec:
    return isofire.QuantSpec.from_dict({"weights": weights, "first_layer": "quantize", "last_layer": "quantize"})


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(4, 12, 8, 4, 4, generator=torch.Generator().manual_seed(1)) * 2, torch.zeros(12).long()


def quantized(weights: dict[str, Any]) -> nn.Module:
    return isofire.quantize_(network(), spec(weights), images())


def restored(weights: dict[str, Any]) -> nn.Module:
    return restore_(network(), spec(weights), converted=True)


def change_(model: nn.Module) -> nn.Module:
    """One step of training in the last layer."""
    with torch.no_grad():
        model.get_parameter("2.weight").add_(1e-3)
    return model


def through_file(model: nn.Module, *, whole: bool) -> Any:
    stream = io.BytesIO()
    torch.save(model if whole else model.state_dict(), stream)
    stream.seek(0)
    return torch.load(stream, weights_only=not whole)


@pytest.mark.parametrize("weights", METHODS)
def test_few_weights_that_were_changed_are_seen(weights: dict[str, Any]) -> None:
    model = quantized(weights)
    require_levels(model)
    with pytest.raises(ModelError, match=rf"'2' are off the levels .* \d+ of 24 .*{CHANGED}"):
        require_levels(change_(model))


@pytest.mark.parametrize("weights", METHODS)
@pytest.mark.parametrize(
    "carried",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: through_file(model, whole=True),
        lambda model: copy.deepcopy(model).to(torch.float64),
        lambda model: copy.deepcopy(model).half().float(),
        lambda model: copy.deepcopy(model).bfloat16(),
    ],
)
def test_what_was_written_goes_along(weights: dict[str, Any], carried: Callable[[nn.Module], nn.Module]) -> None:
    model = quantized(weights)
    twin = carried(model)
    require_levels(twin)
    with pytest.raises(ModelError, match=CHANGED):
        require_levels(change_(twin))
    require_levels(model)


@pytest.mark.parametrize("weights", METHODS)
def test_a_state_dict_brings_its_own_levels(weights: dict[str, Any]) -> None:
    first, second = quantized(weights), isofire.quantize_(change_(network()), spec(weights), images())
    first.load_state_dict(second.state_dict())
    require_levels(first)
    again = restored(weights)
    again.load_state_dict(through_file(second, whole=False))
    require_levels(again)
    with pytest.raises(ModelError, match=CHANGED):
        require_levels(change_(again))
    # the state dict is that of a changed network
    first.load_state_dict(change_(second).state_dict())
    with pytest.raises(ModelError, match=CHANGED):
        require_levels(first)


def test_a_state_dict_of_other_bits_is_refused() -> None:
    model = restored({"method": "levels", "levels": 16})
    model.load_state_dict(quantized({"method": "levels", "levels": 17}).state_dict())
    with pytest.raises(ModelError, match=r"'0\.0' were quantized to 5 bits, where levels .* has 4: .*loading others"):
        require_levels(model)


@pytest.mark.parametrize("weights", METHODS)
def test_files_bring_levels_and_take_no_others(weights: dict[str, Any], tmp_path: Path) -> None:
    model = quantized(weights)
    path = save_weights(tmp_path / "w.safetensors", model)
    again = restored(weights)
    load_weights(path, again)
    require_levels(again)
    with pytest.raises(ModelError, match=CHANGED):
        require_levels(change_(again))
    with pytest.raises(ModelError, match=CHANGED):
        save_weights(tmp_path / "other.safetensors", change_(model))
    assert not (tmp_path / "other.safetensors").exists()


def test_without_levels_a_grid_tells_changed_weights() -> None:
    """As of a state dict without metadata, or a network that an older version wrote."""
    for weights in ({"method": "uniform", "bits": 8}, {"method": "lsq", "bits": 4}, {"method": "uniform", "bits": 4}):
        model = quantized(weights)
        model.load_state_dict(dict(model.state_dict()))
        require_levels(model)
        require_levels(copy.deepcopy(model).half())
        with pytest.raises(ModelError, match=f"'2' are on no even levels.*{CHANGED}"):
            require_levels(change_(model))


def test_without_levels_a_state_dict_of_more_bits_is_refused() -> None:
    model = restored({"method": "uniform", "bits": 4})
    model.load_state_dict(dict(quantized({"method": "uniform", "bits": 5}).state_dict()))
    with pytest.raises(ModelError, match="on no even levels"):
        require_levels(model)


@pytest.mark.parametrize("weights", METHODS)
def test_masks_and_folded_norms_are_no_change(weights: dict[str, Any]) -> None:
    model = quantized(weights)
    prune.random_unstructured(model.get_submodule("2"), "weight", 0.5)
    model(images()[0])
    require_levels(model)
    prune.remove(model.get_submodule("2"), "weight")
    require_levels(model)
    codes, levels = isofire.integer_weights(model)["2"]
    found = levels.expand(3, -1).gather(1, codes.long())
    assert torch.equal(found, model.get_parameter("2.weight"))
    assert levels.shape[1] <= 2 ** weights.get("bits", 4)
    first = model[0]  # type: ignore[index]
    norm = first[1]
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 3, 8))
    first[0] = fuse_conv_bn_eval(first[0], norm)
    first[1] = nn.Identity()
    require_levels(model)
    with torch.no_grad():
        first[0].weight[3, 0, 0, 0] *= 1.01
    with pytest.raises(ModelError, match=CHANGED):
        require_levels(model)


def test_layers_that_share_a_weight_share_what_was_written() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), LIF(v_threshold=0.3), nn.Linear(8, 8), LIF(v_threshold=0.3))
    model[2].weight = model[0].weight
    x = torch.rand(4, 12, 8)
    isofire.quantize_(model, spec({"method": "lqnet", "bits": 4}), x)
    assert model[2].weight is model[0].weight
    require_levels(model)
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(torch.linspace(1, 2, 8))
    with pytest.raises(ModelError, match="'0' are off"):
        require_levels(model)


@pytest.mark.parametrize(
    "use",
    [
        isofire.integer_weights,
        isofire.signed_weights,
        isofire.fast,
        lambda model: measure_cost(model, images()),
        lambda model: isofire.compare(network(), model, images()),
        lambda model: isofire.compare(nn.Sequential(network()), nn.Sequential(model), images()),
        lambda model: lower(model, images()[0]),
    ],
)
def test_nothing_gives_numbers_of_a_changed_network(use: Callable[[nn.Module], object]) -> None:
    model = quantized({"method": "uniform", "bits": 8})
    if use is not isofire.fast:
        use(model)
    with pytest.raises(ModelError, match=CHANGED):
        use(change_(model))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("weights", METHODS)
def test_what_is_no_number_is_on_no_level(weights: dict[str, Any], wrong: float) -> None:
    for model in (quantized(weights), quantized(weights).bfloat16(), quantized(weights)):
        model.get_parameter("2.weight").data[1, 3] = wrong
        with pytest.raises(ModelError, match="'2' are not all finite"):
            require_levels(model)
        model.load_state_dict(dict(model.state_dict()))
        with pytest.raises(ModelError, match="'2' are not all finite"):
            require_levels(model)
    assert count_off(torch.tensor([[wrong, 1.0, 2.0]]), torch.tensor([[1.0, 2.0]])) >= 1


@pytest.mark.parametrize("weights", METHODS)
@pytest.mark.parametrize("cast", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_that_change_places_are_no_change(weights: dict[str, Any], cast: torch.dtype) -> None:
    model = quantized(weights).to(cast)
    for name in ("0.0.weight", "2.weight"):
        weight = model.get_parameter(name).data
        weight.copy_(weight.roll(1, 0))
    require_levels(model)
    weight[1, 3] *= 1.25
    with pytest.raises(ModelError, match=f"'2' are off .* [1-8] of 24 .*{CHANGED}"):
        require_levels(model)


def test_weights_copied_from_a_network_of_the_same_spec_are_told_by_their_grid() -> None:
    for weights in METHODS[:2], METHODS[3:4]:
        for setting in weights:
            first, second = quantized(setting), isofire.quantize_(change_(network()), spec(setting), images())
            vector_to_parameters(parameters_to_vector(second.parameters()), first.parameters())
            require_levels(first)
            change_(second)
            vector_to_parameters(parameters_to_vector(second.parameters()), first.parameters())
            with pytest.raises(ModelError, match=CHANGED):
                require_levels(first)


def test_weights_copied_in_of_uneven_levels_are_told_of_as_such() -> None:
    first, second = (quantized({"method": "lqnet", "bits": 4}) for _ in range(2))
    isofire.quantize_(other := change_(network()), spec({"method": "lqnet", "bits": 4}), images())
    vector_to_parameters(parameters_to_vector(other.parameters()), second.parameters())
    with pytest.raises(ModelError, match=r"by loading others \(or copying them in; a state dict brings their levels"):
        require_levels(second)
    first.load_state_dict(other.state_dict())
    require_levels(first)


def test_count_off_against_a_search_of_every_level() -> None:
    rows, levels = torch.randn(5, 40, generator=torch.Generator().manual_seed(3)), torch.tensor([[-1.0, -0.25, 0.5]])
    levels = levels * torch.arange(1, 6)[:, None]
    rows = levels.gather(1, rows.mul(10).long().abs() % 3)
    assert count_off(rows, levels) == 0
    rows[1, 7], rows[4, 0], rows[4, 9] = 0.1, 2.0, 0.0
    pairs = zip(rows.tolist(), levels.tolist(), strict=True)
    expected = sum(value not in [*level, 0.0] for row, level in pairs for value in row)
    assert count_off(rows, levels) == expected == 2
