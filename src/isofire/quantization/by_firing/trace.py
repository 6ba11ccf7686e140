"""In which order a network runs its layers, and what it gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from isofire.adapters import find_neurons, from_rest
from isofire.errors import ModelError
from isofire.neurons import Neuron
from isofire.running import by_place, evaluating, forward, hooked


class Call(NamedTuple):
    """One call of a module: its arguments, detached, the first of them by its place.

    Parameters
    ----------
    handed_on
        Of the tensors among the arguments, by their place in the flattened tree, those that the call before returned,
        by their place in what it returned: a state that the network carries from step to step, as snnTorch's and
        Norse's loops do, detached, copied or stacked on the way. Run anew, the module gets the state that it then has.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    handed_on: Mapping[int, int] = MappingProxyType({})

    @property
    def input(self) -> Tensor:
        """The first argument."""
        return self.args[0]

    def after(self, returned: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and keywords, where the call before has returned this."""
        if returned is None or not self.handed_on:
            return self.args, self.kwargs
        leaves, form = tree_flatten((self.args, self.kwargs))
        now = tree_leaves(returned)
        for place, source in self.handed_on.items():
            leaves[place] = now[source]
        return tree_unflatten(leaves, form)


class Trace(NamedTuple):
    """A network's layers in the order of their first call.

    Parameters
    ----------
    order
        Names of the layers that were asked for, of every norm, and of every layer of neurons; those inside a neuron
        before it.
    calls
        How often each was called in one forward pass: in that with the most calls.
    norms
        Neuron -> the norm that it was given and applies itself.
    """

    order: tuple[str, ...]
    calls: dict[str, int]
    norms: dict[str, str]


class Enough(Exception):
    """The calls that were waited for have been made."""


def trace(model: nn.Module, batches: Iterable[Tensor], layers: Sequence[str]) -> Trace:
    """Run inputs through the model and note what is called when; what some batches alone reach stands where they do.

    Parameters
    ----------
    layers
        Names of the convolution and linear layers that matter.

    Raises
    ------
    ModelError
        If the network fails on one of them.
    """
    watched = {name: model.get_submodule(name) for name in layers}
    neurons = find_neurons(model)
    watched |= {name: neuron for name, (neuron, _) in neurons.items()}
    norms = {module: name for name, module in model.named_modules() if isinstance(module, _NormBase)}
    watched |= {name: module for module, name in norms.items()}
    order: list[str] = []
    taken: dict[str, str] = {}
    calls: Counter[str] = Counter()
    known: list[str] = []
    most: Counter[str] = Counter()

    awaited: list[str] = []

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[name] += 1
        if name in awaited:
            # its place is known
            awaited.remove(name)
            return
        order.append(name)
        given = _by_name(module, args, kwargs)[1].get("norm")
        if given in norms:
            # as it is listened to, the neuron calls it before it charges
            taken[name] = norms[given]
            awaited.append(norms[given])
            order.insert(-1, norms[given])

    handles = (
        module.register_forward_pre_hook(partial(note, name), with_kwargs=True) for name, module in watched.items()
    )
    with hooked(handles), torch.no_grad(), evaluating(model), from_rest(model):
        for inputs in batches:
            for noted in (order, calls, awaited):
                noted.clear()
            forward(model, inputs)
            most |= calls
            for before, name in zip([None, *order], order, strict=False):
                if name not in known:
                    known.insert(0 if before is None else known.index(before) + 1, name)
    return Trace(_inner_first(known, neurons), dict(most), taken)


def _inner_first(order: Iterable[str], neurons: Iterable[str]) -> tuple[str, ...]:
    """Layers that neurons call themselves, as recurrent weights, stand before them: neurons fire by what these are."""
    known = set(neurons)
    found: list[str] = []
    for name in order:
        inside = (other for other in known if name != other and name.startswith(f"{other}." if other else ""))
        owner = next(inside, None)
        found.insert(len(found) if owner is None or owner not in found else found.index(owner), name)
    return tuple(found)


def calls_of(model: nn.Module, name: str, batches: Iterable[Tensor], expected: int = 0) -> list[list[Call]]:
    """What a forward pass of each batch gives the module `name`: one list of calls per batch, empty where a batch does
    not reach it.

    Parameters
    ----------
    expected
        Calls in one forward pass: the pass ends after the last of them. 0 runs all of it.

    Raises
    ------
    ModelError
        If no batch reaches it.
    """
    module = model.get_submodule(name)
    found: list[list[Call]] = []
    carried = _Carried()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        args, kwargs = _by_name(module, args, kwargs)
        carried.given((args, kwargs))
        found[-1].append(Call(tuple(_as_now(arg) for arg in args), {k: _as_now(v) for k, v in kwargs.items()}))
        if len(found[-1]) == expected:
            raise Enough

    def keep(_module: nn.Module, _args: object, output: Any) -> None:
        carried.returned(output)

    listening = (module.register_forward_pre_hook(note, with_kwargs=True), module.register_forward_hook(keep))
    with hooked(listening), torch.no_grad(), evaluating(model), from_rest(model):
        for inputs in batches:
            found.append([])
            carried.returned(None)
            with suppress(Enough):
                forward(model, inputs)
    if not any(found):
        raise ModelError(f"{name!r} is not called in a forward pass of {type(model).__name__}; leave it float")
    handed_on = iter(carried.handed_on())
    return [[call._replace(handed_on=next(handed_on)) for call in calls] for calls in found]


def _by_name(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The first argument by its place; the norm and the steps that one of isofire's neurons is given by their names."""
    args, kwargs = by_place(module, args, kwargs)
    if not isinstance(module, Neuron):
        return args, kwargs
    return args[:1], {**dict(zip(("norm", "repeat"), args[1:], strict=False)), **kwargs}


class _Carried:
    """Which tensors of a module's arguments, the input aside, the call before returned: told by their values.

    Two numbers may be equal by chance, as the spikes and states of a silent step are. So an argument comes from that
    which it is equal to in most calls, those aside in which all is zero and lies elsewhere.
    """

    def __init__(self) -> None:
        self._before: list[tuple[int, Tensor, Tensor]] = []
        self._calls: list[dict[int, list[int]]] = []
        self._times: Counter[tuple[int, int]] = Counter()

    def returned(self, output: Any) -> None:
        """What a call returned; None before the first."""
        leaves = enumerate(tree_leaves(output))
        # the network may write over it
        self._before = [(place, x, x.detach().clone()) for place, x in leaves if isinstance(x, Tensor)]

    def given(self, arguments: Any) -> None:
        """What the next call is given."""
        self._calls.append({})
        for place, leaf in list(enumerate(tree_leaves(arguments)))[1:]:
            if not isinstance(leaf, Tensor):
                continue
            sources = [(source, own) for source, own, copy in self._before if _equal(leaf, copy)]
            self._calls[-1][place] = [source for source, _ in sources]
            for source, own in sources:
                self._times[place, source] += bool(leaf.any()) + (leaf.data_ptr() == own.data_ptr())

    def handed_on(self) -> list[dict[int, int]]:
        """For each call, by their places: an argument, and what of the call before it is."""
        likely: dict[int, int] = {}
        for (place, source), times in sorted(self._times.items(), key=lambda item: (item[1], item[0])):
            if times:
                likely[place] = source
        return [
            {place: likely[place] for place, sources in call.items() if likely.get(place) in sources}
            for call in self._calls
        ]


def _equal(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one.detach(), other)


def _as_now(value: Any) -> Any:
    """Whatever the network writes over it later."""
    return value.detach().clone() if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) else value
