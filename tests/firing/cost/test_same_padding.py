"""`padding="same"` with an even kernel, which torch pads in an operation of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.neurons import IF, PerStep


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding="same")


@pytest.mark.parametrize("kernel", [(4, 4), (3, 3), (2, 3)])
@pytest.mark.parametrize("events", [True, False])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_zeros_of_the_border_are_no_inputs(kernel: tuple[int, int], events: bool):
    _check(nn.Conv2d(2, 3, kernel, padding="same"), torch.ones(3, 2, *kernel), events)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_nor_where_the_convolution_is_called_as_a_function():
    _check(_Functional(), torch.ones(3, 2, 4, 4), events=True)


def _check(layer: nn.Module, ones: Tensor, events: bool) -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 10, 2, 8, 8)
    x = (x < 0.25).float() if events else x + 0.1
    model = nn.Sequential(PerStep(layer), IF(), PerStep(nn.Flatten(), nn.Linear(192, 4)))
    found = measure_cost(model, (x, torch.zeros(10, dtype=torch.long))).synapses[0]

    def products(values: Tensor) -> float:
        """By convolving with weights of one, per image."""
        return float(F.conv2d(values.flatten(0, 1), ones, padding="same").sum()) / 10

    assert found.density == pytest.approx(float((x != 0).double().mean()), rel=1e-6)
    assert found.effective == pytest.approx(products((x != 0).float()) / products(torch.ones_like(x)), rel=1e-5)
    if events:
        assert found.synops.mean == pytest.approx(products(x), rel=1e-5)
    else:
        assert found.macs_every_step == products(torch.ones_like(x))
