"""Where a run stands, and whether a stored run is the same run."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from torch import nn

from isofire.errors import CheckpointError
from isofire.training.recipe import Recipe
from isofire.training.records import EpochRecord


class Position(msgspec.Struct, kw_only=True):
    """How far a run has come.

    Attributes
    ----------
    epoch
        Epochs completed.
    step
        Steps completed of the epoch under way.
    sums
        For each process, the sums over those steps: loss times images, images right, images.
    seconds
        Time spent on those steps.
    history
        Records of the completed epochs.
    """

    epoch: int = 0
    step: int = 0
    sums: list[list[float]] = []
    seconds: float = 0.0
    history: list[EpochRecord] = []


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What must be equal for a stored run to be continued, the architecture aside.

    Attributes
    ----------
    recipe
        The recipe as a mapping.
    data
        Fingerprints of the training and the validation set.
    processes
        Number of processes.
    trainable
        Names of the parameters that are trained.
    """

    recipe: dict[str, Any]
    data: dict[str, str | None]
    processes: int
    trainable: list[str]


class RunNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The note in a training checkpoint."""

    identity: Identity
    position: Position


def identity(model: nn.Module, recipe: Recipe, train: str, valid: str | None, processes: int) -> Identity:
    """Collect what identifies a run; `train` and `valid` are the data's fingerprints."""
    return Identity(
        recipe=msgspec.to_builtins(recipe),
        data={"train_set": train, "valid_set": valid},
        processes=processes,
        trainable=[name for name, parameter in model.named_parameters() if parameter.requires_grad],
    )


def position_of(path: str | os.PathLike[str], note: dict[str, Any], here: Identity) -> Position:
    """Read the position of a stored run, once it is known to be the run that `here` describes.

    Raises
    ------
    CheckpointError
        If the note cannot be read, or the stored run differs; the message names what differs.
    """
    try:
        stored = msgspec.convert(note, RunNote)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"the note of {path} cannot be read ({error}); remove the file or restore it") from error
    for part, there, now in _parts(stored.identity, here):
        if there != now:
            raise CheckpointError(
                f"{path} belongs to a run of other {part}: {_difference(there, now)}; "
                "go on with what it was written for or choose another folder"
            )
    return stored.position


def _parts(stored: Identity, here: Identity) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [
        ("recipe", stored.recipe, here.recipe),
        ("data", stored.data, here.data),
        ("processes", {"processes": stored.processes}, {"processes": here.processes}),
        ("trainable parameters", dict.fromkeys(stored.trainable, "trained"), dict.fromkeys(here.trainable, "trained")),
    ]


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    keys = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    shown = [f"{key} {_shown(there, key)} there, {_shown(here, key)} here" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _shown(values: dict[str, Any], key: str) -> str:
    return "none" if values.get(key) is None else repr(values[key])
