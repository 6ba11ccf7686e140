"""Where a run stands, and whether a stored run is the same run."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.errors import CheckpointError
from isofire.quantization.verbs import spec_of
from isofire.training.checkpoint import model_tensors
from isofire.training.distributed import Group
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
    initial
        `state_hash` of the model before training.
    config
        The model's own `config` as JSON values: what the state dict does not show, such as T. Empty if it has none.
    quantization
        The spec that the model was prepared with, as JSON values. Empty at full precision.
    teacher
        `state_hash` of the network that a loss compares with. Empty if none does.
    """

    recipe: dict[str, Any]
    data: dict[str, str | None]
    processes: int
    trainable: list[str]
    initial: str
    config: dict[str, Any]
    quantization: dict[str, Any]
    teacher: str = ""


class RunNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The note in a training checkpoint."""

    identity: Identity
    position: Position


def identity(
    model: nn.Module, recipe: Recipe, train: str, valid: str | None, group: Group, teacher: nn.Module | None = None
) -> Identity:
    """Collect what identifies a run that is about to train `model`; `train` and `valid` are the data's fingerprints."""
    config, spec = model.__dict__.get("config"), spec_of(model)
    return Identity(
        recipe=recipe.to_dict(),
        data={"train_set": train, "valid_set": valid},
        processes=group.world,
        trainable=[name for name, parameter in model.named_parameters() if parameter.requires_grad],
        initial=_leaders(state_hash(model), group),
        config=_plain(config) if isinstance(config, dict) else {},
        quantization={} if spec is None else _plain(spec),
        teacher="" if teacher is None else state_hash(teacher),
    )


def state_hash(model: nn.Module) -> str:
    """Hash the names, shapes, types and values of a model's state dict: sixteen hex digits of SHA-256.

    Neither the device nor the memory format matters.

    Examples
    --------
    >>> model = nn.Conv2d(2, 2, 3)
    >>> before = state_hash(model)
    >>> state_hash(model.to(memory_format=torch.channels_last)) == before
    True
    >>> state_hash(nn.Conv2d(2, 2, 3)) == before
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model_tensors(model).items()):
        digest.update(f"|{name} {list(tensor.shape)} {tensor.dtype}|".encode())
        # by way of bytes, as numpy has no bfloat16
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


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
        raise CheckpointError(f"the note of {path} cannot be read ({error}); restore it from a copy") from error
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
        ("model config", stored.config, here.config),
        ("quantization", stored.quantization, here.quantization),
        ("trainable parameters", dict.fromkeys(stored.trainable, "trained"), dict.fromkeys(here.trainable, "trained")),
        ("teacher", {"hash": stored.teacher or None}, {"hash": here.teacher or None}),
        ("initial weights or buffers", {"hash": stored.initial}, {"hash": here.initial}),
    ]


def _leaders(text: str, group: Group) -> str:
    """The ASCII text of process 0, whose weights are the ones that all processes start from."""
    own = torch.tensor(list(text.encode()), dtype=torch.uint8, device=group.device)
    return bytes(group.gather(own)[0].tolist()).decode()


def _plain(value: Any) -> dict[str, Any]:
    # once through JSON, so that it equals what a checkpoint gives back; of a foreign object only the type is stable
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=lambda other: type(other).__qualname__))


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    keys = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    shown = [f"{key} {_shown(there, key)} there, {_shown(here, key)} here" for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _shown(values: dict[str, Any], key: str) -> str:
    return "none" if values.get(key) is None else repr(values[key])
