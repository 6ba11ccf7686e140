"""Losses on what a teacher's logits and membranes are."""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional as F

from isofire.errors import ModelError
from isofire.training.losses.base import Loss, register_loss
from isofire.training.losses.task import readout
from isofire.training.step import Need, Step


class Logits(Loss, frozen=True, kw_only=True):
    """`logits`: the divergence of the network's class probabilities from the teacher's, both softened.

    Hinton, Vinyals and Dean 2015 (arXiv 1503.02531): temperature squared times KL(teacher || network) of the mean
    logits over time, in nats.

    Parameters
    ----------
    temperature
        Divides the logits of both.
    """

    temperature: Annotated[float, Meta(gt=0, le=1e6)] = 2.0

    def asks(self) -> frozenset[Need]:
        """The teacher."""
        return frozenset({"teacher"})

    def __call__(self, step: Step) -> Tensor:
        own, theirs = readout(step.logits), readout(step.teacher.logits)
        if own.shape != theirs.shape:
            raise ModelError(
                f"the loss 'logits' compares class by class, the network gives {own.shape[-1]} and the teacher "
                f"{theirs.shape[-1]}; take a teacher of the same classes"
            )
        own, theirs = (F.log_softmax(logits / self.temperature, -1) for logits in (own, theirs))
        return self.temperature**2 * F.kl_div(own, theirs, reduction="batchmean", log_target=True)


class Membrane(Loss, frozen=True, kw_only=True):
    """`membrane`: mean squared difference of the membrane potentials, in units of the threshold, averaged over layers.

    The idea of MD-SNN (arXiv 2512.04443), of which the abstract alone was at hand: a network with quantized weights and
    membranes learns from the membranes of the full-precision one. Both potentials are clipped, as those far from the
    threshold decide nothing. Neurons of isofire run step by step for it, without the fast paths.

    Parameters
    ----------
    clip
        Largest magnitude that counts, in thresholds.
    """

    relative: bool = True
    clip: Annotated[float, Meta(gt=0, le=1e6)] = 2.0

    def asks(self) -> frozenset[Need]:
        """Membranes, and the teacher."""
        return frozenset({"membranes", "teacher"})

    def __call__(self, step: Step) -> Tensor:
        found, theirs = [], step.teacher.membranes
        for name, own in step.membranes.items():
            if name not in theirs or theirs[name].shape != own.shape:
                there = f"are {list(theirs[name].shape)}" if name in theirs else "do not exist"
                raise ModelError(
                    f"the loss 'membrane' compares neuron by neuron and step by step, but the membranes [T, N, ...] of "
                    f"{name!r} are {list(own.shape)} and the teacher's {there}; take a teacher of the same "
                    "architecture and steps"
                )
            difference = own.clamp(-self.clip, self.clip) - theirs[name].clamp(-self.clip, self.clip)
            found.append(difference.square().mean())
        return torch.stack(found).mean()


register_loss("logits", Logits)
register_loss("membrane", Membrane)
