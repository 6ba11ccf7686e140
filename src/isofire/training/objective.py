"""What a run minimises: the task's loss, and the further losses of the recipe, each from when it counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import copy_of, read_logits, reset_
from isofire.errors import ModelError, SpecError
from isofire.firing.cost.synops_per_spike import reach_on
from isofire.training.listen import Listener
from isofire.training.losses import Loss, read_loss, value_of
from isofire.training.recipe import Recipe
from isofire.training.step import Layers, Pass, Step

_LOG = logging.getLogger(__name__)

STORED_IMAGES = 2048
"""Images that stored rates of a teacher are taken over, or as many as an epoch has."""

Batches = Callable[[int], Iterator[Tensor]]
"""Number of images -> the first batches of the run that hold so many, inputs only, augmented as in training."""


class Objective:
    """The sum that a run minimises.

    Parameters
    ----------
    recipe
        Its `loss` and `losses`.
    model
        The network in training.
    teacher
        What some losses compare with; a copy of it is run in eval mode, it stays as it is.
    device, channels_last
        Where the network is, and the memory format of its images.

    Raises
    ------
    SpecError
        If a loss compares with a teacher and there is none.
    ModelError
        If a loss listens to neurons and a network has none.
    """

    def __init__(
        self, recipe: Recipe, model: nn.Module, teacher: nn.Module | None, device: torch.device, channels_last: bool
    ) -> None:
        self.task_name, self.task = recipe.loss, read_loss(recipe.loss)
        self.further: Mapping[str, Loss] = recipe.further_losses()
        self.label_smoothing = recipe.label_smoothing
        losses = {recipe.loss: self.task, **self.further}
        asking = recipe.losses_that_compare()
        if asking and teacher is None:
            raise SpecError(
                f"the loss {asking[0]!r} compares with a teacher, and there is none here; give train() one (isofire "
                "train --teacher), or use the loss in quantization-aware training, whose teacher is the full-precision "
                "network"
            )
        self.model = model
        self.teacher = _frozen(teacher, device, channels_last) if asking and teacher is not None else None
        listens = any(loss.asks() & {"rates", "spikes", "membranes"} for loss in losses.values())
        self.listener = Listener(model) if listens else None
        self.teacher_listener = Listener(self.teacher) if listens and self.teacher is not None else None
        self.stored: Layers | None = None
        self.synops: Layers | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the further losses."""
        return tuple(self.further)

    def active(self, epoch: float) -> dict[str, Loss]:
        """The further losses that count after so many epochs."""
        return {name: loss for name, loss in self.further.items() if loss.warmup_epochs <= epoch}

    def require_acting(self, epochs: int, steps: int) -> None:
        """Raise SpecError for a further loss that counts in none of so many epochs of so many steps."""
        last = epochs - 1 + (steps - 1) / steps
        # rounded down, so that it can be taken as it is told
        told = (epochs * steps - 1) * 10_000 // steps / 10_000
        for name, loss in self.further.items():
            if name not in self.active(last):
                raise SpecError(
                    f"losses.{name}.warmup_epochs must be at most {told:.10g}, where the last of {epochs} x {steps} "
                    f"steps begins, got {loss.warmup_epochs:g}: the loss would never count; shorten its warm-up, train "
                    "longer or leave it out"
                )

    def prepare(self, batches: Batches, gather: Callable[[Tensor], Tensor], autocast: Any) -> None:
        """Take from the teacher what does not change during the run.

        Parameters
        ----------
        batches
            Of this process.
        gather
            Stacks a tensor of every process.
        autocast
            Makes the context that forward passes run in.
        """
        asked = set().union(self.task.asks(), *(loss.asks() for loss in self.further.values()))
        if self.teacher is not None and "synops" in asked:
            self.synops = _synops(self.teacher, next(batches(1)))
        if self.teacher is not None and "stored" in asked:
            assert self.teacher_listener is not None
            found: dict[str, list[Tensor]] = {}
            for inputs in batches(STORED_IMAGES):
                for name, rates in self._teach(inputs, None, {"rates"}, autocast).rates.items():
                    found.setdefault(name, []).append(rates)
            self.stored = {name: gather(torch.stack(rates).mean(0)).mean(0) for name, rates in found.items()}

    def __call__(
        self, forward: Callable[[], Tensor], inputs: Tensor, labels: Tensor, epoch: float, autocast: Any
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Run a step forward.

        Parameters
        ----------
        forward
            Runs the network on `inputs` and gives logits.
        epoch
            Epochs done, as a fraction.

        Returns
        -------
        tuple
            The logits, the task's loss, the sum that is to be minimised, and the value of each further loss that
            counts, before its weight.
        """
        active = self.active(epoch)
        needs = self.task.asks().union(*(loss.asks() for loss in active.values()))
        if self.listener is None:
            heard = Pass(logits=forward())
        else:
            with self.listener.listening(needs):
                logits = forward()
            heard = self.listener.heard(logits, needs)
        teacher = self._teach(inputs, len(labels), needs, autocast) if "teacher" in needs else None
        step = Step(
            labels=labels, label_smoothing=self.label_smoothing, logits=heard.logits,
            presentations=heard.presentations, rates_=heard.rates_, spikes_=heard.spikes_, membranes_=heard.membranes_,
            teacher_=teacher, stored_=self.stored, synops_=self.synops,
        )  # fmt: skip
        task = value_of(self.task_name, self.task, step)
        total, values = task, {}
        for name, loss in active.items():
            value = values[name] = value_of(name, loss, step)
            factor = loss.weight * task.detach() if loss.relative else loss.weight
            total = total + factor * value
        return heard.logits, task, total, values

    def _teach(self, inputs: Tensor, images: int | None, needs: Any, autocast: Any) -> Pass:
        teacher, listener = self.teacher, self.teacher_listener
        assert teacher is not None
        reset_(teacher)
        with torch.no_grad():
            if listener is None:
                with autocast():
                    output = teacher(inputs)
                heard = Pass(logits=read_logits(teacher, output, images or 0, inputs))
            else:
                with listener.listening(needs), autocast():
                    output = teacher(inputs)
                logits = inputs.new_zeros(0) if images is None else read_logits(teacher, output, images, inputs)
                heard = listener.heard(logits, needs)
        reset_(teacher)
        return heard


def _frozen(teacher: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    twin = copy_of(teacher).to(device).eval().requires_grad_(False)
    if channels_last:
        twin.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return twin


def _synops(teacher: nn.Module, inputs: Tensor) -> Layers:
    """On the CPU, where chance spikes are drawn, then back."""
    twin = copy_of(teacher).cpu()
    found = reach_on(twin, inputs.cpu())
    if found.left_out:
        _LOG.warning(
            "layers are weighted by synaptic operations without those of %s",
            "; ".join(f"{item.name} ({item.reason})" for item in found.left_out),
        )
    if not any(bool(per_spike.any()) for per_spike in found.values()):
        raise ModelError(
            "layers cannot be weighted by synaptic operations (layers = 'synops'), since no spike of this network is "
            "known to cause any; use layers = 'neurons'"
        )
    return {name: per_spike.to(inputs.device) for name, per_spike in found.items()}
