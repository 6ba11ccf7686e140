"""What is known of tensors inside a neuron, where all is state but for its weights and what comes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from isofire.firing.cost.events.call import Call, name_of
from isofire.firing.cost.events.events import EventMemory, Events, Source, counted
from isofire.firing.cost.events.propagation import propagate
from isofire.firing.cost.following.stored import Stored
from isofire.firing.cost.following.written_out import WrittenOut
from isofire.running import tensors_in

RECURRENCE = "recurrence inside the neuron"
"""What stands in `Events.through` for spikes that a neuron feeds back to itself before it gives them."""


class Inside:
    """Reads and writes the memory of one forward pass for the operations of neurons.

    Parameters
    ----------
    memory, stored, written_out
        Of the pass.
    made_of
        Names of the model's tensors that a tensor was made of.
    """

    def __init__(
        self, memory: EventMemory, stored: Stored, written_out: WrittenOut, made_of: Callable[[Tensor], frozenset[str]]
    ) -> None:
        self._memory, self._stored, self._written_out, self._made_of = memory, stored, written_out, made_of

    def source(self, x: Tensor) -> Source:
        """All is state, but for weights and for what the image alone brings."""
        found = self._memory.source(x)
        return found if found in (Source.WEIGHTS, Source.INPUT) else Source.SPIKES

    def events(self, x: Tensor) -> Events:
        """Also of a neuron's own spikes that it feeds back to itself before it gives them."""
        events = self._memory.events(x)
        if events.count is None and self.source(x) == Source.SPIKES and not x.is_complex():
            # one of -1 is one
            own = counted(x, RECURRENCE, frozenset((RECURRENCE,)))
            return events if own.count is None else replace(own, forms={})
        return events

    def see(self, func: Any, args: Any, options: Any, output: Any, module: str) -> None:
        """An operation of a neuron: keeps weights that it makes of its parameters, inputs of several steps that it
        weighs by elements, and what comes to it that it puts beside its state."""
        name, writes = name_of(func), func._schema.is_mutable
        if name == "mul":
            self._written_out.scale_inside(args, output, self.source)
        given = tensors_in(args[1:] if writes and name == "copy" else args, options)
        made = bool(given) and all(self._memory.source(x) == Source.WEIGHTS for x in given)
        for x in (x for x in tensors_in(output) if not self._stored.has(x)):
            if made and (writes or not self._memory.known(x)):
                self._memory.write(x, Source.WEIGHTS, made_of=frozenset[str]().union(*map(self._made_of, given)))
            elif writes and self._memory.source(x) == Source.WEIGHTS:
                # a state that began as a parameter
                self._memory.write(x, Source.SPIKES)
        if name == "cat" and not writes and Source.WEIGHTS not in map(self._memory.source, args[0]):
            self._put_beside(func, args, options, output, module)

    def _put_beside(self, func: Any, args: Any, options: Any, output: Tensor, module: str) -> None:
        def source(x: Tensor) -> Source:
            found = self.source(x)
            # a state at rest is what it is outside of neurons, a constant
            return found if found == Source.INPUT or bool(x.any()) else Source.CONSTANT

        found = propagate(Call("cat", func, args, options, output, self.events, source, module))
        if isinstance(found, Events) and found.count is not None:
            self._memory.write(output, Source.SPIKES, found)
