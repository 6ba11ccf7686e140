"""Thresholds, biases and steps on one grid: ties that floating point holds exactly are ties in whole numbers too."""

from __future__ import annotations

import copy
import doctest
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.integer import common_grid, differences, lower
from isofire.integer.common_grid import units_of
from isofire.neurons import IF, LIF, PerStep

FIXED = {"method": "fixed", "bits": 6, "fraction": 4}
INPUTS = (torch.rand(40, 30, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def network(neuron: nn.Module, bias: Tensor, weight: Tensor | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Linear(8, len(bias))), neuron, PerStep(nn.Linear(len(bias), 2))).eval()
    with torch.no_grad():
        net[0][0].bias.copy_(bias)
        net[0][0].weight.mul_(0.1) if weight is None else net[0][0].weight.copy_(weight)
    return net


def silent(net: nn.Module, steps: int = 12) -> tuple[list[int], tuple[str, ...]]:
    """How often neurons fire without input, and what the network says of their layer."""
    integers = lower(net, INPUTS)
    return integers.run(integers.codes(torch.zeros(steps, 1, 8))).spikes["1"].sum((0, 1)).tolist(), integers.notes.get(
        "1", ()
    )


def test_biases_that_reach_a_threshold_exactly_fire_when_they_do() -> None:
    net = network(IF(v_threshold=0.75, v_reset=0.0), torch.tensor([0.25, 0.375, 0.1875, 0.0625]))
    spec = isofire.QuantSpec(
        weights={"method": "lsq", "bits": 4}, biases=FIXED, thresholds=FIXED, first_layer="quantize",
        last_layer="quantize",
    )  # fmt: skip
    quantized = isofire.quantize_(net, spec, INPUTS)
    # 12 steps: 3, 2, 4 and 12 of them to a spike
    spikes, notes = silent(quantized)
    assert spikes == [4, 6, 3, 1]
    assert any("the threshold is rounded by up to" in note for note in notes)
    assert differences(quantized, lower(quantized, INPUTS), [INPUTS]).total == 0


@pytest.mark.parametrize("reset", [0.0, None])
def test_weights_in_full_precision_do_not_part_them(reset: float | None) -> None:
    net = network(IF(v_threshold=1.0, v_reset=reset), torch.full((4,), 0.25))
    assert silent(net)[0] == [3, 3, 3, 3]


@pytest.mark.parametrize("seed", range(8))
def test_random_numbers_of_a_grid_fire_as_whole_numbers_of_it(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    fraction = int(torch.randint(2, 9, (1,), generator=generator))
    threshold = int(torch.randint(1, 60, (1,), generator=generator))
    biases = torch.randint(-20, 60, (10,), generator=generator)
    net = network(IF(v_threshold=threshold / 2**fraction, v_reset=None), biases / 2**fraction)
    v, expected = torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64)
    for _ in range(50):
        v = v + biases
        fired = (v >= threshold).long()
        expected, v = expected + fired, v - fired * threshold
    assert silent(net, 50)[0] == expected.tolist()


@pytest.mark.parametrize("step", [0.1875, 0.3125, 0.125])
def test_steps_on_the_grid_keep_every_tie_with_their_weights(step: float) -> None:
    codes = torch.randint(-7, 8, (12, 8), generator=torch.Generator().manual_seed(1))
    bias = torch.randint(-4, 5, (12,), generator=torch.Generator().manual_seed(2)) / 16
    net = network(IF(v_threshold=0.75, v_reset=None), bias, codes * step)
    integers = lower(net, INPUTS)
    found = differences(net, integers, [INPUTS]).layers["1"]
    assert (found.differ, found.beyond_float32) == (0, 0)
    assert not any("rounded by" in note for note in integers.notes.get("1", ()))
    # sixteenths alone, in whole numbers
    whole, v, reached = (codes * step * 16).round().long(), torch.zeros(30, 12, dtype=torch.int64), 0
    for x, fired in zip(INPUTS.long(), integers.run(integers.codes(INPUTS)).spikes["1"], strict=True):
        v = v + x @ whole.T + (bias * 16).long()
        reached += int((v == 12).sum())
        assert torch.equal(fired, (v >= 12).long())
        v = v - fired * 12
    assert reached > 20


def test_a_level_that_is_the_threshold_fires() -> None:
    net = network(IF(v_threshold=0.75, v_reset=0.0), torch.tensor([0.7, 0.5, 0.25]))
    membrane = {"bits": 3, "range": [-1, 1], "placement": "pre_fire", "grid": "midtread"}
    levels: Any = isofire.quantize_(copy.deepcopy(net), isofire.QuantSpec(membrane=membrane), INPUTS)
    threshold = float(levels[1].membrane.quantizer.levels().max()) * 2 / 3
    net[1] = IF(v_threshold=threshold, v_reset=0.0)
    quantized = isofire.quantize_(net, isofire.QuantSpec(membrane=membrane), INPUTS)
    quiet = torch.zeros(12, 1, 8)
    expected = quantized[1](quantized[0](quiet)).sum((0, 1))  # type: ignore[index]
    assert int(expected.max()) > 0
    assert silent(quantized)[0] == expected.tolist()


def test_numbers_on_no_grid_are_rounded_and_told() -> None:
    net = network(LIF(3.0, v_threshold=0.3), torch.tensor([0.1, 0.02, -0.07]))
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize")
    _, notes = silent(isofire.quantize_(net, spec, INPUTS))
    (said,) = [note for note in notes if "rounded by" in note]
    assert "biases are rounded by up to" in said


def test_units_are_shares_of_a_grid_or_left() -> None:
    assert doctest.testmod(common_grid).failed == 0
    gain = torch.tensor([0.30001, 0.30001], dtype=torch.float64)
    # 0.1 and 0.7 are multiples of one number only beyond 16 bits
    found = units_of(gain, torch.tensor([8, 8]), torch.tensor([[0.1, 1.0], [0.7, 0.0]], dtype=torch.float64))
    assert torch.equal(found.numbers, gain / 256)
    assert found.odd.tolist() == [1, 1]
    # a grid too fine for the bits is left
    fine = units_of(gain[:1], torch.tensor([3]), torch.tensor([[1.0], [0.0009765625]], dtype=torch.float64))
    assert float(fine.numbers) == float(gain[0]) / 8
