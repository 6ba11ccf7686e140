"""Spike-element-wise residual networks (Fang et al. 2021, "Deep Residual Learning in Spiking Neural Networks")."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from isofire.convolution import guard_
from isofire.errors import ModelError, SpecError
from isofire.neurons import NEURONS, Neuron, apply_per_step, surrogate

CONNECT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda out, identity: out + identity,
    "and": lambda out, identity: out * identity,
    "iand": lambda out, identity: identity * (1.0 - out),
}


MOST = {"T": 65_536, "in_channels": 65_536, "num_classes": 1_000_000}
"""Beyond any network that was ever trained; of a wrong T nothing else would tell, since no weight shows it."""


class SEWBlock(nn.Module):
    """O = g(A, S): A = SN(BN(conv(SN(BN(conv(x)))))), S = x, or SN(BN(conv1x1(x))) where the shape changes.

    g is ADD (A + S), AND (A * S) or IAND (S * (1 - A)); no neuron follows it, so ADD gives counts, not spikes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, connect: str, neuron: Callable[[], Neuron]) -> None:
        super().__init__()
        _check_connect(connect)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.sn1 = neuron()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.sn2 = neuron()
        self.downsample = stride != 1 or inputs != outputs
        if self.downsample:
            self.conv_down = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.bn_down = nn.BatchNorm2d(outputs)
            self.sn_down = neuron()
        self.connect = connect

    def forward(self, x: Tensor) -> Tensor:
        """[T, N, inputs, H, W] -> [T, N, outputs, H / stride, W / stride]."""
        out = self.sn1(apply_per_step(self.conv1, x), norm=self.bn1)
        out = self.sn2(apply_per_step(self.conv2, out), norm=self.bn2)
        identity = self.sn_down(apply_per_step(self.conv_down, x), norm=self.bn_down) if self.downsample else x
        return CONNECT[self.connect](out, identity)

    def extra_repr(self) -> str:
        return f"connect={self.connect!r}"


class SEWResNet(nn.Module):
    """SEW-ResNet with the CIFAR stem (conv 3x3, stride 1, no pooling) and direct coding.

    Parameters
    ----------
    blocks, widths
        Blocks and channels of each stage; every stage after the first halves height and width.
    T
        Steps a static image is presented for.
    connect
        "add", "and" or "iand".
    neuron
        Makes one layer of neurons.
    zero_init_residual
        Start each block as identity: the last batch norm's gain is 0; for AND its bias makes the neuron always fire.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        *,
        T: int = 4,
        connect: str = "add",
        neuron: Callable[[], Neuron],
        in_channels: int = 3,
        num_classes: int = 10,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        _check(blocks, widths, T, connect, in_channels, num_classes)
        self.T = T
        self.stem = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(widths[0])
        self.stem_sn = neuron()
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            stage_blocks = []
            for stride in strides:
                stage_blocks.append(SEWBlock(inputs, width, stride, connect, neuron))
                inputs = width
            self.stages.append(nn.Sequential(*stage_blocks))
        self.fc = nn.Linear(inputs, num_classes)
        self._initialise(connect, zero_init_residual)
        self.config: dict[str, Any] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each step.

        Parameters
        ----------
        x
            Images [N, C, H, W], presented T times (the stem's convolution and norm run once), or one frame a step
            [T, N, C, H, W].

        Returns
        -------
        Tensor
            [T, N, classes]; a prediction is the argmax of their mean over T.
        """
        if x.ndim in (4, 5) and x.shape[-3] != self.stem.in_channels:
            raise ModelError(
                f"this network takes images of {self.stem.in_channels} channels, got shape {tuple(x.shape)}; "
                "it was made for other data, or in_channels is to be set"
            )
        if x.ndim == 4:
            x = self.stem_sn(self.stem(x), norm=self.stem_bn, repeat=self.T)
        elif x.ndim == 5:
            x = self.stem_sn(apply_per_step(self.stem, x), norm=self.stem_bn)
        else:
            raise ModelError(f"images must be [N, C, H, W] or [T, N, C, H, W], got shape {tuple(x.shape)}")
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((-2, -1)))

    def _initialise(self, connect: str, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, SEWBlock) and zero_init_residual:
                nn.init.zeros_(module.bn2.weight)
                if connect == "and":
                    # a little above the least that makes a neuron at rest fire at every step
                    nn.init.constant_(module.bn2.bias, 1.01 * module.sn2.firing_input())


def sew_resnet8(
    *,
    T: int = 4,
    width: float = 1.0,
    connect: str = "add",
    neuron: str = "lif",
    neuron_options: dict[str, Any] | None = None,
    surrogate: str = "atan",
    alpha: float | None = None,
    in_channels: int = 3,
    num_classes: int = 10,
    zero_init_residual: bool = False,
) -> SEWResNet:
    """SEW-ResNet-8: one block a stage, 16-32-64 channels times `width`; 86,016 neurons at 32x32 and width 1.

    The paper does not give its layout; this is the CIFAR family 6n + 2 with n = 1.

    Parameters
    ----------
    neuron, neuron_options
        "lif" (tau 2, decayed input), "if" or "plif", and their keyword arguments.
    surrogate, alpha
        "atan", "sigmoid" or "triangle", and its sharpness. Other parameters as in `SEWResNet`.
    """
    config = dict(locals())
    widths = [_scaled(base, width) for base in (16, 32, 64)]
    return _build("sew_resnet8", (1, 1, 1), widths, config)


def sew_resnet18(
    *,
    T: int = 4,
    width: float = 1.0,
    connect: str = "add",
    neuron: str = "lif",
    neuron_options: dict[str, Any] | None = None,
    surrogate: str = "atan",
    alpha: float | None = None,
    in_channels: int = 3,
    num_classes: int = 10,
    zero_init_residual: bool = False,
) -> SEWResNet:
    """SEW-ResNet-18: two blocks a stage, 64-128-256-512 channels times `width`; 614,400 neurons at 32x32 and width 1.

    Parameters as in `sew_resnet8`.
    """
    config = dict(locals())
    widths = [_scaled(base, width) for base in (64, 128, 256, 512)]
    return _build("sew_resnet18", (2, 2, 2, 2), widths, config)


def _build(builder: str, blocks: Sequence[int], widths: Sequence[int], config: dict[str, Any]) -> SEWResNet:
    model = SEWResNet(
        blocks,
        widths,
        T=config["T"],
        connect=config["connect"],
        neuron=neuron_factory(config["neuron"], config["neuron_options"] or {}, config["surrogate"], config["alpha"]),
        in_channels=config["in_channels"],
        num_classes=config["num_classes"],
        zero_init_residual=config["zero_init_residual"],
    )
    model.config = {"builder": builder, **config}
    guard_(model)
    return model


def neuron_factory(
    name: str, options: dict[str, Any], surrogate_name: str, alpha: float | None
) -> Callable[[], Neuron]:
    """A function that makes one layer of neurons.

    Raises
    ------
    SpecError
        If the neuron, the surrogate or an option is unknown.
    """
    kind = cast(Callable[..., Neuron], NEURONS[name])
    slope = surrogate(surrogate_name, alpha)

    def make() -> Neuron:
        try:
            return kind(surrogate=slope, **options)
        except (TypeError, SpecError) as error:
            raise SpecError(f"neuron_options for {name!r}: {error}") from error

    make()
    return make


def _scaled(base: int, width: float) -> int:
    if not math.isfinite(width) or round(base * width) < 1:
        raise SpecError(f"width must be finite and leave at least one channel, got {width} (of {base})")
    return round(base * width)


def _check(
    blocks: Sequence[int], widths: Sequence[int], T: int, connect: str, in_channels: int, num_classes: int
) -> None:
    if len(blocks) != len(widths) or not blocks or min(*blocks, *widths) < 1:
        raise SpecError(f"blocks and widths need one entry >= 1 a stage, got {list(blocks)} and {list(widths)}")
    for name, value in (("T", T), ("in_channels", in_channels), ("num_classes", num_classes)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST[name]:
            raise SpecError(f"{name} must be a whole number in 1..{MOST[name]:,}, got {value!r}")
    _check_connect(connect)


def _check_connect(connect: str) -> None:
    if connect not in CONNECT:
        raise SpecError(f"connect must be one of {', '.join(CONNECT)}, got {connect!r}")
