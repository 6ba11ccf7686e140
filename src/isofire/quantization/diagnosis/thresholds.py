"""From which membrane potential on a layer fires, once what is compared is a level.

At `pre_fire` the level of the potential is compared with the threshold, so a neuron fires from the lower edge of the
first bin whose level fires: for rounding to nearest the middle between the levels around the threshold. At
`post_reset`, and in full precision, the potential itself is compared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isofire.adapters import Adapter
from isofire.neurons import MembraneQuantizer
from isofire.quantizers import Table

_ROUNDING = 1e-6
"""A threshold such as 0.1 has no float32 of its own."""


def fires(potential: Tensor, threshold: Tensor, adapter: Adapter) -> Tensor:
    """Whether a neuron of this kind fires at these potentials; bool, of the shape that both broadcast to."""
    potential, threshold = potential.double(), threshold.double()
    equal = (potential - threshold).abs() <= _ROUNDING * torch.maximum(potential.abs(), threshold.abs())
    above = potential.float() > threshold.float()
    return above | equal if adapter.fires_at_threshold else above


def fires_from(membrane: MembraneQuantizer | None, threshold: Tensor, adapter: Adapter) -> Tensor:
    """The potential above which each channel fires, `[G, U]` float64: G groups of levels, U different thresholds.

    inf where no level reaches the threshold, -inf where the lowest does.

    Parameters
    ----------
    membrane
        The quantizer and its place; None in full precision.
    threshold
        Of the layer, of any shape; where the first axis is the quantizer's channels, each meets its own.
    """
    given = threshold.detach().double().cpu()
    if membrane is None or membrane.placement == "post_reset":
        return given.flatten().unique().unsqueeze(0)
    edges, levels = (part.detach().double().cpu() for part in table_of(membrane))
    groups = len(levels)
    own = given.ndim > 0 and groups > 1 and given.shape[0] == groups
    rows = given.reshape(groups, -1) if own else given.flatten().unique().unsqueeze(0)
    reached = fires(levels[:, None, :], rows[:, :, None], adapter)
    below = torch.cat([torch.full((groups, 1), -math.inf, dtype=torch.float64), edges], 1)
    first = reached.int().argmax(2)
    start = below.gather(1, first) if len(first) == groups else below.expand(len(first), -1).gather(1, first)
    return torch.where(reached.any(2), start, math.inf)


def table_of(membrane: MembraneQuantizer) -> Table:
    """Edges and levels of a calibrated membrane quantizer, also of one that still learns: as it is now.

    Raises
    ------
    ModelError
        If it is not calibrated.
    """
    quantizer = membrane.quantizer
    quantizer._require_ready()
    with torch.no_grad():
        return quantizer._table()
