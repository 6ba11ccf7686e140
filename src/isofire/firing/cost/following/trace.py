"""Following a forward pass operation by operation: every place where something is multiplied with weights.

Modules are not asked what they are. A convolution module, a function call with a parameter, attention, a recurrent
cell and a layer written out by hand all come down to torch's own operations, and those are seen here, with the events
that arrive at them. Neurons are taken as a whole: what goes on in them is their own arithmetic, but for recurrent
weights, which are synapses like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.adapters import Adapter, Fired, Layout, at_one_place, from_rest, require_plain
from isofire.firing.cost.events.call import Call, is_new, name_of
from isofire.firing.cost.events.events import (
    LEVELS,
    NONE,
    EventMemory,
    Events,
    Source,
    counted,
)  # fmt: skip
from isofire.firing.cost.events.operations import CONVOLUTIONS, PLACED
from isofire.firing.cost.events.propagation import loses_spikes, propagate
from isofire.firing.cost.events.ways import Way
from isofire.firing.cost.following.contacts import Arrival, Contact, arrivals, one_to_one
from isofire.firing.cost.following.inside import Inside
from isofire.firing.cost.following.own_states import OwnStates
from isofire.firing.cost.following.position import Position
from isofire.firing.cost.following.same_padding import SamePadding
from isofire.firing.cost.following.stored import Stored, lies_within
from isofire.firing.cost.following.unknown_spikes import UnknownSpikes, is_weighed, without_makers
from isofire.firing.cost.following.uses import Leaving, Uses, not_known, work_not_counted
from isofire.firing.cost.following.written_out import WrittenOut
from isofire.firing.record import spiking_adapters
from isofire.running import OfOnePass, by_parts, tensors_in

ACTIVATIONS = "(activations)"
_TURNS = frozenset(("transpose", "t", "swapaxes", "swapdims", "squeeze", "unsqueeze", "as_strided", "detach"))
"""In place (`x.unsqueeze_(0)`) they write nothing: the memory and what is known of it stay."""


_OF_ANY_SIZE = frozenset(("nonzero", "masked_select", "unique", "_unique2", "unique_dim"))
"""What they give has as many elements as the numbers say."""
_BY_PLACES = frozenset((
    "index", "index_select", "gather", "take", "index_put", "index_add", "index_copy", "scatter", "scatter_add",
    "masked_scatter",
))  # fmt: skip


def _is_of_elements(masks: Sequence[Tensor], x: Tensor) -> bool:
    return len(masks) == 1 and masks[0].shape == x.shape and x.ndim > 1 and x.shape[-1] > 1


@contextmanager
def _differentiable() -> Iterator[None]:
    """What is done to events can be differentiated, while the network itself runs without gradients."""
    # leaving inference mode lets autograd see operations again, which an operation's handler is below of
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Trace(OfOnePass, TorchDispatchMode):
    """Tells `contact` of every contact, and `fired` of every call of a neuron.

    Parameters
    ----------
    model
        The network; `following` runs it from rest.
    contact
        Called with each contact as it happens.
    fired
        Called with a neuron's name and what it gave; gives the events of its spikes.
    """

    def __init__(
        self,
        model: nn.Module,
        contact: Callable[[Contact], None],
        fired: Callable[[str, Fired], Events],
    ) -> None:
        super().__init__()
        self.model, self._contact, self._fired = model, contact, fired
        self.neurons = spiking_adapters(model)
        self.unknown: dict[tuple[str, str], None] = {}
        """(module, operation) of what no rule knows."""
        self.mixed: dict[str, None] = {}
        """Modules in which spikes beside levels are made real with them."""
        self.by_data = False
        """Whether images decide in the pass which rows of a tensor are taken, or their order."""
        self.uses = Uses()
        self.own_states = OwnStates()
        self.unknown_spikes = UnknownSpikes()
        self.neuron_calls = 0
        self.change: Callable[[str, Tensor, bool], None] | None = None
        """Called with each place outside of neurons that sees something of the image, what it gives, which it may
        write into, and whether it sees the image alone."""
        self._memory = EventMemory()
        self._paused = False
        self._position = Position(model)
        self._stored = Stored(model)
        self._written_out = WrittenOut()
        self._same_padding = SamePadding()
        self._inside = Inside(self._memory, self._stored, self._written_out, self.made_of)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    @contextmanager
    def following(self) -> Iterator[Trace]:
        """Hooks on the model, and none left behind; forward passes belong into `run`."""
        self._stored = Stored(self.model)
        fast = torch.backends.mha.get_fastpath_enabled()
        with ExitStack() as stack:
            for name, (neuron, adapter) in self.neurons.items():
                stack.callback(neuron.register_forward_pre_hook(self._entering(name)).remove)
                stack.callback(neuron.register_forward_hook(self._leaving(name, adapter)).remove)
            neurons = {id(neuron) for neuron, _ in self.neurons.values()}
            for module in self.model.modules():
                # a hooked batch norm would not be fused into its neuron, which rounds otherwise; scripts take no hooks
                if isinstance(module, _BatchNorm | torch.jit.ScriptModule) or id(module) in neurons:
                    continue
                stack.callback(module.register_forward_pre_hook(self._position.enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._position.leave, always_call=True).remove)
            # the fused encoder layer hides its products
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            stack.enter_context(from_rest(self.model))
            stack.enter_context(at_one_place(self.model, self.neurons))
            yield self

    def pause(self, on: bool) -> None:
        """While on, operations are not followed."""
        self._paused = on

    def is_stored(self, weight: Tensor | None) -> bool:
        """Whether it is a parameter or buffer of the model, or a view of one."""
        return weight is not None and self._stored.has(weight)

    def whole(self, weight: Tensor) -> Tensor:
        """The tensor of the model that weights are a view of; themselves where they are none."""
        return next((tensor for _, tensor in self._stored.holders(weight)), weight)

    def made_of(self, x: Tensor) -> frozenset[str]:
        """Names of the model's tensors that it is, or was made of: parameters, buffers, tensors of the model's own."""
        return self._stored.names(x, self._memory.made_of(x))

    def run(self, inputs: Tensor, forward: Callable[[nn.Module, Tensor], Any]) -> Any:
        """One forward pass."""
        self._memory, self.neuron_calls = EventMemory(), 0
        self._inside = Inside(self._memory, self._stored, self._written_out, self.made_of)
        self._paused = False
        self._position.clear()
        self._written_out.clear()
        self.uses.clear()
        self.by_data = False
        self.unknown_spikes = UnknownSpikes()
        self.own_states.clear()
        for name, tensor in self._stored.named:
            self._memory.write(tensor, Source.WEIGHTS, made_of=frozenset((name,)))
        self._memory.write(inputs, Source.INPUT, counted(inputs, LEVELS))
        with torch.no_grad(), Leaving(self._left), self._same_padding, self:
            return forward(self.model, inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if self._paused:
            return func(*args, **options)
        parts = by_parts(self, func, args, options)
        if parts is not NotImplemented:
            return parts
        name, writes = name_of(func), func._schema.is_mutable
        if self._position.neuron is not None:
            output = func(*args, **options)
            self._same_padding.see(name, args, output)
            with _differentiable():
                self._arrive(name, args, output, self._inside.source)
                self._inside.see(func, args, options, output, self._position.module)
            self._memory.see_inside(tensors_in(args, options), tensors_in(output))
            return output
        if self.uses.waiting:
            self._see_what_enters(args, options)
        if name == "_local_scalar_dense" and self._memory.source(args[0]) >= Source.INPUT:
            self.uses.read_by = "item"
        self.by_data = self.by_data or self._arranges(name, args)
        placed = name in PLACED
        before = self._copies(args, placed) if writes and (placed or torch.Tag.pointwise in func.tags) else args
        source = self._source(name, writes, args, options)
        output = func(*args, **options)
        self._same_padding.see(name, args, output)
        tensors = tensors_in(output)
        if (writes and name not in _TURNS) or not all(map(self._memory.known, tensors)):
            with _differentiable():
                known = self._memory.events, self._memory.source, self._position.module
                self._follow(Call(name, func, before, options, output, *known), source, tensors)
        return output

    def _arranges(self, name: str, args: Any) -> bool:
        if name not in _OF_ANY_SIZE and name not in _BY_PLACES:
            return False
        if name in ("index", "index_put"):
            places = [x for x in args[1] if x is not None]
            masks = all(x.dtype == torch.bool for x in places)
            if masks and ((name == "index_put" and args[2].numel() == 1) or _is_of_elements(places, args[0])):
                # a mask that writes one number moves nothing, and neither does one that takes single numbers of rows
                return False
        given = tensors_in(args)
        moving = [x for x in given if self._memory.source(x) >= Source.INPUT]
        numbers = [x.is_floating_point() for x in moving]
        # places that Python chose, once it has read what images made
        chosen = self.uses.read_by is not None and any(
            not x.is_floating_point() and self._memory.source(x) == Source.CONSTANT for x in given
        )
        return bool(moving) and (name in _OF_ANY_SIZE or (any(numbers) and (chosen or not all(numbers))))

    def _source(self, name: str, writes: bool, args: Any, options: Any) -> Source:
        """Of the result: the highest of what it is made of."""
        if writes and name in ("fill", "zero", "copy"):
            return self._memory.source(args[1]) if name == "copy" else Source.CONSTANT
        if is_new(name):
            return Source.CONSTANT
        return max(map(self._memory.source, tensors_in(args, options)), default=Source.CONSTANT)

    def _copies(self, args: Any, placed: bool) -> Any:
        """What is written in place, as it was."""
        first = args[0]
        if not isinstance(first, Tensor) or (self._memory.source(first) < Source.INPUT and not placed):
            return args
        copy = first.clone()
        with _differentiable():
            known = self._memory.source(first), self._memory.events(first)
            self._memory.write(copy, *known, ways=self._memory.ways(first))
        return (copy, *args[1:])

    def _follow(self, call: Call, source: Source, outputs: list[Tensor]) -> None:
        found: Events | list[Events] = NONE
        given = tensors_in(call.args, call.options)
        made_of = frozenset[str]().union(*map(self.made_of, given))
        learned = self._stored.learned(made_of)
        ways, firing, places = dict[Any, Way](), dict[Any, Way](), dict[Any, Way]()
        if sites := self._arrive(call.name, call.args, call.output, self._memory.source):
            self.uses.counted |= learned
            ways = self.own_states.through(sites[0], call.place, map(self._memory.ways, given))
        elif source >= Source.INPUT:
            straight, less = self._written_out.straight_through(call) or (None, None)
            found = straight or propagate(call)
            came = list(map(self._memory.ways, given))
            firing, places = self.unknown_spikes.see(call, found, list(zip(given, came, strict=True)), less)
            ways = self.own_states.after(call, list(map(without_makers, came)))
            if loses_spikes(call, found):
                self.mixed[self._position.module] = None
            if unknown := not_known(call):
                self.unknown[self._position.module, unknown] = None
            elif learned and work_not_counted(call):
                self.uses.lose(learned, call.name)
            if work := self._written_out.works(call, found, self._stored):
                for weight in work[0]:
                    held = frozenset(name for name, _ in self._stored.holders(weight))
                    self.uses.lose(self._stored.learned(self.made_of(weight)) or held, work[1])
            self._written_out.keep(call)
            self._tell(self._written_out.each_with_each(call), self._memory.source)
        elif source == Source.WEIGHTS:
            self.uses.see_parts(call, self._stored.named)
        events = found if isinstance(found, list) else [found, *[NONE] * len(outputs)]
        for tensor, item in zip(outputs, events, strict=False):
            # a mask made of a buffer is folded into the weights that are 0 by it
            names = learned if tensor.dtype == torch.bool else made_of
            its = firing if tensor.is_floating_point() else places
            made = names if source == Source.WEIGHTS else frozenset[str]()
            self._memory.write(tensor, source, item, made, {**ways, **its})

    def _left(self, x: Tensor, how: str) -> None:
        if self._paused or self._position.neuron is not None:
            return
        if self._memory.source(x) == Source.WEIGHTS:
            self.uses.lose(self._stored.learned(self.made_of(x)), f"{how}(), outside of torch")
        elif self._memory.source(x) >= Source.INPUT:
            self.uses.leave(self._position.module, how)
            self.unknown_spikes.leave(self._position.module, how, self._memory.source(x), self._memory.ways(x))

    def _see_what_enters(self, args: Any, options: Any) -> None:
        """What no operation made, after values have left torch, may be made of them."""
        for x in tensors_in(args, options):
            if x.numel() > 1 and not self._memory.known(x):
                self.uses.enter()
                self._memory.write(x, Source.SPIKES, ways=self.unknown_spikes.enter(x))

    def _arrive(self, name: str, args: Any, output: Any, source: Callable[[Tensor], Source]) -> list[str]:
        """The weights that the operation multiplies with, "" for activations; tells of it."""
        neuron = self._position.neuron
        if neuron is not None and name == "mul":
            module = self._position.module
            own = module != neuron and module.startswith(f"{neuron}." if neuron else "")
            found = one_to_one(args, output, lambda x: own and self.is_stored(x))
        elif any(isinstance(x, Tensor) and x.layout is not torch.strided for x in args):
            found = None
        else:
            found = arrivals(name, args, output, source) or self._written_out.summed_up(name, args)
        # a weight made of two is no layer
        found = [
            self._same_padding.within(item) for item in found or () if not item.perhaps or self.is_stored(item.weight)
        ]
        if neuron is not None:
            if name in CONVOLUTIONS and args[1].shape[:2] == (args[8], 1):
                # a leak of each channel's own, over all steps at once
                found = [item for item in found if item.weight is not None]
            # a neuron that looks back over some steps lays its weights out over all, with 0 for the rest
            found = [replace(item, sparse=not self.is_stored(item.weight)) for item in found]
        self._tell(found, source)
        if self.change is not None and neuron is None and isinstance(output, Tensor):
            with torch.no_grad():
                for item in found:
                    if item.x is None or self._sees_the_image(item.x, source):
                        alone = item.x is not None and source(item.x) == Source.INPUT
                        self.change(self._site(item.weight), output, alone)
        return ["" if item.weight is None else self._site(item.weight) for item in found if not item.perhaps]

    def _sees_the_image(self, x: Tensor, source: Callable[[Tensor], Source]) -> bool:
        """Whether something that comes from the image alone is in it."""
        if source(x) < Source.SPIKES:
            return True
        count = self._memory.events(x).count
        return count is not None and bool(count.isinf().any())

    def _tell(self, found: list[Arrival], source: Callable[[Tensor], Source]) -> None:
        neuron = self._position.neuron
        for item in found:
            events, makers, weighed = NONE, frozenset[str](), False
            if item.x is not None:
                events, ways = self._memory.events(item.x), self._memory.ways(item.x)
                makers, weighed = self.unknown_spikes.arrive(item.x, events, ways), is_weighed(ways)
                events = events if neuron is None else self._inside.events(item.x)
            origin = Source.SPIKES if item.x is None else source(item.x)
            self._contact(
                Contact(
                    self._site(item.weight),
                    item,
                    events,
                    max(origin, Source.INPUT),
                    self.neuron_calls,
                    self._position.lead,
                    item.x is not None and origin < Source.INPUT,
                    neuron is not None,
                    weighed,
                    makers,
                )
            )

    def _site(self, weight: Tensor | None) -> str:
        module = self._position.module
        if weight is None:
            return f"{module} {ACTIVATIONS}".strip()
        names = [name for name, _ in self._stored.holders(weight)]
        if not names:
            return self._stored.place_of_made(self.made_of(weight), module)
        name = next((item for item in names if item.rpartition(".")[0] == module), names[0])
        owner, _, own = name.rpartition(".")
        return owner if own == "weight" and owner else name

    def _entering(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            self._position.enter_neuron(name)

        return hook

    def _leaving(self, name: str, adapter: Adapter) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            require_plain(name, output)
            self._paused = True
            with _differentiable():
                fired = Fired(module, adapter, output)
                spikes, events = fired.values, self._fired(name, fired)
                tensors = tensors_in(output)
                self._memory.leave_neuron()
                self._written_out.leave_neuron()
                # a state may hold the spikes themselves, or a step of them
                for tensor in (x for x in tensors if x is not spikes and not lies_within(x, spikes)):
                    self._memory.write(tensor, Source.SPIKES)
                self._memory.write(spikes, Source.SPIKES, events)
            self._paused = False
            self._position.leave_neuron()
            self.neuron_calls += 1
            if adapter.layout(module) is Layout.STEP:
                self.own_states.fired(name)

        return hook
