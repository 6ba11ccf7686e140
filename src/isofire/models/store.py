"""Models on disk: weights, architecture and quantization in one safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from isofire.errors import CheckpointError, IsofireError, ModelError, SpecError
from isofire.models.restoring import build_for, restore_for_
from isofire.quantization import is_converted, spec_of
from isofire.training.checkpoint import load_weights, read_note, save_weights


def save_model(path: str | os.PathLike[str], model: nn.Module, note: Mapping[str, Any] | None = None) -> Path:
    """Write a model that `load_model` can build again, quantized or not.

    Parameters
    ----------
    model
        From one of isofire's builders: its `config` says how to build it. Others: `training.save_weights`.
    note
        JSON values to keep with it, such as accuracy and recipe.

    Raises
    ------
    ModelError
        If the model has no `config`.
    SpecError
        If `note` uses a key that the file needs for itself.
    OutputError
        If the file cannot be written.
    """
    config = model.__dict__.get("config")
    if not isinstance(config, dict):
        raise ModelError(f"{type(model).__name__} has no `config` to build it from; use isofire.training.save_weights")
    spec = spec_of(model)
    about = {
        "model": config,
        "quantization": None if spec is None else spec.to_dict(),
        "converted": is_converted(model),
    }
    if taken := about.keys() & (note or {}).keys():
        raise SpecError(f"a note must not use the keys {', '.join(about)}, got {sorted(taken)[0]!r}; rename it")
    return save_weights(path, model, {**about, **(note or {})})


def load_model(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a file, with its quantizers as they were, and read its note; in eval mode.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds weights without an architecture.
    """
    note = read_note(path, "weights")
    if "model" not in note:
        builder = note.get("builder")
        named = builder if isinstance(builder, str) else "package.module:builder"
        raise CheckpointError(
            f"{path} holds weights without an architecture; name what builds their network, --model {named}, from "
            f"Python isofire.models.open_named({named!r}, file)"
        )
    try:
        model = restore_for_(path, build_for(path, note["model"]), note)
    except CheckpointError:
        raise
    except IsofireError as error:
        raise CheckpointError(f"{path} describes a model that cannot be built here: {error}") from error
    load_weights(path, model)
    return model.eval(), note
