"""`python -m scripts.keep_firing.networks ROOT OUT`: train the SpikingJelly network of the study csnn.toml.

ROOT holds the folder fashion-mnist with its four files, as the Debian package dataset-fashion-mnist puts it below
/usr/share/datasets; OUT is the folder for csnn.safetensors. The functions without arguments are the study's builders.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import isofire
from isofire.models import build, pretrained
from isofire.training import save_weights

EPOCHS, BATCH, CHANNELS = 2, 100, 16


class Csnn(nn.Module):
    """The form of SpikingJelly's tutorial network: images [N, 1, 28, 28] at each step -> mean output [N, 10]."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

        def fire() -> nn.Module:
            return neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True)

        def block(inputs: int) -> list[nn.Module]:
            convolution = layer.Conv2d(inputs, CHANNELS, kernel_size=3, padding=1, bias=False)
            return [convolution, layer.BatchNorm2d(CHANNELS), fire(), layer.MaxPool2d(2, 2)]

        self.layers = nn.Sequential(
            *block(1), *block(CHANNELS), layer.Flatten(),
            layer.Linear(CHANNELS * 7 * 7, 128, bias=False), fire(), layer.Linear(128, 10, bias=False), fire(),
        )  # fmt: skip
        functional.set_step_mode(self, "m")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)).mean(0)


def csnn_at_4_steps() -> nn.Module:
    """As it is trained."""
    return Csnn(4)


def sew8_at_16_steps() -> nn.Module:
    """The packaged network, trained with 4 steps, over 16."""
    trained = pretrained("sew_resnet8-cifar10")
    network = build({**trained.__dict__["config"], "T": 16})
    network.load_state_dict(trained.state_dict())
    return network.eval()


def main(root: str, out: str) -> None:
    """Train for two passes, and write the weights."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, test = (isofire.data.load("fashion-mnist", split, root=root) for split in ("train", "test"))
    network, generator = Csnn(4), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        network.train()
        order = torch.randperm(len(train), generator=generator)
        for index in order[: len(order) // BATCH * BATCH].split(BATCH):
            images, labels = next(iter(train.take(index).batches(BATCH)))
            loss = nn.functional.mse_loss(network(images), nn.functional.one_hot(labels, 10).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            functional.reset_net(network)
        print(epoch, loss.item(), file=sys.stderr, flush=True)
    network.eval()
    hits = 0
    for images, labels in test.batches(BATCH):
        with torch.no_grad():
            hits += int((network(images).argmax(1) == labels).sum())
        functional.reset_net(network)
    print(f"test {hits / len(test):.4f}", file=sys.stderr)
    functional.reset_net(network)
    save_weights(Path(out) / "csnn.safetensors", network, {"builder": "scripts.keep_firing.networks:csnn_at_4_steps"})


if __name__ == "__main__":
    main(*sys.argv[1:])
