"""Spikes above 1 in SpikingJelly and snnTorch: counted as the library gives them, quantized and compared."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import reset_

SPEC = isofire.QuantSpec(
    weights={"method": "lsq", "bits": 3}, membrane={"bits": 3, "range": [-2, 5]}, first_layer="quantize"
)


def images() -> tuple[Tensor, Tensor]:
    drawn = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)) * 4
    return drawn, torch.arange(20) % 3


def ilif() -> tuple[nn.Module, type[nn.Module], float]:
    base: Any = pytest.importorskip("spikingjelly.activation_based", reason="spikingjelly is not installed")
    # the package imports none of its parts by itself
    for part in ("neuron", "layer", "functional"):
        importlib.import_module(f"spikingjelly.activation_based.{part}")
    if not hasattr(base.neuron, "ILIFNode"):
        pytest.skip("this spikingjelly has no ILIFNode")
    net = nn.Sequential(base.layer.Linear(6, 12), base.neuron.ILIFNode(step_mode="m"), base.layer.Linear(12, 3))
    base.functional.set_step_mode(net, "m")

    class OverTime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.unsqueeze(0).expand(4, -1, -1))

    return OverTime(), base.neuron.ILIFNode, 1.0


def graded() -> tuple[nn.Module, type[nn.Module], float]:
    snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.lif = nn.Linear(6, 12), snntorch.Leaky(beta=0.5, graded_spikes_factor=3.0)
            self.last = nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            membrane, steps = self.lif.init_leaky(), []
            for _ in range(4):
                spikes, membrane = self.lif(self.first(x), membrane)
                steps.append(self.last(spikes))
            return torch.stack(steps)

    return Steps(), snntorch.Leaky, 3.0


@pytest.mark.parametrize("build", [ilif, graded])
def test_counts_are_what_the_library_gives(build: Callable[[], tuple[nn.Module, type[nn.Module], float]]) -> None:
    torch.manual_seed(0)
    model, kind, height = build()
    model.eval()
    quantized = isofire.quantize_(copy.deepcopy(model), SPEC, images())
    found = isofire.compare(model, quantized, images())
    for net, counts in ((model, found.baseline), (quantized, found.quantized)):
        spikes = heard(net, kind)
        assert spikes.max() == (4 if height == 1 else height)
        assert torch.equal(counts.per_neuron(counts.layers[0]).double(), spikes.sum((0, 1)) / height)
    assert found.overall["emd_layer_mean"] > 0


def heard(model: nn.Module, kind: type[nn.Module]) -> Tensor:
    """What the neurons return for the images, from rest: [T, N, ...]."""
    steps: list[Tensor] = []
    (neuron,) = (module for module in model.modules() if isinstance(module, kind))

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        steps.append(output[0] if isinstance(output, tuple) else output)

    handle = neuron.register_forward_hook(keep)
    with torch.no_grad():
        model(images()[0])
    handle.remove()
    reset_(model)
    return (steps[0] if len(steps) == 1 else torch.stack(steps)).double()
