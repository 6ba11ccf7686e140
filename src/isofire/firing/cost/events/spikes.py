"""What is known of the spikes that a layer of neurons gives."""

from __future__ import annotations

from torch import Tensor

from isofire.firing.cost.events.axes import differs
from isofire.firing.cost.events.events import Events
from isofire.firing.cost.events.forms import Form, by_height, factor_of


def spikes(name: str, count: Tensor, heights: Tensor, *, below: bool) -> Events:
    """Events of spikes as a neuron gives them.

    Parameters
    ----------
    name
        Of the layer.
    count
        Of each output how many events it is, float64: its size where heights are whole numbers
        (`isofire.firing.cost.events.forms.by_height`), as many spikes where they are not.
    heights
        Of one spike of each output.
    below
        Whether some may lie below 0.
    """
    whole, ones = by_height(heights), bool((heights.abs() == 1).all())
    form = Form(1.0 if ones else factor_of(heights))
    return Events(
        count, whole and not below, forms={name: form}, axes=differs(heights), graded=whole and below and not ones
    )
