"""The float network with all of a chip's changes fires as the chip, where the chip's states are whole numbers.

One membrane in some hundreds reaches its threshold exactly. With numbers rounded for a float network these fired or not
by chance, which was told as what states do.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.integer import IntegerNetwork, diagnose, lower, steps_of, with_changes
from isofire.integer.changes import Changes
from isofire.integer.steps import firing_once, resting
from isofire.integer.twin import FLOAT_STEPS
from isofire.neurons import IF, LIF, CubaLIF, PerStep, Recurrent


def random_(model: nn.Module, seed: int) -> nn.Module:
    """Weights, biases and norms of chance, of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spread = 1.5 / module.weight[0].numel() ** 0.5
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * spread + 0.05
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.2
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-0.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def spikes_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, IF | CubaLIF | Recurrent):
            module.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out.to(torch.int64)}))
    model(x)
    return {name.removesuffix(".cell"): spikes for name, spikes in kept.items()}


def check(net: nn.Module, x: Tensor, hardware: str) -> IntegerNetwork:
    chip = lower(net, x, hardware=hardware, approximate=True)
    assert chip.mapping is not None
    assert {"weights", "thresholds"} <= set(chip.mapping.rules)
    twin = firing_once(chip) or chip
    twin.mapping = chip.mapping
    twin = resting(twin) or twin
    fired, wanted = twin.aligned(twin.codes(x)).spikes, spikes_of(with_changes(net, chip.mapping, FLOAT_STEPS), x)
    for name in chip.order:
        assert torch.equal(fired[name], wanted[name]), name
        assert int(fired[name].sum()) > 20
    return chip


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_speck_fires_as_the_float_network_with_its_numbers(seed: int, several: bool, affine: bool) -> None:
    def neuron() -> IF:
        return IF(v_reset=None if several else 0.0, several=several, v_floor=-0.7)

    net = nn.Sequential(
        PerStep(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, affine=affine)), neuron(),
        PerStep(nn.AvgPool2d(2), nn.Conv2d(4, 6, 2)), neuron(),
        PerStep(nn.Flatten(), nn.Linear(54, 5, bias=False)), neuron(),
    )  # fmt: skip
    x = torch.poisson(torch.full((12, 6, 2, 8, 8), 0.6), generator=torch.Generator().manual_seed(seed))
    net = random_(net, seed)
    chip = check(net, x, "speck2f")
    found = steps_of(net, chip, [(x, torch.zeros(6, dtype=torch.int64))])
    assert [layer.paired_mae for layer in found.states.layers] == [0.0] * 3


@pytest.mark.parametrize("hardware", ["speck2f", "loihi1"])
def test_a_bias_that_acts_a_step_late_is_the_biases_doing(hardware: str) -> None:
    """Speck's second layer is a step early where the float network's neurons use their current a step later."""

    def neuron(**options: Any) -> CubaLIF:
        return CubaLIF(3.0, 2.0, v_reset=None if hardware == "speck2f" else 0.0, **options)

    net = nn.Sequential(
        PerStep(nn.Linear(6, 10)), neuron(synapse="before_input"), PerStep(nn.Linear(10, 8)), neuron(),
    )  # fmt: skip
    x = torch.poisson(torch.full((15, 6, 6), 0.6), generator=torch.Generator().manual_seed(1)).clamp(max=1)
    chip = check(random_(net, 4), x, hardware)
    says = [refusal.says for refusal in chip.mapping.refusals if refusal.rule == "biases"]  # type: ignore[union-attr]
    assert any("after the float network's" in said for said in says) == (hardware == "speck2f")


def test_recurrent_neurons_that_integrate_on_loihi_too() -> None:
    net = nn.Sequential(PerStep(nn.Linear(6, 10)), Recurrent(IF(), nn.Linear(10, 10)), PerStep(nn.Linear(10, 8)), IF())
    x = torch.poisson(torch.full((20, 6, 6), 0.6), generator=torch.Generator().manual_seed(1)).clamp(max=1)
    check(random_(net, 2), x, "loihi1")


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("hardware", ["loihi1", "speck2f"])
def test_changes_take_a_quantized_network_off_its_levels(hardware: str, bits: int) -> None:
    torch.manual_seed(0)
    layers = [(PerStep(nn.Linear(inputs, outputs)), LIF()) for inputs, outputs in ((12, 40), (40, 40), (40, 5))]
    net = random_(nn.Sequential(*(part for layer in layers for part in layer)), 1)
    x, labels = (torch.rand(6, 8, 12) > 0.5).float(), torch.arange(8) % 5
    weights = {"method": "uniform", "bits": bits, "granularity": "channel", "grid": "midtread"}
    spec = isofire.QuantSpec(weights=weights, first_layer="quantize", last_layer="quantize")
    quantized = isofire.quantize_(net, spec)
    chip = lower(quantized, x, hardware=hardware, approximate=True)
    steps = steps_of(quantized, chip, (x, labels))
    assert "weights" in steps.alone
    found = diagnose(quantized, chip, steps, x, (x, labels), options={"shift_by": "factor", "gain": "keep"})
    assert found is None or found.cause in {*steps.alone, "states"}
    assert chip.mapping is not None
    changes = Changes(quantized, chip)
    made = with_changes(quantized, chip.mapping, {"weights"}), changes.make(changes.all)
    for twin in (*made, copy.deepcopy(made[0])):
        isofire.compare(nn.Sequential(quantized), nn.Sequential(twin), (x, labels))
        # on a chip's grid of 8 bits it keeps to what its spec says
        if bits < 8:
            with pytest.raises(ModelError, match=r"off the levels|values where"):
                measure_cost(twin, (x, labels))
    with torch.no_grad():
        quantized.get_parameter("0.0.weight").add_(1e-3)
    with pytest.raises(ModelError, match="off the levels"):
        steps_of(quantized, chip, (x, labels))
