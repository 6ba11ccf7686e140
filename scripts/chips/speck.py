"""A network as Sinabs discretizes and runs it for Speck: `python scripts/chips/speck.py NETWORK.npz OUT.npz`.

Runs in an environment with sinabs 3.1.3 (`make .venvs/sinabs/.installed`). Sinabs gets weights in floating point and
chooses its own integers; its tools for a chip that is plugged in are not used, so that empty modules stand in for them.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn

ABSENT = ("samna", "samna.speck2e", "samna.speck2e.configuration", "samna.speck2f", "samna.speck2f.configuration")
ABSENT += ("samna.specksim", "samna.specksim.nodes", "samnagui")


def main() -> None:
    """Write the integers that Sinabs chose, every layer's spikes, and its last membranes."""
    sys.modules.update({name: MagicMock() for name in ABSENT})
    import sinabs.layers as sl
    from sinabs.backend.dynapcnn import DynapcnnNetwork

    with np.load(sys.argv[1]) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "about"}
        about = json.loads(str(stored["about"]))
    frames = arrays["input"].float().transpose(0, 1)
    images, steps = frames.shape[:2]
    layers: list[nn.Module] = []
    for place, layer in enumerate(about["layers"]):
        weight = arrays[f"weight {place}"]
        if weight.ndim == 4:
            made: Any = nn.Conv2d(
                weight.shape[1], len(weight), tuple(weight.shape[2:]), bias=False, **layer["geometry"]
            )
        else:
            made = nn.Linear(weight.shape[1], len(weight), bias=False)
            layers.append(nn.Flatten())
        made.weight.data = weight
        neurons = sl.IAFSqueeze(
            batch_size=images, spike_threshold=torch.tensor(layer["threshold"]), min_v_mem=torch.tensor(layer["floor"])
        )
        layers += [made, neurons]
    network = DynapcnnNetwork(nn.Sequential(*layers), tuple(frames.shape[2:]), batch_size=images, discretize=True)
    found: dict[str, Any] = {}
    parts = [network.dynapcnn_layers[key] for key in sorted(network.dynapcnn_layers)]
    for place, part in enumerate(parts):
        found[f"w {place}"] = part.conv_layer.weight.detach().numpy()
        found[f"th {place}"] = np.array(float(part.spk_layer.spike_threshold))
        found[f"min {place}"] = np.array(float(part.spk_layer.min_v_mem))

        def note(_module: Any, _inputs: Any, output: torch.Tensor, place: int = place) -> None:
            found[f"s {place}"] = output.detach().unflatten(0, (images, steps)).transpose(0, 1).flatten(2).numpy()

        part.spk_layer.register_forward_hook(note)
    with torch.no_grad():
        # Sinabs ran the network to look at it, and neurons keep their states
        for part in parts:
            part.spk_layer.reset_states()
        network(frames.flatten(0, 1))
    for place, part in enumerate(parts):
        found[f"v {place}"] = part.spk_layer.v_mem.detach().flatten(1).numpy()
    np.savez_compressed(sys.argv[2], **found)


if __name__ == "__main__":
    main()
