"""Running a network whose code may be the user's: what fails in it is told with the inputs that it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isofire.errors import IsofireError, ModelError

_LACKING = "out of memory", "not enough memory", "allocate memory", "CUDA", "CUBLAS", "CUDNN", "cuDNN"


def forward(model: nn.Module, inputs: Tensor) -> Any:
    """`model(inputs)`.

    Raises
    ------
    ModelError
        If the network fails, as one does on inputs of another shape, type or range than it was built for. What the
        machine lacks, such as memory, stays the error that it is.
    """
    try:
        with unchanged(model, inputs):
            return model(inputs)
    except (IsofireError, NotImplementedError, torch.OutOfMemoryError):
        raise
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_lacking(error) or (isinstance(error, KeyError) and not _is_of_sinabs(error)):
            raise
        raise ModelError(
            f"{type(model).__name__} fails on inputs {list(inputs.shape)} of {inputs.dtype}: {type(error).__name__}: "
            f"{error}{_where(model, error)}; {_cure(model, error)}"
        ) from error


@contextmanager
def unchanged(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """The network is run on these inputs inside.

    Raises
    ------
    ModelError
        If it writes over them.
    """
    before = _version(inputs)
    yield
    if _version(inputs) != before:
        raise ModelError(
            f"{type(model).__name__} writes over its inputs (an operation in place, such as x.sub_(...)), so that the "
            "next pass over these data, which are changed now, sees others; let its forward begin with x = x.clone()"
        )


def is_lacking(error: Exception) -> bool:
    """Whether it tells of what the machine lacks, which is no fault of what was run."""
    return any(word in str(error) for word in _LACKING)


def _version(inputs: Tensor) -> int | None:
    """Counts what was written into a tensor."""
    return None if inputs.is_inference() else inputs._version


def _is_of_sinabs(error: Exception) -> bool:
    """Whether its recurrent layers met parts of a quantizer where they look for their states."""
    return isinstance(error, KeyError) and 'contain "."' in str(error)


def _cure(model: nn.Module, error: Exception) -> str:
    """What may be wrong: steps that SpikingJelly's layers take one at a time unless told, else the data."""
    if "right_inverse" in str(error):
        return "it writes a weight that its quantizer makes; leave that layer float by a rule, or let it not be written"
    if _is_of_sinabs(error):
        return (
            "Sinabs' recurrent layers make states of all that their rec_connect holds, and so take no quantizer there; "
            "leave its weights float by a rule"
        )
    single = single_steps(model)
    if single:
        return f"{several_steps(single[0])}; else give it other data"
    return "if that is not what it was built for, give it other data"


def single_steps(model: nn.Module) -> list[str]:
    """Names of SpikingJelly's layers that take single steps."""
    return [name for name, module in model.named_modules() if getattr(module, "step_mode", None) == "s"]


def several_steps(layer: str) -> str:
    """How such a layer takes all of them."""
    return (
        f"layer {layer!r} takes single steps, [N, ...]: for inputs with all steps, [T, N, ...], call "
        "spikingjelly.activation_based.functional.set_step_mode(net, 'm') in the builder"
    )


def _where(model: nn.Module, error: BaseException) -> str:
    """The innermost layer of the network in which it happened, in words."""
    names = {id(module): name for name, module in model.named_modules() if name}
    found, trace = "", error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            found = f" (in its layer {names[id(owner)]!r}, {type(owner).__name__.removeprefix('Parametrized')})"
        trace = trace.tb_next
    return found
