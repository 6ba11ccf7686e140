"""Where a network lives, and moving it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from isofire.errors import ModelError, SpecError

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
    SpecError
        If there is no such device.
    """
    place = None if device is None else _named(device)
    homes = [(model, _single_device(model)) for model in models] if place is not None else []
    try:
        for model, _ in homes:
            model.to(place)
        yield
    finally:
        for model, home in homes:
            model.to(home)


def _named(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        told = str(error).strip().splitlines()[0]
        raise SpecError(
            f"device must name a device that torch finds here, got {device!r} ({told}); try 'cpu', or leave it out"
        ) from error
    if place.type == "meta":
        raise SpecError("device must hold numbers, got 'meta', which holds none; try 'cpu', or leave it out")
    return place


def _single_device(model: nn.Module) -> torch.device:
    places = {tensor.device for tensor in (*model.parameters(), *model.buffers())} or {CPU}
    if len(places) > 1:
        raise ModelError(
            f"device can only be set for a model on one device, {type(model).__name__} lies on "
            f"{', '.join(sorted(map(str, places)))}; leave device out"
        )
    return places.pop()
