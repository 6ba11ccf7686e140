"""SEW-ResNet-8 built from SpikingJelly's layers and neurons, with the weights of one of isofire's."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from isofire.models import SEWResNet


class PeerBlock(nn.Module):
    """conv-bn-neuron twice, a conv1x1-bn-neuron shortcut where the shape changes, merged by ADD."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.sn1 = _unit(inputs, outputs, 3, stride)
        self.conv2, self.bn2, self.sn2 = _unit(outputs, outputs, 3, 1)
        self.downsample = stride != 1 or inputs != outputs
        if self.downsample:
            self.conv_down, self.bn_down, self.sn_down = _unit(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.sn2(self.bn2(self.conv2(self.sn1(self.bn1(self.conv1(x))))))
        return out + (self.sn_down(self.bn_down(self.conv_down(x))) if self.downsample else x)


class PeerNet(nn.Module):
    """As SpikingJelly's users write it: multi-step mode, the image repeated T times before the stem."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64), T: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.T = T
        self.stem, self.stem_bn, self.stem_sn = _unit(3, widths[0], 3, 1)
        inputs = (widths[0], *widths[:2])
        self.stages = nn.ModuleList(
            nn.Sequential(PeerBlock(a, b, 1 if i == 0 else 2))
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        self.fc = layer.Linear(widths[-1], classes)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        x = self.stem_sn(self.stem_bn(self.stem(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1))))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((-2, -1)))


def peer_of(model: SEWResNet) -> PeerNet:
    """The SpikingJelly network with the same weights, in the same mode."""
    peer = PeerNet(T=model.T)
    peer.load_state_dict(model.state_dict())
    return peer.train(model.training)


def _unit(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = layer.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, layer.BatchNorm2d(outputs), neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan())


def same_spikes(model: SEWResNet, images: Tensor) -> bool:
    """Whether both networks give the same logits, up to rounding; a benchmark of two different networks is none."""
    with torch.no_grad():
        ours, theirs = model.eval()(images), peer_of(model).eval()(images)
    return bool((ours.mean(0) - theirs.mean(0)).abs().max() < 1e-3)
