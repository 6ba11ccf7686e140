"""All or nothing for what is done to modules in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def unchanged_on_failure(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give modules their own parameters, buffers and attributes back if something fails inside."""
    kept = [(module, dict(module.__dict__), _tensors(module)) for module in modules]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for module, attributes, tensors in kept:
                # what was None and is a layer now stays one
                module.__dict__.update(
                    {name: value for name, value in attributes.items() if name not in module._modules}
                )
                for group, name, tensor, value in tensors:
                    getattr(module, group)[name] = tensor
                    tensor.data.copy_(value)
        raise


def _tensors(module: nn.Module) -> list[tuple[str, str, Tensor, Tensor]]:
    groups: dict[str, dict[str, Any]] = {"_parameters": module._parameters, "_buffers": module._buffers}
    return [
        (group, name, tensor, tensor.detach().clone())
        for group, found in groups.items()
        for name, tensor in found.items()
        if tensor is not None
    ]
