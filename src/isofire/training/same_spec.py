"""Whether weights are loaded into a network that is quantized as the one was that they were written from."""

from __future__ import annotations

import json
import os
from typing import Any

from torch import nn

from isofire.errors import CheckpointError
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
    if stored is None or QuantSpec.from_dict(stored) == (spec := spec_of(model)):
        return
    if spec is None:
        unlike = "this network is in full precision, or was not restored"
    else:
        here = spec.to_dict()
        keys = [key for key in stored.keys() | here.keys() if stored.get(key) != here.get(key)]
        each = (
            f"{key} = {json.dumps(stored.get(key))} there, {json.dumps(here.get(key))} here" for key in sorted(keys)
        )
        unlike = "; ".join(each)
    raise CheckpointError(
        f"{path} holds a network that is quantized in another way: {unlike}; bring this one to the same spec, "
        "isofire.quantization.restore_(network, spec, converted=...), before its weights are loaded"
    )
