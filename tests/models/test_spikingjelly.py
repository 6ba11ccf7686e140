"""SEW-ResNets against the published network composed of SpikingJelly's layers and neurons, with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.models import SEWResNet, sew_resnet8, sew_resnet18
from isofire.neurons import Neuron, apply_per_step

WHY = "SpikingJelly is not installed; it is the outside reference of these tests"
sj_neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason=WHY)
sj_surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate", reason=WHY)
sj_layer = pytest.importorskip("spikingjelly.activation_based.layer", reason=WHY)
sj_functional = pytest.importorskip("spikingjelly.activation_based.functional", reason=WHY)

NODES: dict[str, Callable[[], Any]] = {
    "if": lambda: sj_neuron.IFNode(surrogate_function=sj_surrogate.ATan(2.0), step_mode="m"),
    "lif": lambda: sj_neuron.LIFNode(2.0, surrogate_function=sj_surrogate.ATan(2.0), step_mode="m"),
    "plif": lambda: sj_neuron.ParametricLIFNode(2.0, surrogate_function=sj_surrogate.ATan(2.0), step_mode="m"),
}


def conv_of(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    return sj_layer.Conv2d(inputs, outputs, size, stride, size // 2, bias=False, step_mode="m")


class JellyBlock(nn.Module):
    """The published block; parameters are called as in `SEWBlock`."""

    def __init__(self, inputs: int, outputs: int, stride: int, connect: str, node: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_of(inputs, outputs, 3, stride), conv_of(outputs, outputs, 3, 1)
        self.bn1, self.bn2 = (sj_layer.BatchNorm2d(outputs, step_mode="m") for _ in range(2))
        self.sn1, self.sn2 = node(), node()
        self.down = stride != 1 or inputs != outputs
        if self.down:
            self.conv_down = conv_of(inputs, outputs, 1, stride)
            self.bn_down = sj_layer.BatchNorm2d(outputs, step_mode="m")
            self.sn_down = node()
        self.connect = connect

    def forward(self, x: Tensor) -> Tensor:
        a = self.sn1(self.bn1(self.conv1(x)))
        a = self.sn2(self.bn2(self.conv2(a)))
        s = self.sn_down(self.bn_down(self.conv_down(x))) if self.down else x
        if self.connect == "add":
            return s + a
        return s * a if self.connect == "and" else s * (1.0 - a)


class JellyNet(nn.Module):
    """The published network with a CIFAR stem; parameters are called as in `SEWResNet`."""

    def __init__(self, model: SEWResNet, node: Callable[[], nn.Module]) -> None:
        super().__init__()
        assert model.config is not None
        self.T, width = model.T, model.stem.out_channels
        self.stem, self.stem_bn = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stem_sn = node()
        self.stages = nn.ModuleList()
        inputs = width
        for index, stage in enumerate(model.stages):
            outputs, blocks = width * 2**index, []
            for depth in range(len(stage)):  # type: ignore[arg-type]
                stride = 2 if index and not depth else 1
                blocks.append(JellyBlock(inputs, outputs, stride, model.config["connect"], node))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
        self.fc = sj_layer.Linear(inputs, 10, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        sj_functional.reset_net(self)
        x = self.stem_sn(self.stem_bn(self.stem(x)).unsqueeze(0).repeat(self.T, 1, 1, 1, 1))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((-2, -1)))


def twin(model: SEWResNet, neuron: str) -> JellyNet:
    """SpikingJelly's network with the model's weights, all of them."""
    jelly = JellyNet(model, NODES[neuron])
    jelly.load_state_dict(model.state_dict(), strict=True)
    return jelly.train(model.training)


def with_backend(model: SEWResNet, backend: Any) -> SEWResNet:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Neuron):
            module.backend = backend
    return model


def deviations(model: SEWResNet, x: Tensor) -> tuple[int, int]:
    """Neurons that differ from a float64 computation of their own layer, and all neurons.

    Each layer gets the currents that it met in the float32 network. Fails unless a neuron that differs does so first
    at a step where its float64 membrane lies within 1e-5 of the threshold.
    """
    differing, total, calls = 0, 0, []
    handles = [
        module.register_forward_hook(lambda m, a, k, out: calls.append((m, a[0], k, out)), with_kwargs=True)
        for module in model.modules()
        if isinstance(module, Neuron)
    ]
    with torch.no_grad():
        model(x)
        for handle in handles:
            handle.remove()
        for neuron, currents, call, spikes in calls:
            norm, tau = copy.deepcopy(call["norm"]).double(), neuron.dynamics.tau
            y = norm(currents.double()).expand(model.T, *currents.shape) if currents.ndim == 4 else None
            y = apply_per_step(norm, currents.double()) if y is None else y
            v, past_differs = torch.zeros_like(y[0]), torch.zeros_like(y[0], dtype=torch.bool)
            for t in range(model.T):
                h = v + (y[t] - v) / tau
                s = (h >= 1.0).double()
                v = h * (1.0 - s)
                new = (s != spikes[t]) & ~past_differs
                assert (h[new] - 1.0).abs().le(1e-5).all()
                past_differs |= new
            differing += int(past_differs.sum())
            total += past_differs.numel()
    return differing, total


NETWORKS: list[tuple[Callable[..., SEWResNet], dict[str, Any]]] = [
    (sew_resnet8, {"width": 0.5, "connect": "add"}),
    (sew_resnet8, {"width": 0.5, "connect": "and"}),
    (sew_resnet8, {"width": 0.5, "connect": "iand"}),
    (sew_resnet8, {"width": 0.5, "neuron": "if"}),
    (sew_resnet8, {"width": 0.5, "neuron": "plif"}),
    (sew_resnet18, {"width": 0.125, "T": 6}),
]


@pytest.mark.parametrize(("builder", "arguments"), NETWORKS)
def test_same_spikes_in_every_layer(
    builder: Callable[..., SEWResNet], arguments: dict[str, Any], lively: Any, images: Any, spikes_of: Any
) -> None:
    torch.manual_seed(1)
    neuron = arguments.get("neuron", "lif")
    model, x = lively(builder(**arguments)), images(4, 3, 16, 16)
    jelly = twin(model, neuron)
    expected = spikes_of(jelly, x, sj_neuron.BaseNode)
    assert len(expected) == (9 if builder is sew_resnet8 else 20)
    # norm and neuron apart round as SpikingJelly's do: no spike may differ
    for backend in ("reference", "torch"):
        found = spikes_of(with_backend(model, backend), x)
        assert found.keys() == expected.keys()
        for name, spikes in found.items():
            assert torch.equal(spikes, expected[name]), (backend, name)
            assert 0.01 < spikes.mean() < 0.95, name
    with torch.no_grad():
        torch.testing.assert_close(with_backend(model, "torch")(x), jelly(x))


@pytest.mark.parametrize(("builder", "arguments"), [NETWORKS[0], NETWORKS[2], NETWORKS[5]])
def test_fused_norms_move_only_membranes_at_the_threshold(
    builder: Callable[..., SEWResNet], arguments: dict[str, Any], lively: Any, images: Any
) -> None:
    torch.manual_seed(1)
    model, x = lively(builder(**arguments)), images(4, 3, 16, 16)
    differing, total = deviations(model, x)
    assert differing <= 5e-5 * total


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_same_gradients_and_statistics_in_training(connect: str, lively: Any, images: Any) -> None:
    torch.manual_seed(2)
    # float64, where no membrane comes so close to the threshold that rounding decides
    model = lively(sew_resnet8(width=0.25, connect=connect, neuron="plif")).double().train()
    jelly, x = twin(model, "plif").double(), images(4, 3, 12, 12).double()
    gradients = []
    for net in (model, jelly):
        nn.functional.cross_entropy(net(x).mean(0), torch.tensor([1, 5, 3, 9])).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name
        # SpikingJelly's stem norm sees the batch once too, so even the running variances agree
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-8, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(dict(model.named_buffers()), {k: b for k, b in jelly.named_buffers()})
