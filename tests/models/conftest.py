"""Small networks that fire in every layer, and their spikes layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.models import SEWResNet
from isofire.neurons import Neuron


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    return lambda *shape, seed=0: torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def lively() -> Callable[[SEWResNet], SEWResNet]:
    """Give each batch norm gains, biases and running statistics of its own, such that every layer fires."""

    def enliven(model: SEWResNet) -> SEWResNet:
        generator = torch.Generator().manual_seed(7)

        def draw(like: Tensor, low: float, high: float) -> Tensor:
            return torch.rand(like.shape, generator=generator) * (high - low) + low

        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None
                    assert module.running_var is not None
                    module.weight.copy_(draw(module.weight, 0.7, 1.6))
                    module.bias.copy_(draw(module.bias, 0.3, 1.2))
                    module.running_mean.copy_(draw(module.running_mean, -0.3, 0.3))
                    module.running_var.copy_(draw(module.running_var, 0.3, 1.2))
        return model.eval()

    return enliven


@pytest.fixture(scope="session")
def spikes_of() -> Callable[..., dict[str, Tensor]]:
    """Spikes [T, N, ...] of every layer of neurons in one forward; `kind` is the neurons' class."""

    def record(model: nn.Module, x: Tensor, kind: type = Neuron) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        handles = [
            module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out.detach().clone()}))
            for name, module in model.named_modules()
            if isinstance(module, kind)
        ]
        with torch.no_grad():
            model(x)
        for handle in handles:
            handle.remove()
        return found

    return record
