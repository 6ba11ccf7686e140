"""`python -m scripts.cases.snntorch_fashion ROOT`: the convolutional network of snnTorch's tutorials, on Fashion-MNIST.

ROOT holds the folder fashion-mnist with its four files, as the Debian package dataset-fashion-mnist puts it below
/usr/share/datasets. Run in the environment `peers` of `make test-adapters`.
"""

from __future__ import annotations

import sys

import snntorch as snn
import torch
from scripts.cases.cells import cells
from scripts.cases.store import ROOT, store
from snntorch import functional as SF
from snntorch import surrogate, utils
from torch import nn

import isofire
from isofire.adapters import OverTime

FOLDER = ROOT / "results" / "2026-11-25_snntorch-fashion-mnist"
STEPS, IMAGES, TESTED = 8, 12_800, 1_000
ABOUT = f"""The convolutional network of snnTorch's tutorial 6 (two convolutions with max pooling, one linear
layer, `Leaky` neurons with `init_hidden`), written and trained as it is there (`ce_rate_loss`, Adam, the loop
over {STEPS} steps outside of the network), for one pass over {IMAGES:,} images of Fashion-MNIST; then quantized
after training and compared on the first {TESTED:,} test images through `isofire.adapters.OverTime`. Every layer
is quantized. snnTorch's neurons reset at the next step, so that membranes can be quantized at `pre_fire` only."""


def build() -> nn.Sequential:
    """The tutorial's network."""
    spike_grad = surrogate.fast_sigmoid(slope=25)
    options = {"beta": 0.5, "spike_grad": spike_grad, "init_hidden": True}
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), snn.Leaky(**options),
        nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), snn.Leaky(**options),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10), snn.Leaky(**options, output=True),
    )  # fmt: skip


def forward_pass(net: nn.Module, num_steps: int, data: torch.Tensor) -> torch.Tensor:
    """The tutorial's loop: spikes [T, N, 10]."""
    utils.reset(net)
    return torch.stack([net(data)[0] for _ in range(num_steps)])


def main(root: str) -> None:
    """Train, and write the results folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, test = (isofire.data.load("fashion-mnist", split, root=root) for split in ("train", "test"))
    net, loss_fn = build(), SF.ce_rate_loss()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.9, 0.999))
    for number, (data, targets) in enumerate(train.first(IMAGES).batches(64)):
        loss = loss_fn(forward_pass(net.train(), STEPS, data), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(number, loss.item(), file=sys.stderr)
    store(
        FOLDER,
        "Fashion-MNIST in snnTorch",
        ABOUT,
        ".venvs/peers/bin/python -m scripts.cases.snntorch_fashion ROOT",
        OverTime(net.eval(), STEPS),
        cells(post_reset=False),
        train.first(128),
        test.first(TESTED),
        labels={"model": "snntorch-tutorial-6", "data": "fashion-mnist"},
        libraries=("snntorch",),
    )


if __name__ == "__main__":
    main(sys.argv[1])
