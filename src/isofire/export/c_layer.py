"""What a C program knows of each layer of an integer network: what leads to it, its widths, its constants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.errors import ModelError
from isofire.integer import INPUT, Connection, DecayRule, IntegerNetwork, NeuronRules, Population
from isofire.integer.connection import SumPool

MOST_SPIKES = 2**31 - 1
"""Of a neuron in a step, as C programs count them."""


@dataclass(frozen=True)
class Layer:
    """A layer of neurons, or the readout (`part` None), with what leads to it; `back`: from its own spikes.

    `most`: spikes a step that a program refuses to pass, where states could fire more.
    """

    index: int
    name: str
    part: Population | None
    to: Connection
    shapes: tuple[tuple[int, ...], ...]
    back: Connection | None = None
    most: int | None = None

    @property
    def reads_one(self) -> bool:
        """Whether its weights see the spikes of one layer, or the input, as they are."""
        return len(self.to.sources) == 1 and not self.to.pools

    @property
    def decays(self) -> list[tuple[str, DecayRule, Tensor]]:
        """Of the membrane "v" and of the current "i", where they decay."""
        if self.part is None:
            return []
        rules = self.part.rules
        found = (("v", rules.decay, self.part.decay), ("i", rules.synapse_decay, self.part.synapse_decay))
        return [(kind, rule, decay) for kind, rule, decay in found if rule is not None]

    @property
    def has_current(self) -> bool:
        """Whether its neurons keep a synaptic current."""
        return self.part is not None and self.part.rules.synapse != "none"

    @property
    def index_bits(self) -> int | None:
        """Bits of a membrane kept as the number of its level, where it has levels and that is narrower than itself."""
        if self.part is None or self.part.table is None:
            return None
        bits = max(1, (self.part.table.levels.shape[1] - 1).bit_length())
        return bits if bits < state_bits(self.part) else None

    @property
    def left(self) -> Tensor:
        """What a membrane on each of its levels is after the step, [channels or 1, levels]: fired, if it still can."""
        part = self.part
        assert part is not None
        assert part.table is not None
        if part.table.placement == "post_reset":
            return part.table.levels
        levels = part.table.levels.expand(part.shape[0], -1)
        after, _ = part.fired(levels.T.reshape(-1, part.shape[0], *(1,) * (len(part.shape) - 1)))
        rows = after.expand(-1, *part.shape).reshape(len(after), part.shape[0], -1)[:, :, 0].T
        return rows[:1] if bool((rows == rows[:1]).all()) else rows

    @property
    def maps(self) -> tuple[int, ...]:
        """Shape of what arrives at the weights."""
        shape = self.shapes[0]
        for pool in self.to.pools:
            shape = (shape[0], *pooled(shape, pool))
        return shape


def layer_of(network: IntegerNetwork, index: int, name: str, part: Population | None) -> Layer:
    """A layer of a program.

    Raises
    ------
    ModelError
        If a C program cannot hold it: neurons of other rules, delays, sums beyond 32 bits.
    """
    links = [link for link in network.connections if link.target == name and not link.delay]
    late = [link for link in network.connections if link.target == name and link.delay]
    has_factor = part is not None and any(link.factor is not None for link in links)
    if len(links) != 1 or has_factor or len(late) > 1 or not all(map(_is_back, late)):
        raise ModelError(
            "a C program takes one connection without delay to each layer, and one from its own spikes of the step "
            f"before; {name!r} has others"
        )
    if part is not None:
        _check_rules(name, part.rules)
    back = late[0] if late else None
    shapes = {INPUT: network.input_shape} | {n: p.shape for n, p in network.populations.items()}
    most = most_spikes(network, name) if part is not None else None
    if most is not None and part is not None and most >= spikes_of_states(part):
        most = None
    layer = Layer(index, name, part, links[0], tuple(shapes[source] for source in links[0].sources), back, most)
    _check_sums(network, layer)
    return layer


def _factors(layer: Layer) -> Tensor:
    """What sums of each output are multiplied by."""
    factor = layer.to.factor
    return torch.ones(len(layer.to.weight), dtype=torch.int64) if factor is None else factor


def _is_back(link: Connection) -> bool:
    """Whether it leads from a layer's spikes of the step before to itself."""
    plain = link.kind == "dense" and not link.pools and not bool(torch.as_tensor(link.shift).any())
    return plain and link.sources == (link.target,) and link.delay == 1 and link.factor is not None


def _check_rules(name: str, rules: NeuronRules) -> None:
    plain = rules.increment == "whole" and rules.deliver == "sum"
    held = rules.overflow == rules.current_overflow == "refuse"
    if not (plain and held) or rules.compare != ">=" or rules.threshold_shift:
        raise ModelError(
            f"a C program adds a step's spikes up and refuses what leaves a state's width; {name!r} has the rules of a "
            "chip that does otherwise. Lower the network without hardware, or write a bundle"
        )
    for rule in (rules.decay, rules.synapse_decay):
        if rule is not None and rule.rounding != "nearest":
            raise ModelError(f"the decay of {name!r} rounds by {rule.rounding!r}, not to the nearest")


def _check_sums(network: IntegerNetwork, layer: Layer) -> None:
    """No sum passes 2^62 for any input and any spikes, so that only states need a check as the program runs."""
    arrives, link = arriving(network, layer), layer.to
    fans = link.weight.abs().flatten(1).sum(1).tolist()
    shifts = _each(link.shift, len(fans), layer.name).tolist()
    # halves of wide sums, and what they become
    reach = [max(fan * (arrives // 65536 + 1 if link.is_rounded else arrives), fan * 65536) for fan in fans]
    factors = _factors(layer).tolist()
    whole = [fan * arrives * 2.0**s * f for fan, s, f in zip(fans, shifts, factors, strict=True)]
    if layer.back is not None and layer.part is not None:
        assert layer.back.factor is not None
        most = most_spikes(network, layer.name)
        again = [fan * most for fan in layer.back.weight.abs().flatten(1).sum(1).tolist()]
        whole = [a + b * f for a, b, f in zip(whole, again, layer.back.factor.tolist(), strict=True)]
    if (most := max([*reach, *whole])) >= 2**62:
        raise ModelError(
            f"sums into {layer.name!r} could reach {most:.3g}, beyond the 2^62 of a C program; lower with fewer "
            "input_bits or weight_bits"
        )


def arriving(network: IntegerNetwork, layer: Layer) -> int:
    """The largest number that its sources and pools add up to."""
    sources = layer.to.sources
    most = sum(largest_input(network) if s == INPUT else most_spikes(network, s) for s in sources)
    for pool in layer.to.pools:
        most *= prod(pool.size or layer.shapes[0][1:])
    return most


def largest_input(network: IntegerNetwork) -> int:
    """The largest code that a step takes."""
    return 2**31 - 1 if network.encoder is None else 2 ** (network.encoder.bits - 1) - 1


def c_name(name: str) -> str:
    """A layer's name as comments and text of C may hold it."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


def width(values: Tensor) -> int:
    """Bits of the narrowest numbers with a sign that hold these."""
    return signed(max(abs(int(values.max())), abs(int(values.min()))) if values.numel() else 0)


def spike_bits(part: Population) -> int:
    """Bits of a buffer of spikes, which are 0 or more."""
    return next(bits for bits in (8, 16, 32) if min(MOST_SPIKES, spikes_of_states(part)) < 1 << bits)


def most_spikes(network: IntegerNetwork, name: str) -> int:
    """The most spikes of a step that a program takes: a count of 32 bits, and sums behind it that stay below 2^62."""
    part = network.populations[name]
    gains = [1, *(_gain(network, link) for link in network.connections if name in link.sources)]
    return min(MOST_SPIKES, spikes_of_states(part), 2**60 // max(gains))


def _gain(network: IntegerNetwork, link: Connection) -> int:
    """No less than what a connection makes of one spike from each place of each source."""
    factor = 1 if link.factor is None else int(link.factor.abs().max())
    gain = int(link.weight.abs().flatten(1).sum(1).max()) * factor << max(0, int(torch.as_tensor(link.shift).max()))
    shape = network.populations[link.sources[0]].shape if link.sources[0] != INPUT else network.input_shape
    return gain * len(link.sources) * prod(prod(pool.size or shape[1:]) for pool in link.pools)


def spikes_of_states(part: Population) -> int:
    """The most spikes that states, which are refused beyond their width, could fire."""
    return part.most_spikes or (1 << (part.rules.state_bits - 1)) // int(part.threshold.min())


def signed(most: int) -> int:
    """Bits of the narrowest numbers with a sign that hold one so large."""
    return next(bits for bits in (8, 16, 32, 64) if most < 1 << (bits - 1))


def state_bits(part: Population) -> int:
    """Bits of a membrane or current."""
    return next(bits for bits in (8, 16, 32, 64) if part.rules.state_bits <= bits)


def array(name: str, values: Tensor, bits: int | None = None) -> str:
    """A constant array of C, as narrow as its numbers unless `bits` says otherwise."""
    bits = width(values) if bits is None else bits
    suffix = "LL" if bits == 64 else ""
    numbers = [f"{value}{suffix}" for value in values.reshape(-1).tolist()]
    rows = [", ".join(numbers[start : start + 16]) for start in range(0, len(numbers), 16)]
    return f"static const int{bits}_t {name}[{len(numbers)}] = {{\n    " + ",\n    ".join(rows) + "};\n"


class Field(NamedTuple):
    """An array of a program's state; `holds`: what it is, for its comment."""

    kind: str
    name: str
    size: int
    holds: str

    @property
    def bytes(self) -> int:
        """Of one number."""
        return int(re.sub(r"\D", "", self.kind)) // 8


def fields_of(layer: Layer) -> list[Field]:
    """What a layer of neurons keeps."""
    part, k, called = layer.part, layer.index, c_name(layer.name)
    assert part is not None
    size, wide, spikes = part.size, f"int{state_bits(part)}_t", f"uint{spike_bits(part)}_t"
    bits = layer.index_bits
    if bits is None:
        found = [Field(wide, f"v{k}", size, called)]
    else:
        found = [Field("uint8_t", f"v{k}", -(-size * bits // 8) + 2, f"{called}: levels, {bits} bits each")]
    if layer.has_current:
        found.append(Field(wide, f"i{k}", size, f"{called}: currents"))
    found.append(Field(spikes, f"s{k}", size, f"{called}: spikes"))
    if layer.back is not None:
        found.append(Field(spikes, f"p{k}", size, f"{called}: spikes of the step before"))
    return found


def constants(layer: Layer, network: IntegerNetwork) -> str:
    """Weights, and a number a channel of everything else."""
    k, part, channels = layer.index, layer.part, layer.to.weight.shape[0]
    found = [array(f"w{k}", layer.to.weight), array(f"shift{k}", _each(layer.to.shift, channels, layer.name))]
    if part is None:
        assert network.readout is not None
        if layer.to.factor is not None:
            found.append(array(f"factor{k}", layer.to.factor))
        return "".join([*found, array(f"bias{k}", _each(network.readout.bias, channels, layer.name))])
    if layer.back is not None:
        assert layer.back.factor is not None
        found += [array(f"wb{k}", layer.back.weight), array(f"factor{k}", layer.back.factor)]
    found += [array(f"bias{k}", _each(part.bias, channels, layer.name))]
    found += [array(f"th{k}", _each(part.threshold, channels, layer.name))]
    for kind, _, decay in layer.decays:
        if decay.numel() > 1:
            found.append(array(f"lost_{kind}{k}", _each(decay, channels, layer.name)))
    if part.subtract is not None:
        found.append(array(f"subtract{k}", _each(part.subtract, channels, layer.name)))
    if part.floor is not None:
        found.append(array(f"floor{k}", _each(part.floor, channels, layer.name)))
    if part.table is not None:
        found += [array(f"edges{k}", part.table.edges, 64), array(f"levels{k}", part.table.levels)]
        if layer.index_bits is not None and part.table.placement == "pre_fire":
            found.append(array(f"left{k}", layer.left))
    return "".join(found)


def _each(values: int | Tensor, channels: int, name: str) -> Tensor:
    flat = torch.as_tensor(values).reshape(-1)
    if flat.numel() not in (1, channels):
        raise ModelError(f"{name!r} has numbers for each neuron; a C program has one for each of {channels} channels")
    return flat.expand(channels)


def pooled(shape: tuple[int, ...], pool: SumPool) -> tuple[int, int]:
    """Height and width of a pool's maps."""
    if pool.size is None:
        return 1, 1
    high, wide = ((shape[1 + i] + 2 * pool.padding[i] - pool.size[i]) // pool.stride[i] + 1 for i in (0, 1))
    return high, wide
