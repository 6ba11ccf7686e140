"""What the rest of isofire needs to know of a kind of spiking neuron, whichever library it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.neurons.membrane import Placement
from isofire.quantizers import NeuronFacts


class Layout(Enum):
    """Axes of what a neuron takes and gives in one call."""

    TIME_FIRST = "[T, N, ...]"
    BATCH_FIRST = "[N, T, ...]"
    STEP = "[N, ...], one call a step"


class MembraneMixin:
    """Mixed into the class of a foreign neuron while it has a membrane quantizer, as `membrane`.

    The mixed class keeps the name of the neuron's own class and is a subclass of it, so `isinstance`, deep copies and
    the library's own tools go on as before; `Adapter.detach` gives the own class back.
    """

    membrane: MembraneQuantizer
    transient: tuple[str, ...] = ()
    """Attributes of one forward pass, which are not copied or pickled."""


class Adapter(ABC):
    """Says how one kind of neuron is run, counted and quantized. One object serves every neuron of the kind.

    A library's own files below `isofire.adapters` hold its adapters; a neuron class of your own gets one through
    `isofire.adapters.register`. Three methods are enough for a neuron that keeps its state itself, fires once a step
    and is reset to 0; others override `v_reset` or `several` too.
    """

    fires_at_threshold: bool = True
    """Whether a membrane that equals the threshold fires (>=) or not (>)."""
    is_integer: bool = False
    """Whether its states are whole numbers already, so that there is nothing to quantize."""

    def __deepcopy__(self, memo: dict) -> Adapter:
        # it says how a kind of neuron works; copies of a neuron have the same
        return self

    @abstractmethod
    def layout(self, neuron: nn.Module) -> Layout:
        """Axes of its inputs and outputs."""

    @abstractmethod
    def threshold(self, neuron: nn.Module) -> Tensor:
        """Firing threshold in the units of the membrane, of any shape."""

    def has_threshold(self, neuron: nn.Module) -> bool:
        """Whether there is one: what weighs all steps at once and fires above 0, as SpikingJelly's PSN, has none."""
        try:
            self.threshold(neuron)
        except AttributeError:
            return False
        return True

    @abstractmethod
    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        """A mixin of `MembraneMixin` whose methods replace those of the neuron's class and pass the membrane potential
        through `self.membrane`: between charge and fire if `self.membrane.placement` is "pre_fire", after the reset if
        it is "post_reset"; once a step.
        """

    def v_reset(self, neuron: nn.Module) -> float | None:
        """Value of a hard reset, 0 unless the kind says another; None for a soft one, which subtracts the threshold."""
        return 0.0

    def several(self, neuron: nn.Module) -> bool:
        """Whether a neuron may fire several spikes in a step."""
        return False

    def facts(self, neuron: nn.Module) -> NeuronFacts:
        """What a membrane method may know of the neuron."""
        return NeuronFacts(
            kind=type(neuron).__name__,
            thresholds=tuple(self.threshold(neuron).detach().flatten().unique().tolist()),
            v_reset=self.v_reset(neuron),
            fires_at_threshold=self.fires_at_threshold,
            several=self.several(neuron),
        )

    def counterpart(self, neuron: nn.Module) -> Neuron | str:
        """isofire's neuron with the same spikes, for `isofire.adapters.as_isofire`; or why there is none."""
        return f"no neuron of isofire's is known to fire as {type(neuron).__name__} does"

    def refusal(self, neuron: nn.Module, placement: Placement) -> str | None:
        """Why the membrane cannot be quantized there, as half a sentence, with a cure other than leaving it float,
        which the error adds; None if it can. An adapter that refuses both places needs no host: spikes are counted, and
        weights quantized, all the same."""
        return None

    def reset(self, neuron: nn.Module) -> None:
        """Bring the neuron to rest, forgetting the last batch; nothing to do for one that starts at rest each call."""
        return None

    def batch_size(self, neuron: nn.Module) -> int | None:
        """Images a batch that the neuron was built for, and its inputs' rows are a multiple of; None for any number."""
        return None

    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        """Spikes [T, N, ...] (a step has T = 1) in what the neuron returned: counts, so possibly above 1."""
        first = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(first, Tensor) or not first.ndim:
            return first
        match self.layout(neuron):
            case Layout.STEP:
                return first.unsqueeze(0)
            case Layout.BATCH_FIRST:
                return first.transpose(0, 1) if first.ndim > 1 else first
            case Layout.TIME_FIRST:
                return first
            case other:
                raise _no_layout(self, other)

    def drive(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        """Spikes [T, N, ...] of the neuron, from rest, for currents [T, N, ...]; for the self-test."""
        self.reset(neuron)
        match self.layout(neuron):
            case Layout.STEP:
                spikes = torch.cat([self.spikes(neuron, neuron(step)) for step in currents])
            case Layout.BATCH_FIRST:
                spikes = self.spikes(neuron, neuron(currents.transpose(0, 1)))
            case Layout.TIME_FIRST:
                spikes = self.spikes(neuron, neuron(currents))
            case other:
                raise _no_layout(self, other)
        self.reset(neuron)
        return spikes

    def shape(self, neuron: nn.Module) -> tuple[int, ...]:
        """A neuron shape that its parameters allow, without T and N; for the self-test."""
        return (3,)

    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        """What each neuron keeps from one step to the next: its membrane, and what there is of synaptic currents and
        adaptation; for its memory."""
        return ("membrane",)

    @property
    def tells_states(self) -> bool:
        """Whether `states` was said of these neurons: by isofire of those that it knows, by the adapter of others."""
        return type(self).states is not Adapter.states or type(self).__module__.partition(".")[0] == "isofire"

    def held(self, neuron: nn.Module) -> Tensor | None:
        """One of its states as the last call left it, [N, ...], if there are more of them than spikes, as where a
        neuron pools what it keeps before it fires; None where each spike has a state."""
        return None

    def lost_in_copies(self, neuron: nn.Module) -> tuple[str, ...]:
        """Constants, by attribute, that a `__deepcopy__` of the library's own sets back to what a new neuron has."""
        return ()

    def put_back(self, neuron: nn.Module, twin: nn.Module) -> None:
        """Give a deep copy of the neuron what the library's own has lost."""
        for name in self.lost_in_copies(neuron):
            setattr(twin, name, getattr(neuron, name))

    def begin_counting(self, neuron: nn.Module) -> None:
        """A recorder starts to listen."""
        return None

    def end_counting(self, neuron: nn.Module) -> None:
        """A recorder stops listening."""
        return None

    def summed(self, neuron: nn.Module) -> Tensor | None:
        """Spikes of the last call that the neuron itself has summed over T, uint8 [N, ...]; None if it has not."""
        return None

    def membrane(self, neuron: nn.Module) -> MembraneQuantizer | None:
        """The quantizer of its membrane, if it has one."""
        return neuron.membrane if isinstance(neuron, MembraneMixin) else None

    def attach(self, neuron: nn.Module, membrane: MembraneQuantizer) -> None:
        """Give the neuron a membrane quantizer, or another one.

        Raises
        ------
        ModelError
            If the neuron has an attribute `membrane` of its own.
        """
        if not isinstance(neuron, MembraneMixin):
            if "membrane" in {
                *neuron.__dict__,
                *neuron._modules,
                *neuron._parameters,
                *neuron._buffers,
                *dir(type(neuron)),
            }:
                raise ModelError(
                    f"{type(neuron).__name__} has an attribute 'membrane' of its own, where the membrane's quantizer "
                    "belongs; rename it"
                )
            neuron.__class__ = _hosting(type(neuron), self.host(neuron), self)
        neuron.membrane = membrane  # pyright: ignore[reportAttributeAccessIssue]

    def detach(self, neuron: nn.Module) -> None:
        """Take the membrane quantizer off; the neuron is again of its own class and computes what it did before."""
        if isinstance(neuron, MembraneMixin):
            del neuron.membrane
            for name in neuron.transient:
                neuron.__dict__.pop(name, None)
            own: Any = own_class(neuron)
            neuron.__class__ = own


def common_shape(parameters: Iterable[Tensor]) -> tuple[int, ...]:
    """The neuron shape that parameters allow together; of single numbers any, here three neurons."""
    shape = torch.broadcast_shapes(*(parameter.shape for parameter in parameters))
    return tuple(shape) if shape.numel() > 1 else (3,)


def _no_layout(adapter: Adapter, given: object) -> ModelError:
    return ModelError(
        f"layout() of {type(adapter).__qualname__} must give a Layout ({', '.join(map(str, Layout))}), got {given!r}"
    )


_HOSTING: dict[tuple[type[nn.Module], type[MembraneMixin]], type[nn.Module]] = {}
_OWN: dict[type, type[nn.Module]] = {}
"""Class that hosts -> the library's that it was made of."""


def own_class(neuron: nn.Module) -> type[nn.Module]:
    """The library's class of a neuron, whether it hosts a membrane quantizer or not; torch.export may look at either
    through a class that it derives from it."""
    return next((_OWN[kind] for kind in type(neuron).__mro__ if kind in _OWN), type(neuron))


def _hosting(own: type[nn.Module], host: type[MembraneMixin], adapter: Adapter) -> type[nn.Module]:
    """The neuron's class with the mixin before it: one class a pair, whichever adapter object asks."""

    def reduce(self: Any, protocol: Any) -> Any:
        # the class has the name of the library's, under which pickle would find that one
        state = {key: value for key, value in self.__getstate__().items() if key not in self.transient}
        return _blank, (own, adapter), state

    if (own, host) not in _HOSTING:
        names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
        kind = type(own.__name__, (host, own), {**names, "__reduce_ex__": reduce})
        _HOSTING[own, host], _OWN[kind] = kind, own
    return _HOSTING[own, host]


def _blank(own: type[nn.Module], adapter: Adapter) -> nn.Module:
    """A neuron of the class that hosts a membrane quantizer, still without its state; for copies and pickles."""
    kind: Any = _hosting(own, adapter.host(own.__new__(own)), adapter)
    return kind.__new__(kind)
