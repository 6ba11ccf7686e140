"""What training and evaluation hand back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from isofire.errors import CheckpointError, SpecError
from isofire.training.checkpoint import load_weights, read_note


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy (fraction right, 0..1) and loss (cross-entropy of the mean logits, nats) over `n` images."""

    accuracy: float
    loss: float
    n: int


class EpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch.

    Attributes
    ----------
    epoch
        1 is the first.
    train_loss, train_accuracy
        Means over the epoch's augmented batches, each taken as it passed, while the weights still moved. The loss is
        that of the task alone.
    losses
        Means of the further losses, before their weights, over the steps in which they counted.
    valid_loss, valid_accuracy
        After the epoch, on the validation set; `None` without one.
    lr
        Learning rate of the last step.
    seconds
        Time of the training steps, without validation.
    images_per_second
        Training images of all processes over `seconds`.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float | None
    valid_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float
    losses: dict[str, float] = {}


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The history of a run, and where its weights are.

    Attributes
    ----------
    history
        One record per epoch, those before a resumption included.
    out
        Folder of `last.safetensors` and, with a validation set, `best.safetensors`; `None` if nothing was kept.
    """

    history: tuple[EpochRecord, ...]
    out: Path | None = None

    @property
    def final(self) -> EpochRecord:
        """The last epoch, whose weights the model is left with."""
        return self.history[-1]

    @property
    def best(self) -> EpochRecord | None:
        """The first epoch of highest validation accuracy; `None` without a validation set."""
        return best_of(self.history)

    def load_best_(self, model: nn.Module) -> EpochRecord:
        """Put the weights of the best epoch into `model` and return that epoch.

        Raises
        ------
        SpecError
            If no validation set chose an epoch or no folder kept it.
        CheckpointError
            If the file cannot be read, or belongs to another architecture or another run. The model is then untouched.
        """
        best = self.best
        if best is None:
            raise SpecError("no validation set was given, so no epoch was chosen; give train() one as valid_set")
        if self.out is None:
            raise SpecError("the weights of the best epoch were not kept; give train() a folder as out")
        path = self.out / "best.safetensors"
        _check_epoch(path, read_note(path, "weights"), best)
        load_weights(path, model)
        return best


def _check_epoch(path: Path, note: dict[str, Any], best: EpochRecord) -> None:
    """The file must say that its weights are those of `best`, to the last digit of its losses and times."""
    try:
        stored = msgspec.convert(note.get("epoch"), EpochRecord)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{path} does not say which epoch it holds ({error}); remove it and train again"
        ) from error
    if stored != best:
        raise CheckpointError(
            f"{path} holds epoch {stored.epoch} of another run (valid accuracy {stored.valid_accuracy}), the best of "
            f"this one is epoch {best.epoch} ({best.valid_accuracy}); another process wrote into the folder: train "
            "again in one of its own"
        )


def best_of(history: Sequence[EpochRecord]) -> EpochRecord | None:
    """Give the first epoch of highest validation accuracy, or `None` if no epoch was validated."""
    validated = [record for record in history if record.valid_accuracy is not None]
    return max(validated, key=lambda record: record.valid_accuracy or 0.0, default=None)
