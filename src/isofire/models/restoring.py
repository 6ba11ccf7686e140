"""The network that a file's settings describe, made only once the file is known to hold enough to fill it.

Settings are a few bytes that can ask for any amount of memory: `width = 1e6`. So the network is first planned without
memory, and its size compared with the file's header.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from isofire.errors import CheckpointError
from isofire.models.build import build
from isofire.quantization import make_plan, restore_
from isofire.spec import QuantSpec, TaWQWeights
from isofire.training.checkpoint import count_values


def build_for(path: str | os.PathLike[str], config: Mapping[str, Any]) -> nn.Module:
    """The network of the settings that the file `path` holds, in full precision and not yet filled.

    Raises
    ------
    SpecError
        As `isofire.models.build`.
    CheckpointError
        If the file holds fewer values than the network has weights.
    """
    with torch.device("meta"):
        planned = build(config)
    wanted = sum(tensor.numel() for tensor in planned.state_dict().values())
    _require(path, wanted, "its settings describe a network")
    return build(config)


def restore_for_(path: str | os.PathLike[str], model: nn.Module, note: Mapping[str, Any]) -> nn.Module:
    """Put the quantizers on `model` that the note of the file `path` names; without any it stays as it is.

    Raises
    ------
    SpecError, ModelError
        If the note's spec is not valid, or does not fit the model.
    CheckpointError
        If the file holds fewer values than the weights of all steps have.
    """
    if note.get("quantization") is None:
        return model
    spec, converted = QuantSpec.from_dict(note["quantization"]), bool(note.get("converted"))
    wanted = 0
    for choice in make_plan(model, spec).choices:
        if isinstance(choice.setting, TaWQWeights):
            weight = model.get_submodule(choice.name).get_parameter("weight")
            # converted, there are weights for each step; before that a scale for each step and channel
            wanted += choice.setting.steps * (weight.numel() if converted else weight.shape[0])
    _require(path, wanted, "its spec describes weights")
    return restore_(model, spec, converted=converted)


def _require(path: str | os.PathLike[str], wanted: int, what: str) -> None:
    found = count_values(path)
    if wanted > found:
        raise CheckpointError(
            f"{path} belongs to another architecture: {what} of {wanted:,} values, and the file holds {found:,}; "
            "restore it, or the settings in its header"
        )
