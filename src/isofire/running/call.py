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
        If the network fails, as one does on inputs of another shape, type or range than it was built for. What the
        machine lacks, such as memory, stays the error that it is.
    """
    try:
        return model(inputs)
    except (IsofireError, NotImplementedError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        # what the machine lacks is no fault of the inputs
        if any(word in str(error) for word in ("memory", "CUDA", "CUBLAS", "CUDNN", "cuDNN")):
            raise
        raise ModelError(
            f"{type(model).__name__} fails on inputs {list(inputs.shape)} of {inputs.dtype}: "
            f"{type(error).__name__}: {error}; if that is not what it was built for, give it other data"
        ) from error
