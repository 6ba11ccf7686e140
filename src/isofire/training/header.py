"""What a file of weights or of a training state says about itself, as JSON in its metadata."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any, Literal

import msgspec
import torch

from isofire.errors import CheckpointError
from isofire.toml_json import parse_json

Kind = Literal["weights", "training"]
FORMAT = 1
PACKED = 2
"""The format of files in which weights on few levels are packed codes."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says about itself.

    Attributes
    ----------
    kind
        `"weights"`, or `"training"` with the optimizer's state.
    architecture
        See `architecture`.
    versions
        Of isofire, torch and Python.
    note
        JSON values of the writer.
    optimizer
        Names of the optimizer's tensors. Which there are can't be told from the model: a parameter that got no
        gradient has none.
    spec
        How the network is quantized, see `QuantSpec.to_dict`; None in full precision, and in files from before it was
        kept.
    """

    kind: Kind
    architecture: str
    versions: dict[str, str]
    note: dict[str, Any]
    optimizer: list[str] = []
    format: int = FORMAT
    spec: dict[str, Any] | None = None


def read_header(path: str | os.PathLike[str], text: str) -> Header:
    """The header of a file from its text.

    Raises
    ------
    CheckpointError
        If it is damaged or of another format.
    """
    try:
        found = parse_json(text)
    except ValueError as error:
        raise _unread(path, error) from error
    number = found.get("format") if isinstance(found, dict) else None
    if found is None or isinstance(found, str) or (isinstance(found, dict) and not isinstance(number, int)):
        raise CheckpointError(
            f"{path} holds what isofire recorded or saw of a network, and no network; name a model.safetensors"
        )
    if number not in (FORMAT, PACKED):
        raise CheckpointError(
            f"the format of {path} is not {FORMAT} or {PACKED}; read it with the isofire that wrote it"
        )
    try:
        return msgspec.convert(found, Header)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _unread(path, error) from error


def _unread(path: str | os.PathLike[str], error: Exception) -> CheckpointError:
    return CheckpointError(f"the header of {path} cannot be read ({error}); restore the file from a copy")


def versions() -> dict[str, str]:
    """Of isofire, torch and Python."""
    own = next((found.version for found in metadata.distributions(name="isofire")), "not installed")
    return {"isofire": own, "torch": str(torch.__version__), "python": platform.python_version()}
