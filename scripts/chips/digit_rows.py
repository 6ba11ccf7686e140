"""A network for Xylo: digits read row by row as spikes, trained on the CPU in a minute, and what a chip makes of it.

    python -m scripts.chips.digit_rows [--hardware xylo-imu --classes 10] [--epochs 20] [--out runs/digit-rows]

An image of 8x8 pixels of 0 to 15 is eight steps of eight channels, followed by eight steps without input. Neurons are
current-based, as Xylo's are, with time constants that are bit shifts, and the class is the output that fires most.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isofire
from isofire.export import write_bundle
from isofire.integer import lower, steps_of
from isofire.neurons import ATan, CubaLIF, PerStep

STEPS = 16
MOST = 15
"""Spikes that an input channel of Xylo takes in a step."""


def rows(split: str, classes: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Batches of spike counts [T, N, 8] and labels; also a loader: --data scripts.chips.digit_rows:rows."""
    images = isofire.data.load("digits", split)
    batches = []
    for pixels, labels in images.batches(100):
        kept = labels < classes
        mean, std = images.mean[0], images.std[0]
        counts = ((pixels[kept, 0] * std + mean) * MOST).round().clamp(0, MOST)
        frames = torch.zeros(STEPS, len(counts), 8)
        frames[:8] = counts.permute(1, 0, 2)
        batches.append((frames, labels[kept]))
    return batches


def network(classes: int = 8, hidden: tuple[int, int] = (128, 63)) -> nn.Sequential:
    """8 -> 128 -> 63 -> classes, without biases: Xylo's act behind the synapse."""
    torch.manual_seed(0)

    def layer(before: int, after: int, several: bool) -> list[nn.Module]:
        dense = nn.Linear(before, after, bias=False)
        # counts of up to 15 spikes come in
        nn.init.normal_(dense.weight, 0.0, (0.25 if before == 8 else 1.0) / before**0.5)
        neuron = CubaLIF(8.0, 2.0, synapse="after_decay", v_reset=None, several=several, surrogate=ATan())
        return [PerStep(dense), neuron]

    return nn.Sequential(
        *layer(8, hidden[0], True), *layer(hidden[0], hidden[1], True), *layer(hidden[1], classes, False)
    )


def train(net: nn.Sequential, batches: list[tuple[Tensor, Tensor]], epochs: int, images: int = 50) -> None:
    """Cross-entropy of the outputs' spikes over all steps, Adam, one cycle."""
    frames, labels = torch.cat([x for x, _ in batches], 1), torch.cat([y for _, y in batches])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    rounds = epochs * -(-len(labels) // images)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=rounds)
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=generator).split(images):
            loss = F.cross_entropy(net(frames[:, chosen]).sum(0), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", default="xylo-a2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--classes", type=int, default=8, help="8 outputs are what Xylo-Audio 2 has")
    parser.add_argument("--out", type=Path, default=None, help="folder for a bundle of integers")
    args = parser.parse_args()
    started = time.perf_counter()
    net = network(args.classes)
    train(net, rows("train", args.classes), args.epochs)
    seconds = time.perf_counter() - started
    test = rows("test", args.classes)
    chip = lower(net, test[0][0], hardware=args.hardware, approximate=True)
    assert chip.mapping is not None
    steps = steps_of(net, chip, test)
    if args.out is not None:
        write_bundle(args.out, chip, chip.codes(test[0][0][:, :2]))
    print(f"trained {args.epochs} epochs in {seconds:.0f} s")
    print("\n".join(map(str, chip.mapping.refusals)), chip.mapping.resources, steps.table(), sep="\n\n")


if __name__ == "__main__":
    main()
