"""The networks and images that are timed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import isofire
from isofire.data import ImageSet
from isofire.models import SEWResNet, pretrained
from isofire.quantization import reestimate_batch_norm

CALIBRATION = 512


@dataclass(frozen=True)
class Given:
    """What a run was told: the folder of CIFAR-10 (None: the usual one), and its threads."""

    root: str | None = None
    threads: int = 2

    def images(self, count: int, split: str = "test") -> Tensor:
        """The first images of a split, normalised, [N, 3, 32, 32]."""
        return self.labelled(count, split)[0]

    def labelled(self, count: int, split: str = "test") -> tuple[Tensor, Tensor]:
        """Images and their labels."""
        images, labels = next(iter(self.set(split).first(count).batches(count)))[:2]
        return images, labels

    def set(self, split: str) -> ImageSet:
        """A split of CIFAR-10."""
        return isofire.data.load("cifar10", split, root=self.root)

    def quantized(self, model: SEWResNet, bits: int, images: int = CALIBRATION) -> SEWResNet:
        """Weights on uniform levels, by the first training images."""
        spec = isofire.QuantSpec(weights={"method": "uniform", "bits": bits})  # type: ignore[arg-type]
        made = isofire.quantize_(copy.deepcopy(model), spec, self.images(images, "train"))
        assert isinstance(made, SEWResNet)
        return made

    def awake(self, model: Any) -> Any:
        """An untrained network whose batch norms know the images, so that it fires; in eval mode."""
        reestimate_batch_norm(model, [(self.images(64, "train"),)])
        return model.eval()


def trained() -> SEWResNet:
    """SEW-ResNet-8 of 16, 32 and 64 channels, T = 4, trained on CIFAR-10."""
    model = pretrained("sew_resnet8-cifar10")
    assert isinstance(model, SEWResNet)
    return model.eval()


def backend(model: SEWResNet, name: str) -> SEWResNet:
    """A copy in channels_last whose neurons run by this backend."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, isofire.neurons.Neuron):
            module.backend = name  # type: ignore[assignment]
    return model


def last(x: Any) -> Any:
    """A batch, or a copy of a network, in channels_last."""
    if isinstance(x, nn.Module):
        return copy.deepcopy(x).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return x.contiguous(memory_format=torch.channels_last)
