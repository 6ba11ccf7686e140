"""Running a network whose code may be the user's: what fails in it is told with the inputs that it was given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isofire.errors import IsofireError, ModelError


def forward(model: nn.Module, inputs: Tensor) -> Any:
    """`model(inputs)`.

    Raises
    ------
    ModelError
        If the network cannot take the inputs: another shape, type or range than it was built for. Memory that is
        exhausted stays the error that it is.
    """
    try:
        return model(inputs)
    except (IsofireError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if "allocate memory" in str(error):
            raise
        raise ModelError(
            f"{type(model).__name__} fails on inputs {list(inputs.shape)} of {inputs.dtype}: "
            f"{type(error).__name__}: {error}; give it data of the shape and type that it was built for"
        ) from error
