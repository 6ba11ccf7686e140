"""`python -m scripts.cases.spikingjelly_sew18 ROOT`: SpikingJelly's own SEW-ResNet-18, on CIFAR-10.

ROOT holds cifar-10-batches-bin. Run in the environment `peers` of `make test-adapters`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from scripts.cases.store import ROOT, store
from torch import nn

import isofire
from isofire.adapters import reset_

FOLDER = ROOT / "results" / "2026-11-25_spikingjelly-sew-resnet18"
STEPS, TESTED = 4, 200
ABOUT = f"""SpikingJelly 2.0's `sew_resnet18`, of its own classes, with `LIFNode`s, ADD, T = {STEPS} and, in
place of the stem for large images, a convolution 3x3 without pooling. **Its weights are random** (torch's
initialization, seed 0; batch norms measured on 64 training images): the accuracies are those of guessing, and
the table shows that the unmodified network is quantized and what that does to the firing of a network of this
size, not how a trained one fares. Compared on the first {TESTED} test images of CIFAR-10. Every layer is
quantized."""
POST: dict[str, Any] = {"placement": "post_reset", "range": [-1.0, 1.0]}
CELLS: list[dict[str, Any]] = [
    {"weights": {"method": "lsq", "bits": 4}},
    {"membrane": {"bits": 4, "placement": "pre_fire", "range": "minmax"}},
    {"membrane": {"bits": 4, **POST}},
    {"weights": {"method": "lsq", "bits": 4}, "membrane": {"bits": 4, **POST}},
]


def zoo() -> Any:
    """SpikingJelly's module of SEW-ResNets, which asks torchvision for nothing but the function that downloads weights.

    torchvision's registry build does not import beside a torch for CPUs; torch.hub has the same function.
    """
    torchvision, utils = ModuleType("torchvision"), ModuleType("torchvision._internally_replaced_utils")
    vars(utils)["load_state_dict_from_url"] = torch.hub.load_state_dict_from_url
    sys.modules.setdefault("torchvision", torchvision)
    sys.modules.setdefault("torchvision._internally_replaced_utils", utils)
    from spikingjelly.activation_based.model import sew_resnet

    return sew_resnet


class Cifar(nn.Module):
    """Images [N, 3, 32, 32] at each step -> logits [T, N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        sew = zoo()
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
        self.net = sew.sew_resnet18(spiking_neuron=neuron.LIFNode, cnf="ADD", num_classes=10, **options)
        self.net.conv1, self.net.maxpool = layer.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        functional.set_step_mode(self.net, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1))


def main(root: str) -> None:
    """Measure the batch norms, and write the results folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, test = (isofire.data.load("cifar10", split, root=root) for split in ("train", "test"))
    net = Cifar()
    isofire.quantization.reestimate_batch_norm(net, train.first(64).batches(32))
    reset_(net)
    store(
        FOLDER,
        "SpikingJelly's SEW-ResNet-18 on CIFAR-10 images",
        ABOUT,
        ".venvs/peers/bin/python -m scripts.cases.spikingjelly_sew18 ROOT",
        net.eval(),
        CELLS,
        train.first(32),
        test.first(TESTED),
        labels={"model": "spikingjelly-sew_resnet18", "data": "cifar10"},
        libraries=("spikingjelly",),
        batch_size=20,
    )


if __name__ == "__main__":
    main(sys.argv[1])
