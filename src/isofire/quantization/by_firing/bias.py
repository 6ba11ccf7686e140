"""Which layer's or norm's bias is added to the currents of a layer of neurons, and where each of its numbers arrives.

A network may move its channels (a channel shuffle), keep them on another axis than neurons have theirs (a linear layer
on tokens) or make more of them (a view as maps). So nothing is taken from shapes: each number of a bias is moved by an
amount of its own, and what arrives tells which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons
from isofire.quantization.by_firing.alone import Elsewhere
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import Trace, calls_of

_STEP = 0.125
"""By which amounts differ, in thresholds."""


class Bias(NamedTuple):
    """A bias `[B]` that is added to a layer's currents and to nothing else.

    Parameters
    ----------
    holder
        The norm or layer that it belongs to.
    arrives
        For each neuron of one image, `[C, ...]`, the number of the bias that it gets, each as often as any other; None
        of a norm that the neurons apply themselves, on their own channels.
    """

    holder: nn.Module
    arrives: Tensor | None

    def spread(self, shift: Tensor) -> Tensor:
        """A shift `[B]` of the bias as what `Replay.counts` takes."""
        return shift if self.arrives is None else shift[self.arrives]

    def gather(self, counts: Tensor) -> Tensor:
        """Spikes `[C, P]` of each neuron as `[B, P']`, those that get the same number in a row."""
        if self.arrives is None:
            return counts
        return counts.flatten()[self.arrives.flatten().argsort(stable=True)].view(int(self.arrives.max()) + 1, -1)

    @torch.no_grad()
    def add_(self, shift: Tensor) -> None:
        """Move it for good."""
        _of(self.holder).add_(shift.to(_of(self.holder)))


def bias_of(model: nn.Module, name: str, replay: Replay, batches: Sequence[Tensor], seen: Trace) -> Bias | None:
    """The bias that is added to the currents of the neurons `name`, and to nothing else; None if there is none.

    Parameters
    ----------
    replay
        The layer's calls.
    batches
        The inputs behind them.
    seen
        What the network calls, and when.
    """
    if replay.norm is not None:
        own = seen.calls[seen.norms[name]] == seen.calls[name]
        return Bias(replay.norm, None) if own and replay.norm.bias is not None else None
    for module in _before(model, name, seen):
        if (arrives := _arrives(model, module, name, replay, batches, seen.calls[name])) is not None:
            return Bias(module, arrives)
    return None


def _before(model: nn.Module, name: str, seen: Trace) -> Iterator[nn.Module]:
    """Modules with a bias that are called before these neurons and after all others, the last first."""
    neurons = find_neurons(model)
    before = [other for other in seen.order[: seen.order.index(name)] if not other.startswith(f"{name}.")]
    for other in reversed(before):
        if other in neurons:
            return
        module = model.get_submodule(other)
        if isinstance(getattr(module, "bias", None), Tensor):
            yield module


def _arrives(
    model: nn.Module, holder: nn.Module, name: str, replay: Replay, batches: Sequence[Tensor], calls: int
) -> Tensor | None:
    """See `Bias`; None if a change of the bias does not arrive in the currents as it is, or not in them alone."""
    bias, step = _of(holder), _STEP * replay.unit
    elsewhere = Elsewhere(model, name, batches[replay.reached])
    kept = bias.detach().clone()
    amounts = step * torch.arange(1, len(bias) + 1).to(bias)
    bias.add_(amounts)
    try:
        # a branch may be taken by some batches only
        moved = [call for made in calls_of(model, name, batches, calls) for call in made]
        alone = elsewhere.is_unmoved()
    finally:
        bias.copy_(kept)
    was = [call for made in replay.batches for call in made]
    if not alone or len(moved) != len(was):
        return None
    found = _numbers((moved[0].input - was[0].input).flatten(0, replay.channel_axis - 1)[0], step, len(bias))
    same = found is not None and all(
        torch.allclose(new.input, old.input + amounts[found].to(old.input), atol=1e-4 * replay.unit, rtol=1e-5)
        for new, old in zip(moved, was, strict=True)
    )
    return found if same else None


def _numbers(came: Tensor, step: float, count: int) -> Tensor | None:
    """Which of `count` amounts came, one image's `[C, ...]`; None if one is none of them, or some came more often."""
    found = (came.double() / step).round().long() - 1
    if bool((found < 0).any()) or bool((found >= count).any()):
        return None
    return found if found.flatten().bincount(minlength=count).unique().numel() == 1 else None


def _of(holder: nn.Module) -> Tensor:
    bias = holder.bias
    assert isinstance(bias, Tensor)
    return bias
