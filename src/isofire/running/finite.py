"""Whether what is to be run is a network, and its weights have their shapes, hold numbers and are finite."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from isofire.errors import ModelError
from isofire.running.tensors import stored_values


def require_module(model: object) -> None:
    """What is to be run must be a network.

    Raises
    ------
    ModelError
        If it is none, or a class of them.
    """
    if isinstance(model, nn.Module):
        return
    given = f"the class {model.__name__}; give one that was built" if isinstance(model, type) else type(model).__name__
    raise ModelError(f"a model must be a torch.nn.Module, got {given}")


def require_numbers(model: nn.Module) -> None:
    """`require_finite`, and every parameter must hold numbers, so that the model can be run.

    Raises
    ------
    ModelError
        Names the first that lies on the meta device, or as `require_finite`.
    """
    require_finite(model)
    for name, tensor in model.named_parameters():
        if tensor.is_meta:
            raise ModelError(
                f"weights must hold numbers, {name!r} of {type(model).__name__} is on the meta device; "
                "build the network on the CPU, or load its weights with load_state_dict(..., assign=True)"
            )


def require_shapes(model: nn.Module) -> None:
    """Every parameter and buffer must have its shape.

    Raises
    ------
    ModelError
        Names the first that gets its own from the first batch.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(
                f"layers must have their shapes, {name!r} of {type(model).__name__} gets its own from the first "
                "batch; run one batch through the network first"
            )


def require_finite(model: nn.Module) -> None:
    """Every parameter and buffer of floating point must be finite, but for -inf in buffers, as masks have it.

    A NaN weight silences its neurons instead of showing in the output, so it has to be looked for.

    Raises
    ------
    ModelError
        Names the first tensor with NaN or infinite values, or the first layer whose weights have no shape yet.
    """
    require_module(model)
    require_shapes(model)
    weighed = {id(buffer) for norm in model.modules() if isinstance(norm, _NormBase) for buffer in norm.buffers()}
    weighed.update(map(id, model.parameters()))
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or tensor.is_meta:
                continue
            values = stored_values(tensor)
            bad = ~torch.isfinite(values)
            if id(tensor) not in weighed:
                # a mask, which is added before a softmax, is no weight
                bad &= values != -torch.inf
            if bool(bad.any()):
                cure = "if the training diverged, go back to an earlier checkpoint"
                if bool((values[bad] == -torch.inf).all()):
                    cure = "a mask, which is added and not trained, belongs into a buffer (register_buffer)"
                raise ModelError(
                    f"weights must be finite, {name!r} of {type(model).__name__} has {int(bad.sum())} NaN or infinite "
                    f"values; {cure}"
                )
