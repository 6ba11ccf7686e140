"""`python -m scripts.cases.norse_digits`: a convolutional network of Norse's cells, on the digits in the package.

Run in the environment `peers` of `make test-adapters`.
"""

from __future__ import annotations

import sys

import norse.torch as norse
import torch
from scripts.cases.cells import cells
from scripts.cases.store import ROOT, store
from torch import nn

import isofire

FOLDER = ROOT / "results" / "2026-11-25_norse-digits"
STEPS, EPOCHS = 16, 3
ABOUT = f"""A network in Norse's style, a `SequentialState` of a convolution, a `LIFCell`, a linear layer,
another `LIFCell`, a linear layer and a leaky integrator whose last potentials are the logits, called in a loop
over {STEPS} steps; trained for {EPOCHS} passes over the digits in the package, quantized after training and
compared on all test images. Every layer is quantized."""


class Net(nn.Module):
    """Images [N, 1, 8, 8] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        p = norse.LIFParameters(
            tau_mem_inv=torch.tensor(200.0), tau_syn_inv=torch.tensor(500.0), alpha=torch.tensor(10.0)
        )
        self.layers = norse.SequentialState(
            nn.Conv2d(1, 16, 3), norse.LIFCell(p), nn.Flatten(), nn.Linear(576, 64), norse.LIFCell(p),
            nn.Linear(64, 10), norse.LICell(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        voltage, state = x, None
        for _ in range(STEPS):
            voltage, state = self.layers(8.0 * x, state)
        return voltage


def main() -> None:
    """Train, and write the results folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, test = (isofire.data.load("digits", split) for split in ("train", "test"))
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        for images, labels in train.batches(32):
            loss = nn.functional.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(epoch, loss.item(), file=sys.stderr)
    store(
        FOLDER,
        "Digits in Norse",
        ABOUT,
        ".venvs/peers/bin/python -m scripts.cases.norse_digits",
        net.eval(),
        cells(),
        train.first(256),
        test,
        labels={"model": "norse-conv", "data": "digits"},
        libraries=("norse",),
    )


if __name__ == "__main__":
    main()
