"""Limits that a chip's file may give: their names, which are numbers of each core, and what goes with what."""

from __future__ import annotations

from collections.abc import Mapping

from isofire.conversion import MisfitError, unknown_key

Limit = int | tuple[int, ...]

_MAY_BE_NONE = {"padding", "bias_memory", "recurrent_weights"}
CORE_MEMORIES = ("kernel_memory", "neuron_memory")
"""Cores of different sizes, which take a layer each."""
_ONE_OF = ("stride", "pool")
"""One number, the largest there is, or a list of those that there are."""
_SHARED_OUT = ("neurons_a_core", "synapse_bytes_a_core", "axons_in")
"""Of cores of one size, over which a layer is spread."""
LIMITS = (
    "inputs", "hidden", "outputs", "synapses", "fan_out", "hidden_reached", "hidden_read", "recurrent_weights", "cores",
    "destinations", "input_size", "output_size", "channels", "kernel", "square", "padding", "stride",
    "pool", "groups", "dilation", "bias_memory", *CORE_MEMORIES, *_SHARED_OUT, "axons_out", "thresholds_a_core",
)  # fmt: skip


def check_names(limits: Mapping[str, Limit]) -> None:
    """Every limit known, of its kind and size, and none that leaves another without meaning.

    Raises
    ------
    MisfitError
        If one is not.
    """
    for name, value in limits.items():
        if name not in LIMITS:
            raise unknown_key(name, LIMITS, "limits")
        if name not in _ONE_OF and isinstance(value, int) == (name in CORE_MEMORIES):
            wanted = "a list, a number for each core" if name in CORE_MEMORIES else "one number"
            raise MisfitError(f"limits.{name}", f"must be {wanted}, got {_shown(value)}")
        least = 0 if name in _MAY_BE_NONE else 1
        if min(_numbers(value), default=-1) < least:
            raise MisfitError(
                f"limits.{name}", f"must be at least {least}, got {_shown(value)}", "; leave it out where there is none"
            )
    _check_cores(limits)


def _check_cores(limits: Mapping[str, Limit]) -> None:
    given = [name for name in CORE_MEMORIES if name in limits]
    shared = [name for name in _SHARED_OUT if name in limits]
    if len(given) == 1:
        (other,) = set(CORE_MEMORIES) - set(given)
        raise MisfitError(f"limits.{given[0]}", "says nothing alone", f"; give limits.{other} too, or leave both out")
    sizes = {name: len(_numbers(limits[name])) for name in given}
    if len(set(sizes.values())) > 1:
        said = " and ".join(f"limits.{name} has {size}" for name, size in sizes.items())
        raise MisfitError("limits.neuron_memory", f"must be of as many cores as limits.kernel_memory: {said}")
    if given and limits.get("cores", sizes[given[0]]) != sizes[given[0]]:
        raise MisfitError(
            "limits.cores",
            f"is {limits['cores']}, but limits.{given[0]} has {sizes[given[0]]} numbers, one for each core",
            "; make them equal",
        )
    if given and shared:
        raise MisfitError(
            f"limits.{shared[0]}",
            f"is of cores of one size, and limits.{given[0]} of cores that take a layer each",
            "; leave one out",
        )
    if "cores" in limits and not given and not shared:
        raise MisfitError("limits.cores", "says nothing alone", f"; give one of {', '.join(_SHARED_OUT)} too")
    if shared and "cores" not in limits:
        raise MisfitError(f"limits.{shared[0]}", "is of each core", "; say in limits.cores how many there are")


def _numbers(limit: Limit) -> tuple[int, ...]:
    return (limit,) if isinstance(limit, int) else limit


def _shown(limit: Limit) -> int | list[int]:
    return limit if isinstance(limit, int) else list(limit)
