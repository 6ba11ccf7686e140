"""NeuroBench's synaptic operations: where its definition agrees, and where it does not.

NeuroBench (2.3, metrics/workload/synaptic_operations.py) runs each layer with its non-zero weights and inputs set to 1,
and books the sum as accumulates if all inputs of the call are 0 or +-1, else as multiply-accumulates. So it agrees for
layers that see spikes, over non-zero weights. On a residual sum it counts an input of 2 once, and as a multiplication;
isofire counts two accumulations. Where NeuroBench is not installed, its definition is written out here instead.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.neurons import IF, PerStep, Repeat

IMAGES = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(3)) * 3
LABELS = torch.zeros(6, dtype=torch.int64)


class Net(nn.Module):
    """A convolution that sees pixels, one that sees spikes, one that sees a sum of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.repeat = Repeat(3)
        self.fire1, self.fire2, self.fire3 = IF(), IF(), IF()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2)
        self.head = PerStep(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        first = self.fire1(self.repeat(self.stem(x)))
        x = first + self.fire2(self.conv1(first.flatten(0, 1)).unflatten(0, first.shape[:2]))
        return self.head(self.fire3(self.conv2(x.flatten(0, 1)).unflatten(0, first.shape[:2])))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for layer in (net.stem, net.conv1, net.conv2, net.head[1]):
            layer.weight *= 3
            layer.weight[layer.weight.abs() < 0.1] = 0
            layer.bias += 0.3
    return net


def by_definition(net: nn.Module) -> tuple[float, float, float]:
    """(accumulates, multiply-accumulates, dense) of an inference, as NeuroBench defines them."""
    sums = {"ac": 0.0, "mac": 0.0, "dense": 0.0}

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        ones = torch.ones_like(x)
        for key, value, weight in (
            ("ac" if bool(((x == 0) | (x.abs() == 1)).all()) else "mac", (x != 0).float(), (layer.weight != 0).float()),
            ("dense", ones, torch.ones_like(layer.weight)),
        ):
            found = layer._conv_forward(value, weight, None) if isinstance(layer, nn.Conv2d) else value @ weight.T
            sums[key] += float(found.sum()) / len(IMAGES)

    handles = [m.register_forward_pre_hook(hook) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        net(IMAGES)
    for handle in handles:
        handle.remove()
    return sums["ac"], sums["mac"], sums["dense"]


def by_neurobench(net: nn.Module) -> tuple[float, float, float]:
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    model, metric = TorchModel(net), SynapticOperations()
    model.register_hooks()
    with torch.no_grad():
        found = metric(model, model(IMAGES), (IMAGES, LABELS))
    model.cleanup_hooks()
    return tuple(float(found[key]) for key in ("Effective_ACs", "Effective_MACs", "Dense"))  # type: ignore[return-value]


@pytest.mark.parametrize("source", ["definition", "neurobench"])
def test_agreement_and_its_limits(net: Net, source: str) -> None:
    if source == "neurobench" and (
        importlib.util.find_spec("neurobench") is None or importlib.util.find_spec("snntorch") is None
    ):
        pytest.skip("neurobench or snntorch, which it imports, is not installed")
    accumulates, macs, dense = by_definition(net) if source == "definition" else by_neurobench(net)
    cost = measure_cost(net, (IMAGES, LABELS))
    layers = {layer.name: layer for layer in cost.synapses}
    size = {"stem": 1, "conv1": 3, "conv2": 3, "head.1": 3}
    work = {"stem": cost.macs("once"), "conv1": 4 * 4 * (4 * 4 * 9 + 4 * 4 * 6 + 4 * 4), "conv2": 4 * 4 * 9 * 4}
    work["head.1"] = 16 * 3
    assert dense == pytest.approx(sum(work[name] * size[name] for name in size))
    # equal where the inputs are spikes, counting only non-zero weights
    assert accumulates > 0
    assert accumulates == pytest.approx(sum(layers[name].synops_nonzero.mean for name in ("conv1", "head.1")))
    # multiplications there are the pixels' and, unlike here, those of the residual sum, an input of 2 counted once
    active = {name: layers[name].effective * work[name] * size[name] for name in ("stem", "conv2")}
    assert macs == pytest.approx(sum(active.values()), rel=1e-6)
    assert layers["conv2"].event_driven
    assert layers["conv2"].synops_nonzero.mean > active["conv2"]
