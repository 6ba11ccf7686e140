"""Whether weights are loaded into a network that is quantized as the one was that they were written from."""

from __future__ import annotations

import json
import os
from typing import Any

from torch import nn

from isofire.errors import CheckpointError, SpecError
from isofire.quantization import spec_of
from isofire.spec import QuantSpec


def check_spec(path: str | os.PathLike[str], stored: dict[str, Any] | None, model: nn.Module) -> None:
    """Raise CheckpointError if the network of a file was quantized in another way than `model` is.

    Levels and ranges of one spec mean something else in another, and most state dicts do not tell them apart.

    Parameters
    ----------
    stored
        The file's spec; None, of full precision or not known, is not looked at.
    """
    if stored is None:
        return
    try:
        written, spec = QuantSpec.from_dict(stored), spec_of(model)
    except SpecError as error:
        raise CheckpointError(f"{path} was quantized by a spec that cannot be read here: {error}") from error
    if written == spec:
        return
    if spec is None:
        unlike = "this network is in full precision, or was not restored"
    else:
        there, here = ({key: json.dumps(v) for key, v in each.to_dict().items()} for each in (written, spec))
        keys = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        unlike = "; ".join(f"{key} = {there.get(key)} there, {here.get(key)} here" for key in keys)
    raise CheckpointError(
        f"{path} holds a network that is quantized in another way: {unlike}; bring this one to the same spec, "
        "isofire.quantization.restore_(network, spec, converted=...), before its weights are loaded"
    )
