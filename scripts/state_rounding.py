"""Ways of rounding a stored potential that isofire does not ship, because none of them wins; see docs/keep-firing.md.

python -m scripts.state_rounding --root DATA [--steps 40] [--T 16]

On the packaged CIFAR-10 network, with `anchored` states, one seed, and 1,000 images held out of the train split:
rounding at random, the rounding error carried to the neighbour to the right or, in one more bit, to the next step; and,
after a few steps of training a one-bit state, rounding at random in training and bits that fall on the way (4, 2, 1).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import isofire
from isofire.adapters import find_neurons
from isofire.data import ImageSet, hold_out, load
from isofire.firing import Observation, compare, observe
from isofire.models import build, pretrained
from isofire.quantization import calibrate, prepare
from isofire.quantizers import MEMBRANES, Levels, Quantizer, ste

IMAGES, CALIBRATION, BATCH = 1000, 256, 64


class AtRandom(Levels):
    """Up with the probability of the value's place between two levels; in training alone, if `only_training`."""

    only_training = False

    @property
    def is_fixed(self) -> bool:
        return self.only_training and not self.learning

    def forward(self, x: Tensor) -> Tensor:
        if self.is_fixed:
            return super().forward(x)
        levels = self.values[0]
        with torch.no_grad():
            value = x.clamp(levels[0], levels[-1])
            above = torch.searchsorted(levels, value.contiguous()).clamp(1, len(levels) - 1)
            low, high = levels[above - 1], levels[above]
            q = torch.where(torch.rand_like(value) < (value - low) / (high - low), high, low)
        return ste.plain(x, q) if x.requires_grad else q


class AtRandomInTraining(AtRandom):
    only_training = True


class ToTheNeighbour(Levels):
    """Each neuron's error, up to 0.5, goes to its right neighbour before that one is rounded, so that sums stay."""

    @property
    def is_fixed(self) -> bool:
        return False

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 4:
            return super().forward(x)
        columns, carried = [], torch.zeros_like(x[..., 0])
        for column in x.unbind(-1):
            rests = column == 0
            wanted = column + carried
            q = self._table().quantize(wanted, None).masked_fill(rests, 0.0)
            carried = torch.where(rests, carried, (wanted - q).clamp(-0.5, 0.5))
            columns.append(q)
        return torch.stack(columns, -1)


class ToTheNextStep(Levels):
    """One more bit holds the sign of the error, and a quarter of the gap between levels is given back."""

    @property
    def is_fixed(self) -> bool:
        return False

    def forward(self, x: Tensor) -> Tensor:
        q = super().forward(x)
        return q + self.values[0].diff().min() / 4 * torch.sign(x - q)


def anchored(bits: int) -> isofire.QuantSpec:
    return isofire.QuantSpec.from_dict({"membrane": {"method": "anchored", "bits": bits}})


def put_(model: nn.Module, bits: int, kind: type[Quantizer]) -> None:
    """Give every layer an anchored state that is rounded this way."""
    for neuron, adapter in find_neurons(model).values():
        membrane = adapter.membrane(neuron)
        assert membrane is not None
        membrane.quantizer = MEMBRANES["anchored"](bits=bits).build_for(1, adapter.facts(neuron))  # type: ignore[call-arg]
        membrane.quantizer.__class__ = kind


def trained(base: nn.Module, train: ImageSet, steps: int, bits: Sequence[int], kind: type[Quantizer]) -> nn.Module:
    """The network after so many steps of training, its state's bits falling on the way."""
    torch.manual_seed(0)
    model = prepare(base, anchored(1))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))[: steps * BATCH]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    stage = -(-steps // len(bits))
    for step, (images, labels) in enumerate(train.take(order).batches(BATCH)):
        if step % stage == 0:
            put_(model, bits[step // stage], kind)
        optimizer.zero_grad()
        cross_entropy(model.train()(images).mean(0), labels).backward()
        optimizer.step()
    return model.eval()


def over(trained: nn.Module, T: int) -> nn.Module:
    """A network of this package, run over other steps than it was trained with."""
    network = build({**trained.__dict__["config"], "T": T})
    network.load_state_dict(trained.state_dict())
    return network.eval()


def show(name: str, bits: str, seen: Observation, model: nn.Module, valid: ImageSet) -> None:
    found = compare(seen, model, valid, max_images=IMAGES)
    print(f"{name:<44} {bits:<8} {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of CIFAR-10")
    parser.add_argument("--steps", type=int, default=40, help="of training; 0: none")
    parser.add_argument("--T", type=int, default=4, help="steps of the network")
    given = parser.parse_args()
    train, valid = hold_out(load("cifar10", "train", root=given.root), 5000, seed=0)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    images = train.take(order[:CALIBRATION])
    base = over(pretrained("sew_resnet8-cifar10"), given.T)
    seen = observe(base, valid, max_images=IMAGES)
    for bits in (1, 2, 3):
        for kind in (Levels, AtRandom, ToTheNeighbour, ToTheNextStep)[: 4 if bits < 3 else 1]:
            torch.manual_seed(0)
            model = calibrate(prepare(copy.deepcopy(base), anchored(bits)), images)
            put_(model, bits, kind)
            width = f"{bits} + 1" if kind is ToTheNextStep else f"{bits}"
            show(f"after training alone, {kind.__name__}", width, seen, model, valid)
    trainings = ((Levels, (1,)), (Levels, (4, 2, 1)), (AtRandomInTraining, (1,)))
    for kind, stages in trainings if given.steps else ():
        model = trained(base, train, given.steps, stages, kind)
        show(f"{given.steps} steps, {kind.__name__}", ", ".join(map(str, stages)), seen, model, valid)


if __name__ == "__main__":
    main()
