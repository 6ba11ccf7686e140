"""A mark of what a network fires by in full precision, to tell whether that has moved."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from isofire.quantizers import Quantizer
from isofire.running import statistics_of

_WHAT_FIRES = "_isofire_fired_by"


def what_fires(model: nn.Module) -> str:
    """A hash of all parameters and running statistics that are no quantizer's."""
    own = {id(part) for module in model.modules() if isinstance(module, Quantizer) for part in module.parameters()}
    held = [tensor for _, tensor in model.named_parameters() if id(tensor) not in own]
    norms = [model.get_submodule(name) for name in statistics_of(model)]
    held += [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    found = hashlib.sha256()
    for tensor in held:
        # a cast to a wider type moves nothing
        wide = torch.promote_types(tensor.dtype, torch.float64)
        found.update(tensor.detach().cpu().to(wide).contiguous().numpy().tobytes())
    return found.hexdigest()


def note_what_fires_(model: nn.Module) -> None:
    """Remember `what_fires` of a network whose layers are calibrated by its firing."""
    model.__dict__[_WHAT_FIRES] = what_fires(model)


def fired_by(model: nn.Module) -> str | None:
    """What `note_what_fires_` remembered, also in copies; None where levels came from a file or state dict."""
    return model.__dict__.get(_WHAT_FIRES)
