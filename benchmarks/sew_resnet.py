"""SEW-ResNets built from SpikingJelly's layers and neurons."""

from __future__ import annotations

from collections.abc import Sequence

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn


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

    def __init__(self, blocks: Sequence[int], widths: Sequence[int], T: int, classes: int = 10) -> None:
        super().__init__()
        self.T, inputs = T, widths[0]
        self.stem, self.stem_bn, self.stem_sn = _unit(3, inputs, 3, 1)
        self.stages = nn.ModuleList()
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            made = []
            for block in range(count):
                made.append(PeerBlock(inputs, width, 2 if stage and not block else 1))
                inputs = width
            self.stages.append(nn.Sequential(*made))
        self.fc = layer.Linear(inputs, classes)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        x = self.stem_sn(self.stem_bn(self.stem(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1))))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((-2, -1)))


def _unit(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = layer.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, layer.BatchNorm2d(outputs), neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan())
