"""What a count of operations leaves out, by name and with its share of the network's weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from isofire.adapters import find_neurons, original_name
from isofire.firing.cost.following.stored import named_tensors
from isofire.firing.cost.following.trace import Trace


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One part of a network that a number does not contain.

    Parameters
    ----------
    name
        The module, or the layer.
    reason
        Why, in words.
    share
        Its part of what the number counts: of the network's weights, operations or neurons, as `of` says; None where it
        is not known.
    of
        "weights", "operations", "states" or "neurons".
    """

    name: str
    reason: str
    share: float | None
    of: str

    def __str__(self) -> str:
        part = "share unknown" if self.share is None else f"{self.share:.1%} of {self.of}"
        return f"{self.name}: {self.reason} ({part})"


def left_out(model: nn.Module, trace: Trace, steps: int = 0, kept: Collection[str] = ()) -> tuple[LeftOut, ...]:
    """Modules with operations that no rule knows or with work outside of torch, and parameters whose work is not
    counted; where `steps` is given, states that a network's own code keeps beside the layers in `kept`."""
    weights = {name: item for name, item in model.named_parameters() if item.ndim > 1}
    total = sum(item.numel() for item in weights.values())
    open_ = {name: item.numel() for name, item in weights.items() if name not in trace.uses.counted}
    found: dict[str, LeftOut] = {}

    def add(name: str, reason: str, held: int | None) -> None:
        share = None if held is None else held / total if total else 0.0
        found.setdefault(f"{name}: {reason}", LeftOut(name=name, reason=reason, share=share, of="weights"))

    for module, operation in trace.unknown:
        reason = f"{operation} is not known, what it multiplies is not counted"
        # weights may be packed in what is no tensor
        add(module or "(model)", reason, sum(_within(open_, module)) or None)
    for module in trace.mixed:
        add(
            module or "(model)",
            "makes spikes real together with whole numbers that are none, so that weights behind multiply all",
            None,
        )
    sizes = {name: item.numel() for name, item in named_tensors(model)}
    for name, how in trace.uses.lost.items():
        owner, _, own = name.rpartition(".")
        add(
            owner if own == "weight" and owner else name,
            f"its weights work by {how}, which is not counted",
            sizes[name],
        )
    named = {item.name for item in found.values()}
    for module, how in trace.uses.outside.items():
        if module not in named:
            held = sum(_within(open_, module))
            add(module or "(model)", f"works outside of torch ({how}), which is not counted", held or None)
    for module in trace.own_states.modules(steps):
        if not any(f"{module}.".startswith(f"{layer}.") for layer in kept):
            reason = "keeps numbers from step to step, which are in no state memory"
            found[f"{module}: {reason}"] = LeftOut(name=module or "(model)", reason=reason, share=None, of="states")
    reason = "its adapter does not say what it keeps from step to step (states), a membrane a neuron is counted"
    for name, (_, adapter) in find_neurons(model).items() if steps else ():
        if not adapter.tells_states:
            named = original_name(name) or "(model)"
            found[f"{named}: {reason}"] = LeftOut(name=named, reason=reason, share=None, of="states")
    return tuple(found.values())


def strangers(model: nn.Module, found: Mapping[str, tuple[str, float]], known: int, number: str) -> tuple[LeftOut, ...]:
    """What gives spikes and is no neuron that isofire knows.

    Parameters
    ----------
    found
        Module -> how it makes them, and how many neurons it has.
    known
        Neurons that isofire knows.
    number
        What they are in none of, such as "rate".
    """
    modules, total = dict(model.named_modules()), known + sum(size for _, size in found.values())
    return tuple(
        LeftOut(
            name=name or "(model)",
            reason=f"{type(modules[name]).__name__} gives spikes ({how}) that are in no {number}, since isofire knows "
            "no such neuron (see isofire.adapters.register)",
            share=size / total,
            of="neurons",
        )
        for name, (how, size) in found.items()
    )


def _within(sizes: dict[str, int], module: str) -> Iterator[int]:
    return (size for name, size in sizes.items() if not module or name.startswith(module + "."))
