"""Trained networks that come with the package."""

from __future__ import annotations

from importlib import resources

from torch import nn

from isofire.errors import SpecError
from isofire.models.store import load_model

REGISTER: dict[str, str] = {}
"""Name -> file under `isofire/models/assets`; recipe, accuracy and n are in the file's note."""


def pretrained(name: str) -> nn.Module:
    """A trained network by name, in eval mode.

    Raises
    ------
    SpecError
        If the name is not registered.
    """
    if name not in REGISTER:
        known = ", ".join(sorted(REGISTER)) or "none yet"
        raise SpecError(f"no pretrained network is called {name!r}; there are: {known}")
    with resources.as_file(resources.files("isofire.models") / "assets" / REGISTER[name]) as path:
        model, _ = load_model(path)
    return model
