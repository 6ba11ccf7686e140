"""Random networks as Sinabs discretizes and runs them for Speck: `python scripts/chips/speck.py OUT.json [COUNT]`.

`python scripts/chips/speck.py NETWORK.npz OUT.npz` runs one network instead. Runs in an environment with sinabs 3.1.3
(`make .venvs/sinabs/.installed`). Sinabs gets weights in floating point and chooses its own integers; its tools for a
chip that is plugged in are not used, so that empty modules stand in for them.
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


def without_a_chip() -> tuple[Any, type]:
    """Sinabs' layers, and its network for the chip."""
    sys.modules.update({name: MagicMock() for name in ABSENT})
    import sinabs.layers
    from sinabs.backend.dynapcnn import DynapcnnNetwork

    return sinabs.layers, DynapcnnNetwork


def random_network(rng: np.random.Generator) -> tuple[list[nn.Module], list[dict[str, Any]], np.ndarray]:
    """One to three layers with either reset, biases in half of them and pools between; what the integers do not say of
    them; and counts of spikes [T, N, C, H, W] with N = 2."""
    layers_of, _ = without_a_chip()
    import sinabs.activation as sa

    channels, size, steps = int(rng.integers(1, 3)), int(rng.integers(4, 9)), int(rng.integers(6, 16))
    frames = rng.poisson(float(rng.choice([0.3, 1.0, 3.0])), (steps, 2, channels, size, size))
    layers: list[nn.Module] = []
    about: list[dict[str, Any]] = []
    pool = 1
    for place in range(count := int(rng.integers(1, 4))):
        dense, bias = place == count - 1 and bool(rng.integers(2)), bool(rng.integers(2))
        out, fan = int(rng.integers(1, 7)), channels * size * size
        if dense:
            made: Any = nn.Linear(fan, out, bias=bias)
            layers.append(nn.Flatten())
            stride, padding, size = 1, 0, 1
        else:
            kernel, stride, padding = (
                int(rng.integers(1, min(size, 4) + 1)),
                int(rng.choice([1, 2])),
                int(rng.integers(2)),
            )
            made, fan = nn.Conv2d(channels, out, kernel, stride, padding, bias=bias), channels * kernel**2
            size = (size + 2 * padding - kernel) // stride + 1
        values = rng.normal(0.1, 1.0, tuple(made.weight.shape)) * rng.uniform(0.3, 2.0) / fan**0.5
        made.weight.data = torch.tensor(values, dtype=torch.float32)
        if bias:
            made.bias.data = torch.tensor(rng.normal(0, 0.3, out), dtype=torch.float32)
        hard = bool(rng.integers(2))
        layers += [made, layers_of.IAFSqueeze(
            batch_size=2, spike_threshold=torch.tensor(float(rng.uniform(0.3, 1.5))),
            min_v_mem=torch.tensor(-float(rng.uniform(0.2, 3.0))),
            reset_fn=sa.MembraneReset() if hard else sa.MembraneSubtract(),
        )]  # fmt: skip
        about.append({"stride": stride, "padding": padding, "pool": pool, "reset": "zero" if hard else "subtract"})
        channels, pool = out, 1
        if place < count - 1 and size >= 4 and bool(rng.integers(2)):
            pool, size = 2, size // 2
            layers.append(nn.AvgPool2d(2))
    return layers, about, frames


def case(rng: np.random.Generator) -> dict[str, Any] | None:
    """A random network's integers and what its neurons did; None if a state left 16 bits, which Sinabs allows."""
    layers, about, frames = random_network(rng)
    found, reached = run(layers, torch.from_numpy(frames).float())
    for place, layer in enumerate(about):
        low, high = reached[place]
        th, floor = int(found[f"th {place}"]), int(found[f"min {place}"])
        if low + floor < -(2**15) or high + th >= 2**15:
            return None
        weight = found[f"w {place}"].astype(int)
        bias = found.get(f"b {place}", np.zeros(len(weight))).astype(int)
        layer |= {"weight": weight.tolist(), "bias": bias.tolist(), "threshold": th, "floor": floor}
        layer |= {"s": found[f"s {place}"].astype(int).tolist(), "v": found[f"v {place}"].astype(int).tolist()}
    return {"input": frames.tolist(), "layers": about}


def run(layers: list[nn.Module], frames: torch.Tensor) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """The integers that Sinabs chose, every layer's spikes, and its last membranes; the least and largest of what a
    layer added in a step."""
    _, network_of = without_a_chip()
    steps, images = frames.shape[:2]
    network = network_of(nn.Sequential(*layers), tuple(frames.shape[2:]), batch_size=images, discretize=True)
    found: dict[str, Any] = {}
    parts = [network.dynapcnn_layers[key] for key in sorted(network.dynapcnn_layers)]
    reached = [(0, 0)] * len(parts)
    for place, part in enumerate(parts):
        found[f"w {place}"] = part.conv_layer.weight.detach().numpy()
        if part.conv_layer.bias is not None:
            found[f"b {place}"] = part.conv_layer.bias.detach().numpy()
        found[f"th {place}"] = np.array(float(part.spk_layer.spike_threshold))
        found[f"min {place}"] = np.array(float(part.spk_layer.min_v_mem))

        def note(_module: Any, given: Any, output: torch.Tensor, place: int = place) -> None:
            reached[place] = int(given[0].min()), int(given[0].max())
            found[f"s {place}"] = output.detach().unflatten(0, (images, steps)).transpose(0, 1).flatten(2).numpy()

        part.spk_layer.register_forward_hook(note)
    with torch.no_grad():
        # Sinabs ran the network to look at it, and neurons keep their states
        for part in parts:
            part.spk_layer.reset_states()
        network(frames.transpose(0, 1).flatten(0, 1))
    for place, part in enumerate(parts):
        found[f"v {place}"] = part.spk_layer.v_mem.detach().flatten(1).numpy()
    return found, reached


def run_network(path: str, out: str) -> None:
    """What becomes of one network, as `scripts.chips.oracle` writes it."""
    layers_of, _ = without_a_chip()
    with np.load(path) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "about"}
        about = json.loads(str(stored["about"]))
    frames = arrays["input"].float()
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
        threshold, floor = (torch.tensor(layer[key]) for key in ("threshold", "floor"))
        layers += [made, layers_of.IAFSqueeze(batch_size=frames.shape[1], spike_threshold=threshold, min_v_mem=floor)]
    np.savez_compressed(out, **run(layers, frames)[0])


def main() -> None:
    """Write COUNT networks, or run a given one."""
    if len(sys.argv) == 3 and sys.argv[1].endswith(".npz"):
        return run_network(*sys.argv[1:])
    torch.set_num_threads(1)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    rng, cases = np.random.default_rng(4), []
    while len(cases) < count:
        if made := case(rng):
            cases.append(made)
    with open(sys.argv[1], "w", encoding="utf-8") as stream:
        json.dump(cases, stream)


if __name__ == "__main__":
    main()
