"""Networks from `torch.compile`: they pass hooks by, so the network that they were made from runs in their place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from isofire.errors import ModelError
from isofire.running import require_module

_ORIGINAL = "_orig_mod"
"""The attribute under which `torch.compile` keeps the module."""


@contextmanager
def uncompiled() -> Iterator[None]:
    """Compiled modules called inside run as they were written, and so do hooks."""
    # without it nothing has been compiled, and to import it takes seconds
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def original(model: nn.Module) -> nn.Module:
    """The module that a compiled one was made from; every other one itself."""
    return model._modules.get(_ORIGINAL) or model


def original_name(name: str) -> str:
    """A module's name in the network before it, or a part of it, was compiled."""
    return ".".join(part for part in name.split(".") if part != _ORIGINAL)


def has_compiled(model: nn.Module) -> bool:
    """Whether the model comes from `torch.compile`, or a part of it does."""
    return any(_ORIGINAL in module._modules for module in model.modules())


def refuse_compiled(model: nn.Module) -> None:
    """Raise ModelError if a compiled module is among the model's: it is one of what is to be changed or copied."""
    require_module(model)
    for name, module in model.named_modules():
        if _ORIGINAL in module._modules:
            where = f"its part {original_name(name)!r}" if original_name(name) else "this model"
            raise ModelError(
                f"a model must be quantized before it is compiled, {where} comes from torch.compile; give the module "
                f"that was compiled (`{_ORIGINAL}`, which has the same weights), and compile the result"
            )
