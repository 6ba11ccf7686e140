"""An average pool between a convolution and its neurons is part of the convolution, exactly."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch
from torch import nn

from isofire.errors import ModelError
from isofire.export import write_c
from isofire.integer import differences, lower
from isofire.integer.changes import Changes
from isofire.integer.connection import SumPool
from isofire.integer.one_convolution import with_pool
from isofire.neurons import IF, LIF, PerStep


@pytest.mark.parametrize(
    "convolution", [{}, {"stride": 2, "padding": 1}, {"dilation": (2, 1), "groups": 2, "padding": 2}]
)
@pytest.mark.parametrize("pool", [{"kernel_size": 2}, {"kernel_size": (2, 3), "stride": (3, 1)}])
def test_both_are_one_convolution(convolution, pool) -> None:
    torch.manual_seed(0)
    layer, average = nn.Conv2d(4, 6, (3, 2), **convolution).double(), nn.AvgPool2d(**pool)
    size = (2, 2) if pool["kernel_size"] == 2 else pool["kernel_size"]
    padding = (convolution.get("padding", 0),) * 2
    sums = SumPool(size, pool.get("stride", size))
    made = with_pool(("conv", "pool"), layer, padding, sums, 1.0 / (size[0] * size[1]))
    x = torch.randn(3, 4, 17, 16, dtype=torch.float64)
    assert torch.allclose(made(x), average(layer(x)), atol=1e-12, rtol=0)


def _on_levels(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-7, 8, layer.weight.shape) * 0.125)
    return layer


def _network(neuron: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(6)
    norm.running_mean.uniform_(-0.5, 0.5), norm.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(
        PerStep(_on_levels(nn.Conv2d(2, 6, 3, padding=1)), nn.AvgPool2d(2), norm), neuron,
        PerStep(_on_levels(nn.Conv2d(6, 4, 3)), nn.AvgPool2d(2)), IF(),
        PerStep(nn.Flatten(), _on_levels(nn.Linear(4, 3))),
    ).eval()  # fmt: skip


def test_integers_fire_as_the_network(tmp_path) -> None:
    model = _network(LIF(2.0)).double()
    spikes = (torch.rand(6, 20, 2, 8, 8) < 0.4).double()
    integers = lower(model, spikes)
    found = differences(model, integers, [spikes])
    assert sum(layer.places for layer in found.layers.values()) == 6 * 20 * (6 * 16 + 4)
    assert integers.run(integers.codes(spikes)).spikes["1"].any()
    assert found.total == 0
    write_c(tmp_path / "net", integers, integers.codes(spikes[:, :2]))
    if (cc := shutil.which("cc")) is not None:
        program = tmp_path / "check"
        files = [str(tmp_path / "net" / name) for name in ("network.c", "network_test.c")]
        subprocess.run([cc, "-std=c99", "-O1", *files, "-o", str(program)], check=True)
        assert subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.strip() == "equal"


def test_a_change_of_weights_is_the_one_convolutions() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(PerStep(nn.Conv2d(1, 3, 3), nn.AvgPool2d(2)), IF(), PerStep(nn.Flatten(), nn.Linear(27, 2)))
    with torch.no_grad():
        model[0][0].weight.mul_(4)
    spikes = (torch.rand(4, 30, 1, 8, 8) < 0.5).float()
    integers = lower(model, spikes, weight_bits=4)
    changes = Changes(model, integers)
    assert "weights" in {change.kind for change in changes.all if change.layer == "0.0"}
    twin = changes.make(changes.all)
    assert differences(model, integers, [spikes]).total > 20
    assert differences(twin, integers, [spikes]).total == 0


@pytest.mark.parametrize(
    ("pool", "said"),
    [(nn.AvgPool2d(2, padding=1), "drop its padding"), (nn.AvgPool2d(2, divisor_override=3), "padding or divisor")],
)
def test_what_is_no_average_is_refused(pool, said) -> None:
    model = nn.Sequential(PerStep(nn.Conv2d(1, 3, 3), pool), IF(), PerStep(nn.Flatten(), nn.Linear(27, 2)))
    with pytest.raises(ModelError, match=said):
        lower(model, torch.ones(2, 1, 1, 8, 8))


def test_chips_name_the_pool() -> None:
    with pytest.raises(ModelError, match=r"the pool '0\.1' stands between the convolution '0\.0' and its neurons"):
        lower(_network(IF()), torch.ones(2, 1, 2, 8, 8), hardware="speck2f")
