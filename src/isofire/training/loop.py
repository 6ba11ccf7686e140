"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from isofire.adapters import read_logits, reset_
from isofire.convolution import SafeConvolutions, needs_care
from isofire.errors import ModelError, OutputError, SpecError
from isofire.files import writable_folder
from isofire.quantization import make_plan, require_trainable, spec_of
from isofire.quantization.contract import try_gradients
from isofire.quantization.parts import require_whole
from isofire.quantization.verbs import quantized_parts
from isofire.running import forked, unchanged
from isofire.training.checkpoint import load_training, read_note, save_training, save_weights
from isofire.training.distributed import Group, alone_in, join
from isofire.training.evaluation import evaluate_feed
from isofire.training.feed import AnySet, Feed, augmentation_of, steps_of
from isofire.training.gradients import backward
from isofire.training.losses import check_classes, hits
from isofire.training.objective import Objective
from isofire.training.optimizer import make_optimizer, set_learning_rate
from isofire.training.progress import Reporter, reporter
from isofire.training.recipe import Recipe
from isofire.training.records import EpochRecord, TrainingResult, best_of
from isofire.training.resume import Position, RunNote, identity, position_of
from isofire.training.schedule import learning_rate
from isofire.training.seeds import augment_generator, epoch_order, seed_model
from isofire.training.silence import SilenceWatch
from isofire.training.sums import EpochSums, Means

# reading the loss back from a CUDA device stalls it, so there it happens now and then
_LOOK_EVERY = 50


def train(
    model: nn.Module,
    train_set: AnySet,
    valid_set: AnySet | None,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    device: torch.device | str | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoint_every: int | None = None,
) -> TrainingResult:
    """Train `model` in place and leave it with the weights of the last epoch.

    Started by torchrun, all processes train one model together; see `isofire.training.distributed`.

    Parameters
    ----------
    model
        Maps `[N, C, H, W]` (or event frames `[T, N, 2, H, W]`) to logits `[T, N, classes]` or `[N, classes]`. It is
        moved to `device` and, if the recipe says so, to channels_last. Every module is put into
        train mode at the start of each epoch.
    train_set
        Images stay on the device as bytes; shuffle, augmentation and normalization happen there.
    valid_set
        Decides which epoch is the best. With `None` none is chosen, and the last weights are all there is.
    recipe
        Everything that decides the result.
    teacher
        What losses such as "paired" compare with: in quantization-aware training the full-precision network. A copy of
        it is run in eval mode on the same batches, if a loss asks for it; it stays as it is.
    out
        Folder for `last.safetensors` (after every epoch) and `best.safetensors`. With `None` nothing is written.
        Processes on several machines must see the same folder.
    resume
        Go on from `last.safetensors` if the folder has one. `model` must then be as it was before the first start:
        the same initial weights and buffers, `config` and quantization spec. On the CPU, one process ends with the
        very bits of an uninterrupted run; several processes do up to the order of summation between them.
    device
        `None` takes CUDA if there is one, else the CPU.
    progress
        Show a bar on a terminal, else a line per epoch; on stderr. `False` is silent.
    on_epoch
        Called with each new record, after the checkpoint is written, in process 0.
    checkpoint_every
        Also write `last.safetensors` after this many steps within an epoch.

    Raises
    ------
    SpecError
        If settings and data do not fit together, or a loss compares with a teacher and there is none.
    OutputError
        If `out` cannot be written, holds a run while `resume` is false, or another process trains in it.
    CheckpointError
        If the stored run is damaged, or has another recipe, architecture, initial model or data.
    ModelError
        If nothing is trainable, quantized weights are written in (`convert`), a quantizer lets no gradient through, the
        output is no logits, the teacher's layers do not fit a loss, or the loss or a weight stops being finite. A
        checkpoint already written then stays as it is.
    """
    if checkpoint_every is not None and (out is None or checkpoint_every < 1):
        raise SpecError(f"checkpoint_every must be at least 1 and needs a folder out, got {checkpoint_every} and {out}")
    group = join(device)
    place = None if out is None else Path(out)
    run = _Run(model, train_set, valid_set, recipe, teacher, group, place, checkpoint_every)
    with alone_in(place, group), forked(group.device):
        run.open_folder(resume)
        return run.train(reporter(progress and group.leads, recipe.epochs, run.steps, run.steps_done), on_epoch)


class _Run:
    """One training run: what it works on, and where it stands (`at`)."""

    def __init__(
        self,
        model: nn.Module,
        train_set: AnySet,
        valid_set: AnySet | None,
        recipe: Recipe,
        teacher: nn.Module | None,
        group: Group,
        out: Path | None,
        checkpoint_every: int | None,
    ) -> None:
        self.recipe, self.group, self.out, self.checkpoint_every = recipe, group, out, checkpoint_every
        self.steps = steps_of(train_set, valid_set, recipe, group.world)
        self.model = model.to(group.device)
        for part in quantized_parts(self.model).values():
            # one that is frozen keeps its levels
            if part is model or any(parameter.requires_grad for parameter in part.parameters()):
                require_trainable(part)
        if out is not None:
            require_whole(self.model)
        if (spec := spec_of(self.model)) is not None:
            try_gradients(self.model, make_plan(self.model, spec))
        channels_last = recipe.channels_last
        self.convolutions = SafeConvolutions if needs_care(self.model, group.device) else nullcontext
        if channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.objective = Objective(recipe, self.model, teacher, group.device, channels_last)
        self.objective.require_acting(recipe.epochs, self.steps)
        self.watch = SilenceWatch(self.model) if group.leads else None
        self.optimizer = make_optimizer(self.model, recipe)
        self.feed = Feed(train_set, group.device, channels_last)
        self.valid = None if valid_set is None else Feed(valid_set, group.device, channels_last)
        self.augment = augmentation_of(train_set, recipe)
        self.classes = len(train_set.classes)
        self.fingerprints = (train_set.fingerprint, None if valid_set is None else valid_set.fingerprint)
        # as long as the weights are the initial ones
        compared = self.objective.teacher
        self.identity = None if out is None else identity(self.model, recipe, *self.fingerprints, group, compared)
        self.at = Position()
        self.sums = EpochSums(self.objective.names, group)

    # -- the loop ------------------------------------------------------------------------------------------------

    def train(self, show: Reporter, on_epoch: Callable[[EpochRecord], None] | None) -> TrainingResult:
        try:
            wrapped = self.group.wrap(self.model)
            reset_(self.model)
            self.objective.prepare(self.first_batches, self.group.gather, self.autocast)
            if self.valid is None:
                show.say("no validation set: no epoch is chosen, the last weights are kept")
            while self.at.epoch < self.recipe.epochs:
                record = self.train_epoch(wrapped, show)
                show.epoch(record)
                if on_epoch is not None and self.group.leads:
                    on_epoch(record)
        finally:
            show.close()
        self.group.wait()
        return TrainingResult(history=tuple(self.at.history), out=self.out)

    def train_epoch(self, wrapped: nn.Module, show: Reporter) -> EpochRecord:
        epoch, started = self.at.epoch, time.perf_counter() - self.at.seconds
        order = self.feed.place(epoch_order(len(self.feed), self.recipe.seed, epoch))
        wrapped.train()
        for step in range(self.at.step, self.steps):
            self.train_step(wrapped, order, step)
            self.at.step = step + 1
            if self.is_time_to_look:
                self.check_loss()
                so_far = self.sums.own()
                pace = so_far.images * self.group.world / (time.perf_counter() - started)
                show.step(epoch, step + 1, so_far.loss, so_far.accuracy, pace)
            if self.is_time_to_save:
                self.check_weights()
                self.at.seconds = time.perf_counter() - started
                self.save_last()
        means = self.sums.all()
        seconds = time.perf_counter() - started
        self.check_loss()
        self.check_weights()
        return self.close_epoch(means, seconds)

    def train_step(self, wrapped: nn.Module, order: Tensor, step: int) -> None:
        recipe, rank, epoch = self.recipe, self.group.rank, self.at.epoch
        inputs, labels = self.batch(order, epoch, step)
        seed_model(recipe.seed, epoch, step, rank, self.group.device)
        set_learning_rate(self.optimizer, self.lr(step))
        with nullcontext() if self.watch is None else self.watch.looking(step):
            output, task, total, values = self.objective(
                lambda: self.logits(wrapped, inputs, len(labels), step),
                inputs,
                labels,
                epoch + step / self.steps,
                self.autocast,
            )
        self.sums.add(total.detach(), task.detach(), values, hits(output.detach(), labels), len(labels), step)
        self.optimizer.zero_grad()
        backward(total)
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        # neurons of other libraries keep their state from one call to the next
        reset_(self.model)
        if self.watch is not None:
            self.watch.tell(inputs, epoch, step)

    def batch(self, order: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """This process's inputs and labels of a step."""
        first = (step * self.group.world + self.group.rank) * self.recipe.batch_size
        place = (self.recipe.seed, epoch, step, self.group.rank, self.group.device)
        generator = augment_generator(*place) if self.augment else None
        return self.feed.cut(order[first : first + self.recipe.batch_size], self.augment, generator)

    def first_batches(self, images: int) -> Iterator[Tensor]:
        """The inputs of this process's first steps, until they hold so many images or an epoch ends."""
        order = self.feed.place(epoch_order(len(self.feed), self.recipe.seed, 0))
        for step in range(min(self.steps, math.ceil(images / self.recipe.batch_size))):
            yield self.batch(order, 0, step)[0]

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def logits(self, wrapped: nn.Module, inputs: Tensor, images: int, step: int) -> Tensor:
        try:
            with self.convolutions(), self.autocast(), unchanged(self.model, inputs):
                output = read_logits(self.model, wrapped(inputs), images, inputs)
        except ModelError as error:
            # a quantizer refuses NaN before the loss shows it
            if self.is_finite:
                raise
            raise self.diverged("a weight", max(step - 1, 0)) from error
        check_classes(self.model, output, self.classes)
        return output

    def close_epoch(self, means: Means, seconds: float) -> EpochRecord:
        self.group.share_buffers(self.model)
        found = None
        if self.valid is not None:
            found = evaluate_feed(
                self.model, self.valid, self.recipe.eval_batch_size, self.recipe.precision, group=self.group
            )
        record = EpochRecord(
            epoch=self.at.epoch + 1,
            train_loss=means.loss,
            train_accuracy=means.accuracy,
            losses=means.further,
            valid_loss=found and found.loss,
            valid_accuracy=found and found.accuracy,
            lr=self.lr(self.steps - 1),
            seconds=seconds,
            images_per_second=means.images / seconds,
        )
        self.at = Position(epoch=self.at.epoch + 1, history=[*self.at.history, record])
        self.sums = EpochSums(self.objective.names, self.group)
        if self.out is not None and self.group.leads and best_of(self.at.history) is record:
            save_weights(self.out / "best.safetensors", self.model, {"epoch": msgspec.to_builtins(record)})
        self.save_last()
        return record

    def lr(self, step: int) -> float:
        return learning_rate(
            self.at.epoch * self.steps + step,
            self.recipe.epochs * self.steps,
            peak=self.recipe.lr,
            warmup=self.recipe.warmup_epochs * self.steps,
            schedule=self.recipe.schedule,
            final_fraction=self.recipe.final_lr_fraction,
        )

    # -- the watch for a loss that is not finite ---------------------------------------------------------------------

    def check_loss(self) -> None:
        bad = self.sums.first_bad_step()
        if bad is not None:
            step, further = bad
            raise self.diverged(f"the loss{' ' if further else ''}{' and '.join(map(repr, further))}", step)

    def check_weights(self) -> None:
        if not self.is_finite:
            raise self.diverged("a weight", self.at.step - 1)

    @property
    def is_finite(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self.model.parameters())

    def diverged(self, what: str, step: int) -> ModelError:
        kept = f"; {self.last} keeps the state before" if self.last is not None and self.last.exists() else ""
        return ModelError(
            f"{what} stopped being finite at epoch {self.at.epoch + 1}, step {step + 1} of {self.steps}, with learning "
            f"rate {self.lr(step):.3g}; lower lr, lengthen warmup_epochs or set clip_norm{kept}"
        )

    @property
    def is_time_to_look(self) -> bool:
        alone_on_cpu = self.group.world == 1 and self.group.device.type == "cpu"
        return alone_on_cpu or self.is_time_to_save or self.at.step % _LOOK_EVERY == 0

    # -- the folder --------------------------------------------------------------------------------------------------

    @property
    def last(self) -> Path | None:
        return None if self.out is None else self.out / "last.safetensors"

    @property
    def steps_done(self) -> int:
        return self.at.epoch * self.steps + self.at.step

    @property
    def is_time_to_save(self) -> bool:
        every = self.checkpoint_every
        return every is not None and self.steps_done % every == 0 and self.at.step < self.steps

    def open_folder(self, resume: bool) -> None:
        if self.out is None or self.last is None or self.identity is None:
            return
        writable_folder(self.out)
        if not self.last.exists():
            return
        if not resume:
            raise OutputError(f"{self.out} already holds a training run; resume it or choose another folder")
        self.at = position_of(self.last, read_note(self.last, "training"), self.identity)
        load_training(self.last, self.model, self.optimizer)
        kept = self.at.sums[self.group.rank] if self.at.sums else None
        self.sums = EpochSums(self.objective.names, self.group, kept)

    def save_last(self) -> None:
        self.at.sums = self.sums.gathered().tolist() if self.at.step else []
        if self.last is None or self.identity is None or not self.group.leads:
            return
        note: dict[str, Any] = msgspec.to_builtins(RunNote(identity=self.identity, position=self.at))
        save_training(self.last, self.model, self.optimizer, note)
