"""One network a chip, built and trained for it: data as spikes, neurons as the chip has them, a cycle of Adam.

`NAMES` has them; `python -m scripts.chips.trained` trains, lowers and stores them. `rows`, `spikes` and `events` are
loaders too: `isofire lower --data scripts.chips.networks:rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isofire
from isofire.data.nmnist import load_nmnist_small
from isofire.neurons import IF, LIF, ATan, CubaLIF, PerStep

Batches = list[tuple[Tensor, Tensor]]
"""Frames of spike counts [T, N, ...] and labels."""

MOST = 15
"""Spikes that an input channel of Xylo takes in a step."""
HELD_OUT = 200
"""Of its 1,000 training recordings, the last are tested on, with the 100 test recordings."""


def _digits(split: str) -> list[tuple[Tensor, Tensor]]:
    """Pixels 0 to 1 [N, 8, 8] of the digits that come with the package, and labels."""
    images = isofire.data.load("digits", split)
    return [(x[:, 0] * images.std[0] + images.mean[0], labels) for x, labels in images.batches(100)]


def rows(split: str, classes: int = 8) -> Batches:
    """Digits row by row: eight steps of eight channels of 0 to 15 spikes, and eight steps without input."""
    found = []
    for pixels, labels in _digits(split):
        kept = labels < classes
        counts = (pixels[kept] * MOST).round().clamp(0, MOST).permute(1, 0, 2)
        found.append((torch.cat([counts, torch.zeros_like(counts)]), labels[kept]))
    return found


def spikes(split: str, steps: int = 16) -> Batches:
    """Digits as regular trains of single spikes: a pixel of p has floor(t p) of them in its first t steps."""
    found = []
    for pixels, labels in _digits(split):
        total = (torch.arange(steps + 1).view(-1, 1, 1) * (pixels.flatten(1) * 16).round() / 16).floor()
        found.append((total[1:] - total[:-1], labels))
    return found


def events(split: str, root: Path = Path("data"), steps: int = 10) -> Batches:
    """SLAYER's extract of N-MNIST as ten frames [2, 34, 34] of 30 ms: 800 recordings to train on, 300 to test on."""
    train, test = (load_nmnist_small(root, name, steps=steps, step_us=30_000) for name in ("train", "test"))
    known = list(train.batches(100))
    last = HELD_OUT // 100
    return known[:-last] if split == "train" else [*known[-last:], *test.batches(100)]


def _dense(sizes: Sequence[int], neurons: Sequence[nn.Module], gains: Sequence[float]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, neuron, gain in zip(sizes[:-1], sizes[1:], neurons, gains, strict=True):
        dense = nn.Linear(before, after, bias=False)
        nn.init.normal_(dense.weight, 0.0, gain / before**0.5)
        layers += [PerStep(dense), neuron]
    return nn.Sequential(*layers)


def current_based(tau: float = 8.0, tau_syn: float = 2.0) -> nn.Sequential:
    """8 -> 128 -> 63 -> 8 current-based neurons, without biases: Xylo's act behind the synapse."""

    def neuron(several: bool) -> nn.Module:
        return CubaLIF(tau, tau_syn, synapse="after_decay", v_reset=None, several=several, surrogate=ATan())

    # counts of up to 15 spikes come in; a longer synapse adds up more of them
    gain = 1.0 / (tau_syn - 1.0)
    return _dense((8, 128, 63, 8), (neuron(True), neuron(True), neuron(False)), (0.25 * gain, gain, gain))


def leaky(tau: float = 3.0) -> nn.Sequential:
    """64 -> 128 -> 10 LIF neurons with a hard reset; 4096 / tau is not whole, so that Loihi rounds the decay."""
    return _dense((64, 128, 10), [LIF(tau, surrogate=ATan()) for _ in range(2)], (3.0, 3.0))


def convolutional() -> nn.Sequential:
    """2x34x34 -> 8x16x16 -> 16x8x8 -> 10 integrate-and-fire neurons, as Sinabs' are."""

    def neuron() -> nn.Module:
        return IF(v_reset=None, several=True, v_floor=-1.0, surrogate=ATan())

    return nn.Sequential(
        PerStep(nn.Conv2d(2, 8, 5, stride=2, padding=1, bias=False)), neuron(),
        PerStep(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)), neuron(),
        PerStep(nn.Flatten(), nn.Linear(1024, 10, bias=False)), neuron(),
    )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A network, its chip, and how it is trained.

    Parameters
    ----------
    about
        What it is, in a few words.
    simulator
        The environment and script that know the chip, see `scripts.chips.oracle`.
    """

    hardware: str
    about: str
    build: Callable[[], nn.Sequential]
    load: Callable[..., Batches]
    epochs: int
    rate: float
    simulator: str


NAMES = {
    "xylo": Trained(
        "xylo-a2", "digits row by row, dense, current-based LIF with time constants 8 and 2 (bit shifts)",
        current_based, rows, 20, 1e-2, "xylo",
    ),
    "xylo-between": Trained(
        "xylo-a2", "the same with time constants 6 and 3, which lie between bit shifts",
        lambda: current_based(6.0, 3.0), rows, 20, 1e-2, "xylo",
    ),
    "speck": Trained(
        "speck2f", "N-MNIST in ten frames, two convolutions and a dense layer of IF", convolutional, events, 12, 5e-3,
        "speck",
    ),
    "loihi": Trained(
        "loihi1", "digits as trains of spikes, dense, LIF with time constant 3", leaky, spikes, 40, 5e-3, "loihi"
    ),
}  # fmt: skip


def train(net: nn.Sequential, batches: Batches, epochs: int, rate: float, seed: int, images: int = 50) -> float:
    """Cross-entropy of the outputs' spikes over all steps, Adam, one cycle; the last epoch's mean loss."""
    frames, labels = torch.cat([x for x, _ in batches], 1), torch.cat([y for _, y in batches])
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    rounds = epochs * -(-len(labels) // images)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=rounds)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for chosen in torch.randperm(len(labels), generator=generator).split(images):
            loss = F.cross_entropy(net(frames[:, chosen]).sum(0), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    net.eval()
    return sum(losses) / len(losses)
