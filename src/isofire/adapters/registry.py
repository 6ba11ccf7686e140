"""Finding the spiking neurons of a model, whichever library made them, without importing any library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from isofire.adapters import libraries  # noqa: F401  registers what it holds
from isofire.adapters.base import Adapter, Layout
from isofire.adapters.compiled import uncompiled
from isofire.adapters.framework import FRAMEWORKS, Framework, loaded_frameworks
from isofire.adapters.own import OwnAdapter
from isofire.adapters.whole_batches import require_plain
from isofire.errors import ModelError, SpecError
from isofire.neurons import Neuron, PerStep
from isofire.neurons.fold import folded
from isofire.running import hooked

_REGISTERED: dict[type[nn.Module], Adapter] = {Neuron: OwnAdapter()}


def register(cls: type[nn.Module], adapter: Adapter) -> None:
    """Let isofire know a neuron class of your own, and its subclasses.

    The closest registered class counts, and comes before what the library adapters know.

    Raises
    ------
    SpecError
        If `cls` is no module class or one of torch's own, such as `nn.Module`, or `adapter` no object of a subclass of
        `Adapter`.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise SpecError(f"only a subclass of torch.nn.Module can be registered, got {cls!r}")
    if cls.__module__.partition(".")[0] == "torch":
        raise SpecError(
            f"only spiking neurons can be registered, got torch's own {cls.__name__}, whose subclasses are layers of "
            "every kind; register the class of your neurons"
        )
    if not isinstance(adapter, Adapter):
        given = adapter.__name__ if isinstance(adapter, type) else type(adapter).__name__
        raise SpecError(
            f"the adapter of {cls.__name__} must be an object of a subclass of isofire.adapters.Adapter, got {given}"
        )
    _REGISTERED[cls] = adapter


def unregister(cls: type[nn.Module]) -> None:
    """Forget a class that was registered.

    Raises
    ------
    SpecError
        If it was not.
    """
    if cls is Neuron or cls not in _REGISTERED:
        raise SpecError(f"{cls.__name__} is not registered; nothing to forget")
    del _REGISTERED[cls]


def adapter_of(module: nn.Module) -> Adapter | None:
    """The adapter of a spiking neuron; None for every other module."""
    return _adapter_among(loaded_frameworks(), module)


def _adapter_among(frameworks: list[Framework], module: nn.Module) -> Adapter | None:
    for kind in type(module).__mro__:
        if kind in _REGISTERED:
            return _REGISTERED[kind]
    return next((found for item in frameworks if (found := _asked(item, module)) is not None), None)


def _asked(framework: Framework, module: nn.Module) -> Adapter | None:
    try:
        found = framework.adapter_of(module)
    except Exception as error:
        raise _no_adapter(framework, module, f"failed: {type(error).__name__}: {error}") from error
    if found is not None and not isinstance(found, Adapter):
        raise _no_adapter(framework, module, f"must give an object of a class of Adapter or None, got {found!r}")
    return found


def _no_adapter(framework: Framework, module: nn.Module, what: str) -> ModelError:
    return ModelError(
        f"adapter_of() of the framework {framework.title} ({type(framework).__module__}), given a "
        f"{type(module).__name__}, {what}; mend or uninstall its package"
    )


def find_neurons(model: nn.Module) -> dict[str, tuple[nn.Module, Adapter]]:
    """Every spiking neuron by module name, in the model's order, with its adapter; one under two names has the first.

    What lies inside a neuron is part of it.

    Raises
    ------
    ModelError
        If a neuron lies inside a `PerStep`.
    """
    found: dict[str, tuple[nn.Module, Adapter]] = {}
    folds: set[nn.Module] = set()
    inside: set[nn.Module] = set()
    frameworks = loaded_frameworks()
    for name, module in model.named_modules():
        if isinstance(module, PerStep):
            folds.update(part for _, part in module.folding())
        if module not in inside and (adapter := _adapter_among(frameworks, module)) is not None:
            if module in folds:
                raise folded(name, module)
            found[name] = module, adapter
            inside.update(module.modules())
    return found


def is_integer(model: nn.Module) -> bool:
    """Whether the model's neurons are whole numbers already."""
    return any(adapter.is_integer for _, adapter in find_neurons(model).values())


def refuse_integers(model: nn.Module) -> None:
    """Raise ModelError if the model's neurons are whole numbers already."""
    if is_integer(model):
        raise ModelError(
            "this network is one of whole numbers, with nothing left to quantize and no bits or operations to count; "
            "give the network that it was lowered from (its resources: network.mapping.resources; what "
            "each step to a chip does: isofire.integer.steps_of)"
        )


def batch_first(model: nn.Module) -> bool:
    """Whether the model's neurons take [N, T, ...]."""
    return any(adapter.layout(neuron) is Layout.BATCH_FIRST for neuron, adapter in find_neurons(model).values())


def no_neurons(model: nn.Module) -> ModelError:
    """The error for a model in which nothing was found."""
    known = ", ".join(dict.fromkeys(framework.title for framework in FRAMEWORKS.values()))
    return ModelError(
        f"a model needs spiking neurons, got {type(model).__name__} without any that isofire knows (its own and those "
        f"of {known}); for a class of your own see isofire.adapters.register"
    )


def reset_(model: nn.Module) -> None:
    """Bring every neuron, and what else of a library's layers keeps a state, to rest."""
    frameworks = loaded_frameworks()
    for module in model.modules():
        if (adapter := _adapter_among(frameworks, module)) is not None:
            adapter.reset(module)
    for framework in frameworks:
        framework.reset_others(model)


@contextmanager
def from_rest(model: nn.Module) -> Iterator[None]:
    """Every forward call of the model inside starts at rest, and nothing of the last one is left at the end.

    A compiled model runs uncompiled, because who starts from rest listens to hooks or observers.
    """
    handles = [model.register_forward_pre_hook(_reset_before, prepend=True), *check_batches(model)]
    try:
        with hooked(handles), uncompiled():
            yield
    finally:
        reset_(model)


@contextmanager
def heard(neurons: Mapping[str, tuple[nn.Module, Adapter]], take: Callable[[str, Any], None]) -> Iterator[None]:
    """`take` gets the name of a neuron and its spikes, `[T, N, ...]`, whenever one of these is called."""

    def listening(name: str, adapter: Adapter) -> Callable[..., None]:
        def hook(neuron: nn.Module, _inputs: Any, output: Any) -> None:
            require_plain(name, output)
            take(name, adapter.spikes(neuron, output))

        return hook

    with hooked(neuron.register_forward_hook(listening(name, adapter)) for name, (neuron, adapter) in neurons.items()):
        yield


def check_batches(model: nn.Module) -> list[RemovableHandle]:
    """Hooks that tell a neuron built for batches of another size, before its library fails to reshape its inputs, or
    folds them into other steps without a word."""
    neurons = find_neurons(model).items()
    built = {name: (neuron, images) for name, (neuron, kind) in neurons if (images := kind.batch_size(neuron))}
    if not built:
        return []
    given: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        given[:] = [len(inputs[0])] if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim else []

    def check(name: str, images: int, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        rows = next((len(x) for x in (*inputs, *options.values()) if isinstance(x, Tensor) and x.ndim), images)
        # a network may be given rows [N * T, ...] itself
        if rows % images or (given and given[0] not in (images, rows)):
            raise ModelError(
                f"neuron {name!r} was built for batches of {images} images, but sees {rows} rows [N * T, ...]"
                f"{f' of a batch of {given[0]}' if given else ''}; give the data as a list of batches of {images} "
                "images, or build the neuron for its number of steps instead (Sinabs' num_timesteps), which takes any "
                "batch"
            )

    return [
        model.register_forward_pre_hook(note, prepend=True),
        *(
            neuron.register_forward_pre_hook(partial(check, name, images), with_kwargs=True)
            for name, (neuron, images) in built.items()
        ),
    ]


def _reset_before(model: nn.Module, _inputs: object) -> None:
    reset_(model)


def framework_of(neuron: nn.Module) -> Framework | None:
    """The library that a neuron is of; None for isofire's own and registered classes, and what is no neuron."""
    if any(kind in _REGISTERED for kind in type(neuron).__mro__):
        return None
    return next((item for item in loaded_frameworks() if _asked(item, neuron) is not None), None)
