"""A network of nothing but integers, run step by step: slow and obvious, the reference for whatever runs it fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError
from isofire.integer.arithmetic import fit
from isofire.integer.connection import INPUT, Connection
from isofire.integer.population import Population, State

if TYPE_CHECKING:
    from isofire.integer.mapping import ChipMapping

READOUT = "readout"
"""The target of connections that lead to the network's output, sums without neurons."""


@dataclass(frozen=True)
class Encoder:
    """Real inputs as codes: round(x / step), half to even, within +-(2^(bits-1) - 1).

    `steps`: how often an image [N, ...] is presented; None takes frames [T, N, ...]. `counts`: inputs are spikes, whole
    numbers >= 0, of which a chip takes so many a step.
    """

    step: float
    bits: int
    steps: int | None
    counts: bool = False

    def encode(self, x: Tensor) -> Tensor:
        """Codes [T, N, ...], int64.

        Raises
        ------
        ModelError
            If an input is too large for the codes, or not finite.
        """
        top = 2 ** (self.bits - 1) - 1
        scaled = (x.double() / self.step).round()
        if scaled.numel() and not float(scaled.abs().max()) <= top:
            raise ModelError(
                f"inputs must lie within {top * self.step:g}, got {float(x.abs().max()):g}; lower the network with an "
                "example that holds the largest"
            )
        codes = scaled.to(torch.int64)
        if self.counts and not (torch.equal(codes.double(), x.double()) and bool((codes >= 0).all())):
            raise ModelError(
                "this network takes whole numbers of spikes >= 0, got others; encode inputs as spikes first, or lower "
                "the network with an example of real inputs"
            )
        return codes if self.steps is None else codes.unsqueeze(0).expand(self.steps, *codes.shape)


@dataclass(frozen=True)
class Readout:
    """Sums of the last connection plus `bias`, int64 [classes]; one unit is `scale` of the float network's logits."""

    bias: Tensor
    scale: float


@dataclass
class Trace:
    """What a run left: spikes [T, N, ...] of every layer, readout sums [T, N, classes], and states if asked for."""

    spikes: dict[str, Tensor]
    readout: Tensor | None
    membranes: dict[str, Tensor] = field(default_factory=dict)
    currents: dict[str, Tensor] = field(default_factory=dict)


class IntegerNetwork(nn.Module):
    """Layers of integer neurons, in order, and the connections between them.

    Parameters
    ----------
    populations
        Name -> neurons. Without delay, spikes reach later layers in the step in which they are fired.
    connections
        To layers and, at most one, to `READOUT`.
    input_shape
        Shape of one image's input.
    encoder
        For real inputs; None: the network is given whole numbers [T, N, ...].
    readout
        For connections to `READOUT`.
    notes
        Layer -> what about it is not exact, as sentences.
    latency
        Layer -> steps by which it fires later than the float network's, through delays of connections; 0 if left out.
    most_steps
        For so many steps from rest no state was found that could overflow; None: for any number, or not known. Here a
        run that overflows ends with the number; a C program has no such check.

    Attributes
    ----------
    mapping
        How it was lowered onto a chip: what was approximated, and what it takes of the chip; None for others.
    rest
        Layer -> steps for which it rests at the beginning, whatever reaches it. Chips have none: with it, what biases
        do while the first spikes are on their way is seen (`isofire.integer.steps_of`).
    gives_steps_first
        That the first axis of what it gives is time, which nobody need find out by changing its spikes.

    Raises
    ------
    SpecError
        If a connection leads nowhere, or takes spikes before they are there.
    """

    gives_steps_first = True

    def __init__(
        self,
        populations: Mapping[str, Population],
        connections: Sequence[Connection],
        input_shape: tuple[int, ...],
        *,
        encoder: Encoder | None = None,
        readout: Readout | None = None,
        notes: Mapping[str, Sequence[str]] | None = None,
        latency: Mapping[str, int] | None = None,
        most_steps: int | None = None,
    ) -> None:
        super().__init__()
        self.most_steps = most_steps
        self.order = tuple(populations)
        self.mapping: ChipMapping | None = None
        self.rest: dict[str, int] = {}
        if most_steps is not None and most_steps < 1:
            raise SpecError(f"most_steps must be at least 1, or None, got {most_steps}")
        if unknown := sorted({*(latency or {}), *(notes or {})} - {*self.order, READOUT}):
            known = ", ".join((*self.order, READOUT))
            raise SpecError(f"latency or notes name {unknown[0]!r}, which is no layer; there are {known}")
        self.latency = {name: (latency or {}).get(name, 0) for name in (*self.order, READOUT)}
        self.connections = tuple(connections)
        self.notes = {name: tuple(said) for name, said in (notes or {}).items() if said}
        self.input_shape, self.encoder, self.readout = tuple(input_shape), encoder, readout
        for name, population in populations.items():
            _place(self, name, population)
        self._check()

    @property
    def populations(self) -> dict[str, Population]:
        """Name -> neurons, in order."""
        return {name: self.get_submodule(name) for name in self.order}  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [T, N, classes] in the float network's units; without a readout the last layer's spikes [T, N, ...].

        `x` as the float network takes it; without an encoder, whole numbers [T, N, ...].
        """
        trace = self.aligned(self.codes(x))
        for name, population in self.populations.items():
            fired = trace.spikes[name].float()
            if not torch.equal(population(fired.clone()), fired):
                # what follows has been computed already, so that whoever puts other spikes there would be misled
                raise ModelError(f"the spikes of {name!r} cannot be replaced in an integer network; use the float one")
        if self.readout is None or trace.readout is None:
            return trace.spikes[self.order[-1]].float()
        return (trace.readout.double() * self.readout.scale).float()

    def codes(self, x: Tensor) -> Tensor:
        """The whole numbers [T, N, ...] that the network sees of an input.

        Raises
        ------
        ModelError
            If the shape does not fit, or numbers are not whole where there is no encoder.
        """
        codes = x.to(torch.int64) if self.encoder is None else self.encoder.encode(x)
        if self.encoder is None and not torch.equal(codes.to(x.dtype), x):
            raise ModelError("this network takes whole numbers of spikes, got others")
        return self._shaped(codes)

    def _shaped(self, codes: Tensor) -> Tensor:
        if codes.ndim != 2 + len(self.input_shape) or tuple(codes.shape[2:]) != self.input_shape or not len(codes):
            raise ModelError(
                f"this network takes codes [T, N, ...] with {list(self.input_shape)} for each, got {list(codes.shape)}"
            )
        return codes

    @torch.no_grad()
    def run(self, codes: Tensor, *, states: bool = False, handed: Mapping[str, Tensor] | None = None) -> Trace:
        """Run from rest on codes [T, N, ...] and keep every spike; with `states`, every state after each step too.

        `handed`: spikes [T, N, ...] that go on from layers in place of their own, which the trace holds.
        """
        images = self._shaped(codes).shape[1]
        spikes: dict[str, list[Tensor]] = {name: [] for name in self.order}
        kept: dict[str, list[State]] = {name: [] for name in self.order}
        now = {name: population.initial(images) for name, population in self.populations.items()}
        on = spikes | {name: list(every) for name, every in (handed or {}).items()}
        fired_by = _Fired({**on, INPUT: list(codes)}, {n: s.v for n, s in now.items()} | {INPUT: codes[0] * 0})
        sums: list[Tensor] = []
        for t in range(len(codes)):
            for name, population in self.populations.items():
                arriving = _Arriving(self._to(name), fired_by, t, population)
                if t < self.rest.get(name, 0):
                    fired = torch.zeros_like(now[name].v)
                else:
                    now[name], fired = population.step(now[name], arriving, name)
                spikes[name].append(fired)
                if states:
                    kept[name].append(now[name])
            if self.readout is not None:
                (connection,) = self._to(READOUT)
                sums.append(connection.sums(fired_by.at(connection, t)) + self.readout.bias)
        trace = Trace({name: torch.stack(s) for name, s in spikes.items()}, torch.stack(sums) if sums else None)
        if states:
            trace.membranes = {name: torch.stack([s.v for s in every]) for name, every in kept.items()}
            trace.currents = {name: torch.stack([s.i for s in every]) for name, every in kept.items()}
        return trace

    def aligned(self, codes: Tensor, *, states: bool = False) -> Trace:
        """`run`, with every layer's steps as the float network counts them: [T, N, ...] from its `latency` on.

        The network runs on without input until the last layer has had its T steps.
        """
        steps, longest = len(codes), max(0, *self.latency.values())
        trace = self.run(torch.cat([codes, codes.new_zeros((longest, *codes.shape[1:]))]), states=states)

        def cut(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: _cut(every, self.latency[name], steps) for name, every in values.items()}

        readout = None if trace.readout is None else _cut(trace.readout, self.latency[READOUT], steps)
        return Trace(cut(trace.spikes), readout, cut(trace.membranes), cut(trace.currents))

    def _to(self, target: str) -> list[Connection]:
        return [connection for connection in self.connections if connection.target == target]

    def _check(self) -> None:
        place = {INPUT: -1} | {name: index for index, name in enumerate(self.order)}
        ends = place | ({} if self.readout is None else {READOUT: len(place)})
        for connection in self.connections:
            if connection.target not in ends or connection.target == INPUT:
                raise SpecError(f"a connection leads to {connection.target!r}; there are {', '.join(self.order)}")
            for source in connection.sources:
                if source not in place:
                    raise SpecError(f"a connection comes from {source!r}; there are {', '.join(place)}")
                if not connection.delay and place[source] >= ends[connection.target]:
                    raise SpecError(
                        f"spikes from {source!r} to {connection.target!r}, which comes no later, need a delay of at "
                        "least 1 step"
                    )
        if self.readout is not None and len(self._to(READOUT)) != 1:
            raise SpecError(f"a readout needs one connection, got {len(self._to(READOUT))}")


@dataclass(frozen=True)
class _Fired:
    """Spikes of every layer and step so far, and the shape of none."""

    spikes: dict[str, list[Tensor]]
    none: dict[str, Tensor]

    def at(self, connection: Connection, t: int) -> list[Tensor]:
        """The sources' spikes that arrive in step `t`; none before a delay is over."""
        then = t - connection.delay
        return [self.spikes[source][then] if then >= 0 else self.none[source] for source in connection.sources]


@dataclass(frozen=True)
class _Arriving:
    """Delivers what arrives at a layer in step `t`."""

    connections: list[Connection]
    fired_by: _Fired
    t: int
    population: Population

    def __call__(self, i: Tensor, name: str) -> Tensor:
        rules = self.population.rules
        for connection in self.connections:
            spikes = self.fired_by.at(connection, self.t)
            if rules.deliver == "each":
                most = rules.input_spikes if INPUT in connection.sources else None
                if min(int(part.amin()) for part in spikes) < 0:
                    raise ModelError(f"spikes into {name!r} must be counts >= 0")
                i = connection.each(i, spikes, rules.state_bits, rules.current_overflow, most)
            else:
                i = i + connection.sums(spikes).view_as(i)
        return fit(i, rules.state_bits, rules.current_overflow, f"{name} (what arrives)")


def _cut(every: Tensor, late: int, steps: int) -> Tensor:
    """Steps `late` to `late + steps`; before the first there is nothing."""
    if late >= 0:
        return every[late : late + steps]
    return torch.cat([every.new_zeros((min(-late, steps), *every.shape[1:])), every[: max(0, steps + late)]])


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    *parents, last = name.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)
