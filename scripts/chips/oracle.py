"""A lowered network through its chip's own simulator, which lives in an environment of its own, number by number.

`SIMULATORS` says which; each takes a network as arrays that numpy alone reads, and gives back what its neurons did.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isofire.integer import INPUT, ChipMapping, IntegerNetwork, Trace

Arrays = dict[str, NDArray[Any]]
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Agreement:
    """What was compared with a simulator, and how much of it differs.

    Parameters
    ----------
    simulator
        Package and version.
    numbers
        Name -> how many were compared: spikes of every neuron, step and image, membranes, codes.
    differ
        Name -> how many of them differ.
    fired
        Spikes that the simulator gave, in all: nothing is shown by a network that is silent.
    """

    simulator: str
    numbers: dict[str, int]
    differ: dict[str, int]
    fired: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"simulator": self.simulator, "numbers": self.numbers, "differ": self.differ, "fired": self.fired}


class Tally:
    """Counts equal and other numbers."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.differ: dict[str, int] = {}

    def add(self, kind: str, ours: Tensor, theirs: NDArray[Any]) -> None:
        """Compare; shapes must be equal up to axes of 1, or theirs is one number for all."""
        mine = ours.detach().cpu().numpy()
        mine = mine.reshape(theirs.shape) if theirs.ndim else mine
        self.numbers[kind] = self.numbers.get(kind, 0) + mine.size
        self.differ[kind] = self.differ.get(kind, 0) + int((mine != theirs).sum())


def ask(environments: Path, simulator: str, network: IntegerNetwork, frames: Tensor) -> Agreement:
    """Run frames [T, N, ...] through a lowered network here and there.

    Parameters
    ----------
    environments
        Folder of environments as `make test-chips` makes them.
    simulator
        A key of `SIMULATORS`.
    """
    codes = padded(network, frames)
    theirs = simulated(environments, simulator, network, codes)
    return compared(simulator, network, codes, theirs)


def padded(network: IntegerNetwork, frames: Tensor) -> Tensor:
    """Codes of frames [T, N, ...], and steps without input until the last layer has had its T."""
    codes = network.codes(frames)
    return torch.cat([codes, codes.new_zeros((max(network.latency.values()), *codes.shape[1:]))])


def simulated(environments: Path, simulator: str, network: IntegerNetwork, codes: Tensor) -> Arrays:
    """What a simulator's neurons do, by the names that its script gives."""
    about = SIMULATORS[simulator]
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "network.npz", Path(folder) / "found.npz"
        np.savez(given, **about.arrays(network, codes))
        python = environments / about.environment / "bin" / "python"
        command = [str(python), "-W", "ignore", str(FOLDER / about.script), str(given), str(found)]
        subprocess.run(command, check=True)
        with np.load(found) as stored:
            return {name: stored[name] for name in stored.files}


def compared(simulator: str, network: IntegerNetwork, codes: Tensor, theirs: Arrays) -> Agreement:
    """The engine here against what a simulator found."""
    about, tally = SIMULATORS[simulator], Tally()
    about.compare(tally, network, network.run(codes, states=True), theirs)
    fired = sum(int(theirs[name].sum()) for name in theirs if name.split("_")[0].split(" ")[0] == "s")
    return Agreement(about.title, tally.numbers, tally.differ, fired)


def _flat(values: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    """A number a neuron."""
    return values.expand(shape).flatten().numpy()


def _xylo(network: IntegerNetwork, codes: Tensor) -> Arrays:
    """Hidden layers side by side: weights from the input, between them, and to the output."""
    parts = network.populations
    hidden, last = [name for name, part in parts.items() if not part.output], network.order[-1]
    starts = dict(zip(hidden, np.cumsum([0, *(parts[name].size for name in hidden)]).tolist(), strict=False))
    neurons, inputs, outputs = sum(parts[name].size for name in hidden), codes[0, 0].numel(), parts[last].size
    weights = {"w_in": (inputs, neurons), "w_rec": (neurons, neurons), "w_out": (neurons, outputs)}
    found: Arrays = {name: np.zeros(shape, dtype=np.int64) for name, shape in weights.items()}
    shifts = dict.fromkeys(found, 0)
    for link in network.connections:
        kind = "w_out" if link.target == last else "w_in" if INPUT in link.sources else "w_rec"
        shifts[kind] = int(torch.as_tensor(link.shift).flatten()[0])
        for source in link.sources:
            rows, columns = starts.get(source, 0), starts.get(link.target, 0)
            block = link.weight.T.numpy()
            found[kind][rows : rows + len(block), columns : columns + block.shape[1]] += block
    found["shift"] = np.array(list(shifts.values()))
    fields = {"dash_mem": "decay", "dash_syn": "synapse_decay", "threshold": "threshold", "bias": "bias"}
    for theirs, ours in fields.items():
        found[theirs] = np.concatenate([_flat(getattr(parts[name], ours), parts[name].shape) for name in hidden])
        found[f"{theirs}_out"] = _flat(getattr(parts[last], ours), parts[last].shape)
    return found | {"input": codes.flatten(2).numpy()}


def _compare_xylo(tally: Tally, network: IntegerNetwork, trace: Trace, theirs: Arrays) -> None:
    hidden = [name for name, part in network.populations.items() if not part.output]
    states = (("spikes", "s", trace.spikes), ("membranes", "v", trace.membranes), ("currents", "i", trace.currents))
    for kind, key, kept in states:
        tally.add(kind, torch.cat([kept[name].flatten(2) for name in hidden], 2), theirs[key])
        tally.add(kind, kept[network.order[-1]].flatten(2), theirs[f"{key}_out"])


def _loihi(network: IntegerNetwork, codes: Tensor) -> Arrays:
    found: Arrays = {"input": codes.flatten(2).numpy()}
    links = []
    for link in network.connections:
        if link.kind != "dense" or link.delay != 1:
            raise SystemExit("the emulator is given dense connections with the delay of one step that it has")
        for source in link.sources:
            found[f"weight {len(links)}"] = (link.weight << torch.as_tensor(link.shift)).numpy()
            links.append((source, link.target))
    for name, part in network.populations.items():
        found[f"threshold {name}"] = _flat(part.threshold << part.rules.threshold_shift, part.shape)
        found[f"bias {name}"] = _flat(part.bias, part.shape)
        found[f"decay_u {name}"] = _flat(part.synapse_decay - 1, part.shape)
        found[f"decay_v {name}"] = _flat(part.decay, part.shape)
    about = {"layers": list(network.order), "connections": links}
    return found | {"about": np.array(json.dumps(about))}


def _compare_loihi(tally: Tally, network: IntegerNetwork, trace: Trace, theirs: Arrays) -> None:
    for name in network.order:
        tally.add("spikes", trace.spikes[name], theirs[f"s {name}"])
        tally.add("membranes", trace.membranes[name], theirs[f"v {name}"])


def _mapping(network: IntegerNetwork) -> ChipMapping:
    if network.mapping is None:
        raise SystemExit("only networks that were lowered onto a chip are compared with its simulator")
    return network.mapping


def _speck(network: IntegerNetwork, codes: Tensor) -> Arrays:
    """The float network: Sinabs chooses its own integers."""
    found, layers = {"input": codes.numpy()}, []
    for place, layer in enumerate(_mapping(network).layers):
        stage, form = layer.stage, layer.neuron.exact
        found[f"weight {place}"] = stage.layer.weight.detach().numpy()
        geometry = {} if found[f"weight {place}"].ndim == 2 else stage.geometry()
        geometry = {key: geometry[key] for key in ("stride", "padding") if key in geometry}
        layers.append({"geometry": geometry, "threshold": float(form.threshold), "floor": form.floor})
    return found | {"about": np.array(json.dumps({"layers": layers}))}


def _compare_speck(tally: Tally, network: IntegerNetwork, trace: Trace, theirs: Arrays) -> None:
    for place, layer in enumerate(_mapping(network).layers):
        part = network.populations[layer.name]
        assert part.floor is not None
        tally.add("codes", layer.codes, theirs[f"w {place}"])
        tally.add("thresholds", part.threshold, theirs[f"th {place}"])
        tally.add("thresholds", part.floor, theirs[f"min {place}"])
        tally.add("spikes", trace.spikes[layer.name], theirs[f"s {place}"])
        tally.add("membranes", trace.membranes[layer.name][-1], theirs[f"v {place}"])


@dataclass(frozen=True)
class Simulator:
    """An environment, a script in it, what that is given, and how what it found is compared."""

    title: str
    environment: str
    script: str
    arrays: Callable[[IntegerNetwork, Tensor], Arrays]
    compare: Callable[[Tally, IntegerNetwork, Trace, Arrays], None]


SIMULATORS = {
    "xylo": Simulator("xylosim 0.1.3", "xylosim", "xylo.py", _xylo, _compare_xylo),
    "loihi": Simulator("nengo-loihi 1.1.0 emulator", "nengo-loihi", "loihi.py", _loihi, _compare_loihi),
    "speck": Simulator("sinabs 3.1.3 DynapcnnNetwork", "sinabs", "speck.py", _speck, _compare_speck),
}
