"""Trained networks that come with the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from isofire.errors import SpecError
from isofire.models.store import load_model

_NAMES = ("sew_resnet8-cifar10", "sew_resnet8-digits", "sew_resnet8_long-cifar10", "sew_resnet18_w16-cifar10")
REGISTER: dict[str, str] = {name: f"{name}.safetensors" for name in _NAMES}
"""Name -> file under `isofire/models/assets`; recipe, accuracy and n are in the file's note."""

_ASSETS = Path(__file__).with_name("assets")


def pretrained(name: str) -> nn.Module:
    """A trained network by name, in eval mode; its attribute `about` says what there is to know of it.

    `about["normalization"]` has the `mean` and `std` per channel of the inputs it expects, (pixel / 255 - mean) / std;
    isofire's own sets give them so. `about["accuracy"]` has accuracy and n on the validation and the test images,
    `about["recipe"]` and `about["start"]` how it was trained, `about["data"]` and `about["environment"]` on what.

    Raises
    ------
    SpecError
        If the name is not registered.

    Examples
    --------
    >>> model = pretrained("sew_resnet8-cifar10")  # doctest: +SKIP
    >>> model.about["accuracy"]["test"]["n"]  # doctest: +SKIP
    10000
    """
    if name not in REGISTER:
        known = ", ".join(sorted(REGISTER)) or "none yet"
        raise SpecError(f"no pretrained network is called {name!r}; there are: {known}")
    model, note = load_model(_ASSETS / REGISTER[name])
    model.__dict__["about"] = note
    return model


def open_model(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The model and note of a file, see `load_model`, or of a pretrained network if its name is given.

    Raises
    ------
    CheckpointError
        As `load_model`.
    """
    if str(path) in REGISTER and not Path(path).exists():
        return load_model(_ASSETS / REGISTER[str(path)])
    return load_model(path)
