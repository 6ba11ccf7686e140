"""What an adapter says of its neurons, held against how they fire: its threshold, its reset, several spikes a step.

Only of adapters that are not isofire's own, which are tested with their libraries. What is compared is the first step
from rest, in which an adaptive threshold has not moved and nobody is refractory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout, MembraneMixin
from isofire.errors import ModelError
from isofire.neurons import MembraneQuantizer
from isofire.neurons.membrane import Placement
from isofire.quantizers import RangeObserver, Uniform
from isofire.running import seed_generators

_IMAGES = 96
_SAME = 1e-4


class Watcher(RangeObserver):
    """Keeps the states that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Tensor] = []

    def observe(self, x: Tensor) -> None:
        self.states.append(x.detach().double())


class _FirstStep(NamedTuple):
    """Membranes at a place of the first step from rest, and the spikes of that step: both [N, ...], float64."""

    states: Tensor
    spikes: Tensor


def is_isofires(adapter: Adapter) -> bool:
    """Whether the adapter is one of isofire's own, for its neurons or those of a library."""
    return type(adapter).__module__.partition(".")[0] == "isofire"


def twin_of(name: str, neuron: nn.Module, adapter: Adapter) -> nn.Module:
    """A copy of the neuron, at rest and heard by nobody."""
    adapter.reset(neuron)
    try:
        twin = copy.deepcopy(neuron)
    except (RuntimeError, AttributeError) as error:
        raise ModelError(f"cannot copy the neuron {name!r} for its self-test: {error}; use a fresh model") from error
    adapter.put_back(neuron, twin)
    for module in twin.modules():
        # a recorder or monitor listens to the original only
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin


def check_answers(name: str, neuron: nn.Module, adapter: Adapter) -> None:
    """Refuse answers of an adapter that are not of the kind that its methods promise.

    Raises
    ------
    ModelError
        Says which method gave what instead.
    """
    wanted: list[tuple[Callable[[nn.Module], Any], Callable[[Any], bool], str]] = [
        (adapter.layout, lambda x: isinstance(x, Layout), "a Layout"),
        (adapter.threshold, _is_finite, "a tensor of a floating type with finite values, such as tensor(1.0)"),
        (adapter.v_reset, lambda x: x is None or _is_number(x), "a number, or None for a soft reset"),
        (adapter.several, lambda x: isinstance(x, bool), "True or False"),
        (adapter.host, lambda x: isinstance(x, type) and issubclass(x, MembraneMixin), "a subclass of MembraneMixin"),
    ]
    for method, fits, what in wanted:
        try:
            answer = method(neuron)
        except Exception as error:
            told = f"{method.__name__}() failed: {type(error).__name__}: {error}"
            raise _wrong(name, neuron, adapter, told) from error
        if not fits(answer):
            raise _wrong(name, neuron, adapter, f"{method.__name__}() must give {what}, got {answer!r}")


def check_threshold(name: str, neuron: nn.Module, adapter: Adapter) -> None:
    """Refuse a threshold at which the neuron does not begin to fire, and several spikes of one that has one a step.

    Seen where the membrane can be watched before it fires, and the neuron is not random.

    Raises
    ------
    ModelError
        Says between which potentials it begins to fire.
    """
    threshold = adapter.threshold(neuron).detach().double()
    seen = _first_step(name, neuron, adapter, "pre_fire")
    if seen is None or not (threshold.numel() == 1 or threshold.shape == seen.states.shape[1:]):
        return
    if float(seen.spikes.max()) > 1 and not adapter.several(neuron):
        what = f"it fires {float(seen.spikes.max()):g} spikes in a step, so several() must give True"
        raise _wrong(name, neuron, adapter, what)
    # what lies at the threshold itself may be rounded to either side
    clear = (seen.states - threshold).abs() > _SAME * threshold.abs()
    if bool(((seen.spikes > 0) != (seen.states > threshold))[clear].any()):
        fires, stays = seen.states[seen.spikes > 0], seen.states[seen.spikes == 0]
        least = f"fires from {float(fires.min()):.4g} on" if fires.numel() else "does not fire"
        most = f" and is silent up to {float(stays.max()):.4g}" if stays.numel() else ""
        told = f"threshold() gives {_few(threshold)}, but from rest it {least}{most}, in units of the membrane"
        raise _wrong(name, neuron, adapter, told)


def check_reset(name: str, neuron: nn.Module, adapter: Adapter) -> None:
    """Refuse a `v_reset` that is not where the membrane is after a spike.

    Seen where the membrane can be watched after its reset, of a soft reset also before it fires.

    Raises
    ------
    ModelError
        Says where the membrane is instead.
    """
    after = _first_step(name, neuron, adapter, "post_reset")
    if after is None or not bool((fired := after.spikes > 0).any()):
        return
    stated, left = adapter.v_reset(neuron), after.states[fired]
    threshold = adapter.threshold(neuron).detach().double()
    before = _first_step(name, neuron, adapter, "pre_fire")
    if stated is not None:
        wanted = torch.full_like(left, stated)
    elif before is not None and (threshold.numel() == 1 or threshold.shape == after.states.shape[1:]):
        wanted = (before.states - threshold * before.spikes)[fired]
    else:
        return
    largest = max(float(threshold.abs().max()), float((before or after).states.abs().max()))
    if bool(((left - wanted).abs() > _SAME * largest).any()):
        same = float(left.max() - left.min()) <= _SAME * largest
        is_at = f"at {float(left.mean()):.4g}" if same else f"from {float(left.min()):.4g} to {float(left.max()):.4g}"
        told = "None, as for a soft reset that subtracts the threshold" if stated is None else f"{stated:g}"
        raise _wrong(name, neuron, adapter, f"v_reset() gives {told}, but after a spike the membrane is {is_at}")


def _first_step(name: str, neuron: nn.Module, adapter: Adapter, placement: Placement) -> _FirstStep | None:
    """What the membranes of many images do in one step; None where they cannot be watched there, or are random."""
    if adapter.refusal(neuron, placement) is not None:
        return None
    like = floating(neuron, adapter)
    scale = float(adapter.threshold(neuron).abs().max()) or 1.0
    gains = 2.0 ** torch.linspace(-4, 7, _IMAGES).view(1, -1, *(1,) * len(adapter.shape(neuron)))
    currents = (gains * scale).expand(1, _IMAGES, *adapter.shape(neuron)).to(like.device, like.dtype)
    watcher, watching = Watcher(), MembraneQuantizer(Uniform(8), placement)
    watching.observer = watcher
    twin = twin_of(name, neuron, adapter).eval()
    adapter.attach(twin, watching.to(like.device))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = [_driven(twin, adapter, currents, seed) for seed in (0, 1)]
    except Exception:
        # a host that fails at the place that nobody asked for is told when somebody does
        return None
    if len(watcher.states) != 2 or watcher.states[0].shape != found[0].shape[1:] or not torch.equal(*found):
        return None
    return _FirstStep(watcher.states[0], found[0][0])


def _driven(twin: nn.Module, adapter: Adapter, currents: Tensor, seed: int) -> Tensor:
    seed_generators(seed, currents.device)
    return adapter.drive(twin, currents).double()


def floating(neuron: nn.Module, adapter: Adapter) -> Tensor:
    """A tensor of the neuron that tells its device and floating type."""
    tensors: list[Any] = [*neuron.parameters(), *neuron.buffers(), adapter.threshold(neuron)]
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0


def _is_finite(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0 and bool(value.isfinite().all())
    )


def _few(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _wrong(name: str, neuron: nn.Module, adapter: Adapter, what: str) -> ModelError:
    return ModelError(
        f"the adapter of {name!r} ({type(neuron).__name__}) is wrong: {what}; mend {type(adapter).__qualname__} of "
        f"{type(adapter).__module__}"
    )
