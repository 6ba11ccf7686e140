"""Losses on firing rates: what a network's neurons do, against what the teacher's do on the same batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from isofire.errors import ModelError
from isofire.training.losses.base import Loss, name_of, register_loss
from isofire.training.losses.coupling import transport
from isofire.training.step import Layers, Need, Step

_LEAST_RATE = 1e-6


class FiringLoss(Loss, frozen=True, kw_only=True):
    """A distance between the rates of two networks, layer by layer.

    Differences are divided by the teacher's mean rate over all layers, so the loss has no unit: 0.1 is a drift of a
    tenth of the mean rate. That makes weights carry over from one network to another; the default multiplies by the
    task's loss too (`relative`).

    Parameters
    ----------
    cost
        Of a difference: "absolute" (for `emd` the distance W1), "squared" (W2 squared), or "huber": squared up to
        `huber_delta`, from there on absolute, with slope 1.
    huber_delta
        In units of the mean rate.
    layers
        How layers are weighted: "equal", which is what comparisons report; by their "neurons"; or by the "synops" that
        one spike of each of their neurons would cause, all added up.
    against
        "batch": the teacher's rates on the same batch, which share its sampling noise with the network's. "stored": its
        rates over the first batches, taken once, so that the teacher is not run in every step. The batch's noise then
        counts as drift and pulls rates together, the more so the smaller the batch.
    """

    relative: bool = True
    cost: Literal["absolute", "squared", "huber"] = "absolute"
    huber_delta: Annotated[float, Meta(gt=0, le=1e6)] = 0.1
    layers: Literal["equal", "neurons", "synops"] = "equal"
    against: Literal["batch", "stored"] = "batch"

    def asks(self) -> frozenset[Need]:
        """Rates, and those of the teacher."""
        teacher: Need = "teacher" if self.against == "batch" else "stored"
        return frozenset({"rates", teacher, *(["synops"] if self.layers == "synops" else [])})  # pyright: ignore

    def distance(self, rates: Tensor, target: Tensor, scale: Tensor, presentations: tuple[int, int]) -> Tensor:
        """Of one layer, flattened; differences are to be divided by `scale`."""
        raise NotImplementedError

    def __call__(self, step: Step) -> Tensor:
        if self.against == "batch":
            targets, presentations = step.teacher.rates, (step.presentations, step.teacher.presentations)
        else:
            targets, presentations = step.stored, (step.presentations, 0)
        self.check(step.rates, targets)
        weights = self._weights(step)
        means = torch.stack([targets[name].mean() for name in step.rates])
        scale = (weights * means).sum().clamp(min=_LEAST_RATE)
        found = [
            self.distance(rates.flatten(), targets[name].flatten(), scale, presentations)
            for name, rates in step.rates.items()
        ]
        return (weights * torch.stack(found)).sum()

    def check(self, rates: Layers, targets: Layers) -> None:
        """Whether the layers of two networks can be compared.

        Raises
        ------
        ModelError
            If they have other names.
        """
        if rates.keys() != targets.keys():
            only = sorted(rates.keys() ^ targets.keys())
            raise ModelError(
                f"the loss {name_of(self)!r} compares layers by name, but only one of network and teacher has "
                f"{_some(only)}; take a teacher of the same architecture"
            )

    def costs(self, difference: Tensor) -> tuple[Tensor, Tensor]:
        """Cost of each difference, and its derivative."""
        match self.cost:
            case "absolute":
                return difference.abs(), difference.sign()
            case "squared":
                return difference.square(), 2 * difference
            case "huber":
                slope = (difference / self.huber_delta).clamp(-1.0, 1.0)
                return slope * (difference - slope * self.huber_delta / 2), slope

    def _weights(self, step: Step) -> Tensor:
        """Of the layers, adding up to 1."""
        rates = step.rates.values()
        if self.layers == "equal":
            sizes = [1.0] * len(rates)
        elif self.layers == "neurons":
            sizes = [float(tensor.numel()) for tensor in rates]
        else:
            sizes = [float(step.synops[name].sum()) for name in step.rates]
        weights = torch.tensor(sizes, dtype=torch.float32, device=step.logits.device)
        return weights / weights.sum()


class NeuronLoss(FiringLoss, frozen=True, kw_only=True):
    """A firing loss for networks whose neurons correspond."""

    def check(self, rates: Layers, targets: Layers) -> None:
        FiringLoss.check(self, rates, targets)
        for name, tensor in rates.items():
            if tensor.shape != targets[name].shape:
                raise ModelError(
                    f"the loss {name_of(self)!r} compares neuron by neuron, but layer {name!r} has shape "
                    f"{list(tensor.shape)} and the teacher's {list(targets[name].shape)}; take a teacher of the same "
                    "architecture, or the loss 'emd', which compares distributions"
                )


class Paired(NeuronLoss, frozen=True, kw_only=True):
    """`paired`: mean cost of each neuron's rate change. Neurons must be the same ones in both networks."""

    def distance(self, rates: Tensor, target: Tensor, scale: Tensor, presentations: tuple[int, int]) -> Tensor:
        return self.costs((rates - target) / scale)[0].mean()


class EMD(FiringLoss, frozen=True, kw_only=True):
    """`emd`: least cost of turning one layer's distribution of rates into the other's.

    Neurons need not correspond, so it also works from scratch or against another seed, and layers may differ in size.
    It cannot see neurons that change places.
    """

    def distance(self, rates: Tensor, target: Tensor, scale: Tensor, presentations: tuple[int, int]) -> Tensor:
        return transport(rates, target, self.costs, scale, presentations)


class MeanRate(FiringLoss, frozen=True, kw_only=True):
    """`mean_rate`: cost of the change of each layer's mean rate; the control that every finer loss must beat."""

    def distance(self, rates: Tensor, target: Tensor, scale: Tensor, presentations: tuple[int, int]) -> Tensor:
        return self.costs((rates.mean() - target.mean()) / scale)[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


register_loss("paired", Paired)
register_loss("emd", EMD)
register_loss("mean_rate", MeanRate)
