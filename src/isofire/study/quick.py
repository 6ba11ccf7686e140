"""The network of a cell as its spikes are counted: by look-up where that pays."""

from __future__ import annotations

import os

import torch
from torch import nn

from isofire.batches import Data, count_images
from isofire.errors import ModelError
from isofire.lookup import FastNetwork, fast

LEAST_IMAGES = 1000
"""Fewer are run as they are: tables take as long to make as some hundred images."""


def quickened(model: nn.Module, data: Data, max_images: int | None, device: torch.device) -> nn.Module:
    """`isofire.fast` of a quantized network for a CPU and many images; where nothing is won, the network itself.

    Which it is depends on the arguments alone, so that a cell gives the same row on every machine.
    """
    images = count_images(data, max_images)
    if device.type != "cpu" or images is None or images < LEAST_IMAGES:
        return model
    try:
        return fast(model)
    except ModelError:
        # no layer has weights that can be looked up
        return model


def is_wanted() -> bool:
    """Whether nobody has switched look-ups off, by ISOFIRE_FAST=0 in the environment."""
    return os.environ.get("ISOFIRE_FAST", "") != "0"


def looked_up(model: nn.Module) -> bool:
    """Whether some spikes of the last forward came of sums of codes, see docs/fast.md."""
    return isinstance(model, FastNetwork) and any(
        path.startswith("tables") or path == "torch, by codes" for _, path, _ in model.paths()
    )
