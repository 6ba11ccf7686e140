"""Where a forward pass is: also where the network itself is a layer of neurons, without a name."""

from __future__ import annotations

import torch
from torch import nn

from isofire.firing.cost import measure_cost
from isofire.neurons import LIF, Recurrent

STEPS, IMAGES = 4, 5


def test_a_network_that_is_one_recurrent_layer_pays_for_the_spikes_that_it_feeds_back() -> None:
    torch.manual_seed(0)
    layer = Recurrent(LIF(v_threshold=0.3), nn.Linear(6, 6))
    currents = torch.rand(STEPS, IMAGES, 6)
    spikes = layer(currents)
    fed_back = spikes[:-1].sum() * 6 / IMAGES
    labels = torch.zeros(IMAGES, dtype=torch.int64)
    for model, name in ((layer, "weight"), (nn.Sequential(layer), "0.weight")):
        cost = measure_cost(model.eval(), (currents, labels))
        (place,) = cost.synapses
        assert fed_back > 0
        assert place.name == name
        assert place.synops.mean == cost.synops.mean == fed_back
        assert cost.left_out == ()
