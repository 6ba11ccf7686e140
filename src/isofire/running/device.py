"""Where a network lives, and moving it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from isofire.errors import ModelError

CPU = torch.device("cpu")


def device_of(model: nn.Module, default: torch.device = CPU) -> torch.device:
    """Where the first of the model's parameters and buffers is; `default` for a model without any.

    Examples
    --------
    >>> device_of(nn.Linear(2, 3))
    device(type='cpu')
    """
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), default)


@contextmanager
def placed(*models: nn.Module, device: torch.device | str | None) -> Iterator[None]:
    """Models on `device`, and back where they were at the end; None leaves them alone.

    Raises
    ------
    ModelError
        If a model is to be moved and lies on several devices.
    """
    homes = [(model, _single_device(model)) for model in models] if device is not None else []
    try:
        for model, _ in homes:
            model.to(device)
        yield
    finally:
        for model, home in homes:
            model.to(home)


def _single_device(model: nn.Module) -> torch.device:
    places = {tensor.device for tensor in (*model.parameters(), *model.buffers())} or {CPU}
    if len(places) > 1:
        raise ModelError(
            f"device can only be set for a model on one device, {type(model).__name__} lies on "
            f"{', '.join(sorted(map(str, places)))}; leave device out"
        )
    return places.pop()
