"""The small networks of three chips whose every number is known from the chips' own simulators."""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor

from isofire.integer import INPUT, Connection, HardwareSpec, IntegerNetwork, NeuronRules, Population, Trace

XYLO = HardwareSpec.load("xylo-a2").neuron
XYLO_V1 = msgspec.structs.replace(XYLO, increment="whole")
SPECK = HardwareSpec.load("speck2f").neuron
LOIHI = HardwareSpec.load("loihi1").neuron


def row(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def of(trace: dict[str, Tensor], name: str, neuron: int = 0) -> list[int]:
    return trace[name][:, 0].flatten(1)[:, neuron].tolist()


def frames(*channels: str) -> Tensor:
    """[T, 1, channels], int64."""
    return torch.tensor([row(channel) for channel in channels]).T.unsqueeze(1)


def xylo(rules: NeuronRules, biased: bool) -> Trace:
    """1 input, 2 hidden neurons with a recurrent synapse, 1 output (xylosim 0.1.3)."""
    hidden = Population(
        rules, (2,), threshold=torch.tensor([64, 30]), reset="subtract", bias=torch.tensor([5, -3]) * biased,
        decay=torch.tensor([1, 2]), synapse_decay=torch.tensor([2, 3]),
    )  # fmt: skip
    output = Population(
        rules, (1,), threshold=40, reset="subtract", bias=4 * biased, decay=3, synapse_decay=1, output=True
    )
    net = IntegerNetwork(
        {"hidden": hidden, "out": output},
        [
            Connection(sources=(INPUT,), target="hidden", weight=torch.tensor([[50], [-30]])),
            Connection(sources=("hidden",), target="hidden", weight=torch.tensor([[0, 0], [20, 0]]), delay=1),
            Connection(sources=("hidden",), target="out", weight=torch.tensor([[25, -7]]), delay=1),
        ],
        (1,),
    )
    return net.run(frames("3 1 0 0 2 0 0 0"), states=True)


def xylo_saturating(rules: NeuronRules) -> list[int]:
    """Two inputs of weight 127 and -128, shifted by 7."""
    neuron = Population(rules, (1,), threshold=32767, reset="subtract", decay=1, synapse_decay=8)
    to = Connection(sources=(INPUT,), target="n", weight=torch.tensor([[127, -128]]), shift=7)
    return of(IntegerNetwork({"n": neuron}, [to], (2,)).run(frames("2 0 0", "0 4 0"), states=True).membranes, "n")


def speck(rules: NeuronRules) -> Trace:
    """A convolution 1x1 of two channels, discretized by Sinabs 3.1.3."""
    neuron = Population(
        rules, (2, 1, 1), threshold=423, reset="subtract", bias=torch.tensor([8, 64]).view(2, 1, 1), floor=-212
    )
    to = Connection(sources=(INPUT,), target="n", kind="conv", weight=torch.tensor([127, -85]).view(2, 1, 1, 1))
    return IntegerNetwork({"n": neuron}, [to], (1, 1, 1)).run(frames("3 0 1 4 8 0 2 0")[..., None, None], states=True)


def loihi(rules: NeuronRules) -> Trace:
    """Two neurons (lava 0.10.0, nengo-loihi 1.1.0, brian2-loihi 0.5.2); the current loses (du + 1) / 4096."""
    neuron = Population(rules, (2,), threshold=200, reset="zero", decay=511, synapse_decay=1024)
    to = Connection(sources=(INPUT,), target="n", weight=torch.tensor([[124, -60], [36, 100]]), shift=6)
    given = frames("1 0 0 1 1 0 0 0 0 0 0 0", "0 1 0 0 0 0 1 0 0 0 0 0")
    return IntegerNetwork({"n": neuron}, [to], (2,)).run(given, states=True)
