"""`python -m scripts.cases.sinabs_digits`: a convolutional network of Sinabs' layers, on the digits in the package.

Run in the environment `sinabs` of `make test-adapters`.
"""

from __future__ import annotations

import sys

import sinabs.layers as sl
import torch
from scripts.cases.cells import cells
from scripts.cases.store import ROOT, store
from sinabs import reset_states
from torch import nn

import isofire

FOLDER = ROOT / "results" / "2026-11-25_sinabs-digits"
STEPS, EPOCHS = 12, 3
ABOUT = f"""A network in Sinabs' style: convolution, `IAFSqueeze`, sum pooling, linear layer, `IAFSqueeze`,
linear layer, `IAFSqueeze`, on images repeated over {STEPS} steps and folded into the batch; its neurons fire
several spikes a step, subtract the threshold and stop at -1. Trained for {EPOCHS} passes over the digits in the
package on the spikes of its last layer, quantized after training and compared on all test images. Every layer
is quantized."""


class Net(nn.Module):
    """Images [N, 1, 8, 8] -> spikes [N, T, 10]."""

    def __init__(self) -> None:
        super().__init__()

        def neurons() -> nn.Module:
            return sl.IAFSqueeze(num_timesteps=STEPS, min_v_mem=-1.0)

        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), neurons(), sl.SumPool2d(2), nn.Flatten(),
            nn.Linear(256, 64), neurons(), nn.Linear(64, 10), neurons(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.unsqueeze(1).expand(-1, STEPS, -1, -1, -1).flatten(0, 1)
        return self.layers(frames).unflatten(0, (-1, STEPS))


def main() -> None:
    """Train, and write the results folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, test = (isofire.data.load("digits", split) for split in ("train", "test"))
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        for images, labels in train.batches(32):
            reset_states(net)
            loss = nn.functional.cross_entropy(net(images).sum(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(epoch, loss.item(), file=sys.stderr)
    store(
        FOLDER,
        "Digits in Sinabs",
        ABOUT,
        ".venvs/sinabs/bin/python -m scripts.cases.sinabs_digits",
        net.eval(),
        cells(),
        train.first(256),
        test,
        labels={"model": "sinabs-conv", "data": "digits"},
        libraries=("sinabs",),
    )


if __name__ == "__main__":
    main()
