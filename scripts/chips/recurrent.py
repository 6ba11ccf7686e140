"""Recurrent networks, lowered, through their chips' simulators: `python -m scripts.chips.recurrent OUT.json`.

`make test-chips` does it anew; what it wrote once is stored in tests/integer/golden, beside random networks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scripts.chips.oracle import padded, simulated
from scripts.evidence.run import ROOT
from torch import Tensor, nn

from isofire.integer import IntegerNetwork, lower
from isofire.neurons import IF, CubaLIF, Neuron, PerStep, Recurrent


def network(neuron: Callable[[bool], Neuron], hidden: int = 20) -> nn.Sequential:
    """6 -> hidden, recurrent -> hidden, recurrent -> 4; weights on eighths, the same everywhere."""
    generator = torch.Generator().manual_seed(3)

    def dense(before: int, after: int) -> nn.Linear:
        layer = nn.Linear(before, after, bias=False)
        codes = torch.randint(-7, 8, layer.weight.shape, generator=generator)
        layer.weight = nn.Parameter(codes / 8)
        return layer

    layers: list[nn.Module] = []
    for before, after in ((6, hidden), (hidden, hidden)):
        layers += [PerStep(dense(before, after)), Recurrent(neuron(False), dense(after, after))]
    return nn.Sequential(*layers, PerStep(dense(hidden, 4)), neuron(True)).eval()


def frames(most: int) -> Tensor:
    """Counts of spikes [20, 4, 6]."""
    return torch.randint(0, most + 1, (20, 4, 6), generator=torch.Generator().manual_seed(4)).float()


def xylo() -> tuple[nn.Sequential, Tensor, IntegerNetwork]:
    """Current-based neurons that fire several times a step, and counts."""

    def neuron(output: bool) -> Neuron:
        return CubaLIF(8.0, 2.0, synapse="after_decay", v_reset=None, several=not output, v_threshold=3.0)

    net, x = network(neuron), frames(3)
    return net, x, lower(net, x, hardware="xylo-a2", approximate=True)


def loihi() -> tuple[nn.Sequential, Tensor, IntegerNetwork]:
    """Neurons that integrate and fire: nothing is approximated."""
    net, x = network(lambda _output: IF(v_threshold=1.0)), frames(1)
    return net, x, lower(net, x, hardware="loihi1")


CHIPS = {"xylo": xylo, "loihi": loihi}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="the simulators' environments")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for chip, made in CHIPS.items():
        _, x, integers = made()
        theirs = simulated(args.environments, chip, integers, padded(integers, x))
        found[chip] = {name: values.tolist() for name, values in theirs.items()}
    args.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
