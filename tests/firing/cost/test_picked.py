"""A maximum picks scaled spikes as it picks whole ones; one layer may see spikes and real numbers in two calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isofire.firing.cost import measure_cost, reach
from isofire.neurons import IF, LIF

IMAGES = 3 * torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3
T = 4


class Net(nn.Module):
    """Spikes of 4 maps of 8 x 8, `use`d by a layer of 3 x 3."""

    def __init__(self, use: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.neurons, self.layer = nn.Conv2d(1, 4, 3, padding=1), IF(), nn.Conv2d(4, 5, 3, bias=False)
        self.norm, self.use, self.seen = nn.BatchNorm2d(4), use, torch.empty(0)
        self.norm.running_var.fill_(0.3)
        self.second, self.head = LIF(), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        spikes = self.neurons(self.first(images).expand(T, *(-1 for _ in range(4))).contiguous()).flatten(0, 1)
        self.seen = spikes
        y = self.use(self, spikes).unflatten(0, (T, -1))
        return self.head(self.second(y).mean((3, 4)))


def fan_out(events: Tensor) -> float:
    """Events times synapses, an image, by a convolution with ones."""
    return float(functional.conv2d(events, torch.ones(5, 4, 3, 3)).double().sum()) / len(IMAGES)


@pytest.mark.parametrize(
    ("pick", "scaled"),
    [
        (lambda x: functional.max_pool2d(x, 2), lambda net, x: 0.37 * x),
        (lambda x: functional.max_pool2d(x, 3, 1, 1), lambda net, x: net.norm(x)),
        (lambda x: functional.adaptive_max_pool2d(x, 5), lambda net, x: x / 3),
        (lambda x: functional.max_pool3d(x.unsqueeze(1), (1, 2, 2)).squeeze(1), lambda net, x: 0.37 * x),
        (lambda x: x.unflatten(3, (4, 2)).amax(4), lambda net, x: 0.37 * x),
        (lambda x: x.unflatten(2, (4, 2)).max(3).values, lambda net, x: 0.37 * x),
        (lambda x: torch.maximum(x, x.flip(-1)), lambda net, x: 0.37 * x),
    ],
    ids=["pool", "norm", "adaptive", "3d", "amax", "max", "maximum"],
)
def test_a_maximum_of_scaled_spikes_is_a_scaled_maximum(
    pick: Callable[[Tensor], Tensor], scaled: Callable[[Net, Tensor], Tensor]
) -> None:
    net = Net(lambda net, x: net.layer(pick(scaled(net, x)))).eval()
    cost = measure_cost(net, (IMAGES, LABELS), batch_size=8)
    found = next(item for item in cost.synapses if item.name == "layer")
    with torch.no_grad():
        net(IMAGES)
        expected = fan_out(pick(net.seen))
    assert 0 < expected < fan_out(torch.ones_like(pick(net.seen)))
    assert (found.synops.mean, found.macs_every_step) == (pytest.approx(expected), 0)
    # what a spike costs depends on the others in its window
    assert [item.name for item in reach(net, IMAGES[:2]).left_out] == ["layer"]


def test_a_smallest_of_scaled_spikes_is_no_spike_where_one_neuron_rests() -> None:
    net = Net(lambda net, x: net.layer(-functional.max_pool2d(-0.37 * x, 2))).eval()
    found = next(item for item in measure_cost(net, (IMAGES, LABELS), batch_size=8).synapses if item.name == "layer")
    with torch.no_grad():
        net(IMAGES)
        expected = fan_out(-functional.max_pool2d(-net.seen, 2))
    assert found.synops.mean == pytest.approx(expected)


@pytest.mark.parametrize(
    "real",
    [
        torch.tanh,
        lambda x: x.softmax(1),
        lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear")[..., :8, :8],
    ],
    ids=["tanh", "softmax", "bilinear"],
)
def test_a_layer_called_on_spikes_and_on_real_numbers_counts_each_call_in_its_way(
    real: Callable[[Tensor], Tensor],
) -> None:
    net = Net(lambda net, x: net.layer(x) + net.layer(real(0.3 * x + 0.1))).eval()
    cost = measure_cost(net, (IMAGES, LABELS), batch_size=8)
    found = next(item for item in cost.synapses if item.name == "layer")
    with torch.no_grad():
        net(IMAGES)
    dense = fan_out(torch.ones_like(net.seen))
    assert (found.synops.mean, found.macs_every_step) == (pytest.approx(fan_out(net.seen)), dense)


def test_a_trace_still_multiplies_at_its_first_step() -> None:
    def trace(net: nn.Module, x: Tensor) -> Tensor:
        steps = x.unflatten(0, (T, -1))
        state, out = torch.zeros_like(steps[0]), []
        for spikes in steps:
            state = 0.9 * state + spikes
            out.append(net.layer(state))
        return torch.cat(out)

    net = Net(trace).eval()
    found = next(item for item in measure_cost(net, (IMAGES, LABELS), batch_size=8).synapses if item.name == "layer")
    assert found.synops.mean == 0
    assert found.macs_every_step == fan_out(torch.ones(T * 8, 4, 8, 8))


@pytest.mark.parametrize("way", ["addcmul", "addcdiv"])
def test_a_sum_of_scaled_spikes_in_one_operation_is_a_sum(way: str) -> None:
    gain, start = torch.rand(4, 8, 8) + 0.5, torch.rand(4, 8, 8)

    def scaled(net: nn.Module, x: Tensor) -> Tensor:
        return net.layer(getattr(torch, way)(start, x, gain, value=0.3))

    found = next(
        item
        for item in measure_cost(Net(scaled).eval(), (IMAGES, LABELS), batch_size=8).synapses
        if item.name == "layer"
    )
    net = Net(scaled).eval()
    with torch.no_grad():
        net(IMAGES)
    assert (found.synops.mean, found.macs_every_step) == (pytest.approx(fan_out(net.seen)), 0)
    # two layers' products are no sum of events
    both = Net(lambda net, x: net.layer(torch.addcmul(start, x, torch.tanh(x + 0.1)))).eval()
    found = next(item for item in measure_cost(both, (IMAGES, LABELS), batch_size=8).synapses if item.name == "layer")
    assert found.synops.mean == 0
