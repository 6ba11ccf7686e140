"""Costs of a quantized network with something around it, and of images whose rows are only guessed at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire import QuantSpec
from isofire.adapters import LogitsOf
from isofire.data import TensorSet
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.neurons import LIF, MembraneQuantizer, PerStep, Repeat
from isofire.quantization import calibrate_, convert_, prepare
from isofire.quantizers import Uniform
from isofire.training import Recipe, save_weights, train

SPEC = QuantSpec(
    weights={"method": "lsq", "bits": 3},
    membrane={"method": "uniform", "bits": 4, "range": (-2, 2)},
    first_layer="quantize",
    last_layer="quantize",
)  # type: ignore[arg-type]
X = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
SET = TensorSet.of(X, "random", "train")


@pytest.mark.parametrize(
    "around", [lambda net: nn.Sequential(nn.Identity(), net), lambda net: LogitsOf(net, axes="TNC")]
)
def test_what_is_around_a_quantized_network_changes_none_of_its_bits(around: Callable[[Any], nn.Module]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3))).eval()
    isofire.quantize_(network, SPEC, X)
    alone, wrapped = (measure_cost(net, X) for net in (network, around(network).eval()))
    assert alone.memory.weight_bits == wrapped.memory.weight_bits
    # 3 bits of 72 weights, and 8 states of 4 bits
    assert [item.bits for item in wrapped.memory.weights.values()] == [3, 3]
    assert alone.memory.state_bits == wrapped.memory.state_bits == 8 * 4
    assert alone.energy().total == wrapped.energy().total


@pytest.mark.parametrize("spec", [SPEC, QuantSpec(weights=SPEC.weights, first_layer="quantize", last_layer="quantize")])
def test_a_part_of_a_quantized_network_is_refused(spec: QuantSpec) -> None:
    network = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3))).eval()
    isofire.quantize_(nn.Sequential(nn.Identity(), network), spec, X)
    with pytest.raises(ModelError, match="is quantized, as a part of another network"):
        measure_cost(network, X)


def quantized() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3))).eval()
    return isofire.quantize_(network, SPEC, X)


@pytest.mark.parametrize("read", [isofire.integer_weights, isofire.signed_weights])
def test_whole_numbers_of_a_part_are_those_of_the_whole(read: Callable[[nn.Module], Any]) -> None:
    """A quantized network in a wrapper was said to be in full precision."""
    network = quantized()
    alone, wrapped = read(network), read(nn.Sequential(nn.Identity(), network))
    assert len(alone) == 2
    assert {f"1.{name}" for name in alone} == set(wrapped)
    assert all(torch.equal(alone[name].codes, wrapped[f"1.{name}"].codes) for name in alone)
    whole = nn.Sequential(nn.Identity(), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3))).eval()
    isofire.quantize_(nn.Sequential(Repeat(4), whole), SPEC, X)
    with pytest.raises(ModelError, match="is quantized, as a part of another network"):
        read(whole)
    with pytest.raises(ModelError, match="this one is in full precision"):
        read(nn.Sequential(nn.Identity(), nn.Linear(6, 8)))


def test_no_file_is_written_that_would_lose_the_spec(tmp_path: Path) -> None:
    network = quantized()
    with pytest.raises(ModelError, match=r"its part '1' was quantized before the rest .* save that part"):
        save_weights(tmp_path / "whole.safetensors", nn.Sequential(nn.Identity(), network))
    assert not list(tmp_path.iterdir())
    save_weights(tmp_path / "part.safetensors", network)


@pytest.mark.parametrize("around", [lambda net: net, lambda net: nn.Sequential(nn.Identity(), net)])
def test_converted_weights_are_not_trained_in_a_wrapper(around: Callable[[Any], nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="training would take them off their levels"):
        train(around(quantized()), SET, None, Recipe(epochs=1, lr=0.01, batch_size=4), out=tmp_path / "run")
    prepared = prepare(nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3))), SPEC)
    calibrate_(prepared, X)
    with pytest.raises(ModelError, match="no file of the whole would tell by which spec"):
        train(
            nn.Sequential(nn.Identity(), prepared),
            SET,
            None,
            Recipe(epochs=1, lr=0.01, batch_size=4),
            out=tmp_path / "run",
        )
    train(nn.Sequential(nn.Identity(), prepared), SET, None, Recipe(epochs=1, lr=0.01, batch_size=4))


def test_a_head_is_trained_on_a_frozen_converted_network() -> None:
    backbone = quantized()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    before = [item.clone() for item in backbone.parameters()]
    model = nn.Sequential(backbone, PerStep(nn.Linear(3, 3)))
    train(model, SET, None, Recipe(epochs=1, lr=0.01, batch_size=4))
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))


def test_membranes_quantized_by_hand_are_saved(tmp_path: Path) -> None:
    network = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3)))
    network[2].membrane = MembraneQuantizer(Uniform(4, range=(-2.0, 2.0)), "pre_fire")
    assert save_weights(tmp_path / "hand.safetensors", network).exists()


@pytest.mark.parametrize("seed", range(12))
def test_images_of_rows_that_stand_behind_others_are_told_apart(seed: int) -> None:
    class Behind(nn.Module):
        """[T, N, C, L] spikes whose last axis but one is weighted: a row of the product is of (t, n, l)."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.into, self.fire, self.weight = nn.Conv1d(2, 3, 3), LIF(), nn.Parameter(torch.randn(3, 5))

        def forward(self, x: Tensor) -> Tensor:
            fired = self.fire((4 * self.into(x)).expand(4, -1, -1, -1))
            return (fired.transpose(2, 3) @ self.weight).mean(2)

    images = 3 * torch.rand(9, 2, 7, generator=torch.Generator().manual_seed(seed))
    model = Behind().eval()
    with torch.no_grad():
        fired = model.fire((4 * model.into(images)).expand(4, -1, -1, -1))
    right = 5 * fired.sum((0, 2, 3)).double()
    (found,) = (
        item.synops for item in measure_cost(model, (images, torch.zeros(9).long())).synapses if item.name == "weight"
    )
    assert (found.mean, found.max) == (float(right.mean()), float(right.max()))
    assert found.p50 == float(right.sort().values[4])


def test_what_a_part_is_to_be_done_to_is_told_with_its_name() -> None:
    inner = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 3)))
    whole = nn.Sequential(nn.Identity(), prepare(inner, SPEC))
    for verb in (lambda net: calibrate_(net, X), isofire.convert):
        with pytest.raises(
            ModelError, match=r"its part '1' is one: (calibrate|convert)_\(model\.get_submodule\('1'\)\)"
        ):
            verb(whole)
    calibrate_(whole.get_submodule("1"), X)
    convert_(whole.get_submodule("1"))
    assert len(isofire.integer_weights(whole)) == 2
    with pytest.raises(ModelError, match=r"call prepare\(model, spec\)"):
        isofire.convert(nn.Sequential(nn.Linear(2, 2)))
