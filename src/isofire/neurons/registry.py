"""Neurons known by name, isofire's own and those of other packages (entry-point group `isofire.neurons`)."""

from __future__ import annotations

from isofire.errors import SpecError
from isofire.neurons.base import Neuron
from isofire.registry import Registry


def _check(name: str, thing: object) -> type[Neuron]:
    if not (isinstance(thing, type) and issubclass(thing, Neuron)):
        raise SpecError(f"the neuron {name!r} must be a subclass of isofire.neurons.Neuron, got {thing!r}")
    return thing


NEURONS: Registry[type[Neuron]] = Registry("neuron", "isofire.neurons", _check)
"""Name -> class, as settings of models and files name it."""


def register_neuron(name: str, kind: type[Neuron]) -> None:
    """Make a class of neurons known by name, so that models built from settings can have it.

    It is called as ``kind(surrogate=..., **neuron_options)``. A package does the same for whoever installs it through
    an entry point of the group ``isofire.neurons``.

    Raises
    ------
    SpecError
        If the name is taken or no identifier, or `kind` is no subclass of `Neuron`.
    """
    NEURONS.register(name, kind)


def name_of(neuron: Neuron) -> str | None:
    """The name under which the neuron's very class is registered; None if it is not."""
    return next((name for name, kind in NEURONS.items() if kind is type(neuron)), None)
