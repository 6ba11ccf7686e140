"""Neurons from plain settings, so that a model can be described in JSON and built again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from isofire.errors import SpecError
from isofire.neurons import NEURONS, Neuron, surrogate


def neuron_factory(
    name: str, options: dict[str, Any], surrogate_name: str, alpha: float | None
) -> Callable[[], Neuron]:
    """A function that makes one layer of neurons.

    Raises
    ------
    SpecError
        If the neuron, the surrogate or an option is unknown.
    """
    kind = cast(Callable[..., Neuron], NEURONS[name])
    slope = surrogate(surrogate_name, alpha)

    def make() -> Neuron:
        try:
            return kind(surrogate=slope, **options)
        except TypeError as error:
            raise SpecError(f"neuron_options for {name!r}: {error}") from error

    make()
    return make
