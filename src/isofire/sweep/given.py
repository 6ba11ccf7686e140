"""Networks that a sweep is given rather than trains."""

from __future__ import annotations

from typing import Any

from torch import nn

from isofire.config import BaselineSettings
from isofire.errors import ModelError
from isofire.models import build_named, drawn_anew, open_model, open_named, pretrained, source_hash
from isofire.quantization import spec_of
from isofire.sweep.task import BaselineTask
from isofire.training.resume import state_hash

_NOTE_OF_FILE = ("model", "builder", "quantization", "converted")


def given_model(source: BaselineSettings | BaselineTask) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a baseline that the sweep does not train, and what its file says of it.

    Raises
    ------
    ModelError
        If it is quantized.
    SpecError, CheckpointError
        As `isofire.models.open_named`, `open_model` and `pretrained`.
    """
    if source.pretrained is not None:
        model = pretrained(source.pretrained)
        note = dict(model.__dict__["about"])
    elif source.builder is not None:
        model, note = _of_builder(source.builder, source.file)
    else:
        assert source.file is not None
        model, note = open_model(source.file)
    if spec_of(model) is not None:
        raise ModelError(
            f"baseline {source.name!r} is quantized; a sweep starts from a full-precision network, name another file"
        )
    return model, {key: value for key, value in note.items() if key not in _NOTE_OF_FILE}


def _of_builder(builder: str, file: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """As `open_named`; but weights that each process of a sweep would draw anew are no baseline."""
    if file is not None:
        return open_named(builder, file)
    model = build_named(builder).eval()
    if drawn := drawn_anew(model, builder):
        raise ModelError(
            f"a baseline must be the same network in every process of a sweep, {builder} draws its weights anew in "
            f"each call ({drawn[0]}); name trained ones by --weights FILE.safetensors, or by `file` beside `builder`"
        )
    return model, {}


def identity_of(model: nn.Module, builder: str | None = None) -> Any:
    """What a network is: equal weights do not make equal networks, T, thresholds and blocks are in the config.

    The user's own code has no config; the text of the builder's file stands for it, not that of what it imports.
    """
    found = [state_hash(model), model.__dict__.get("config") or repr(model)]
    return found if builder is None else [*found, builder, source_hash(builder)]
