"""One layer of neurons run again and again on what its network gave it, to see how it would fire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.adapters import Adapter, Layout
from isofire.errors import ModelError
from isofire.neurons.counting import add_counts, over_images, zero_counts
from isofire.quantization.by_firing.trace import Call


class Replay:
    """A layer of neurons and the calls that a network made to it.

    Parameters
    ----------
    neuron, adapter
        The layer. Whatever it carries at the time of a `counts` call counts: a membrane quantizer, its table, a norm's
        bias.
    batches
        Calls of each batch, see `calls_of`.

    Attributes
    ----------
    channel_axis
        Of the neuron's first argument, as it is called.
    norm
        The norm that the neuron applies itself, if it was given one.
    samples
        Images times steps behind the last `counts`.
    reached
        Number of the first batch that reaches the layer.
    """

    samples = 0

    def __init__(self, neuron: nn.Module, adapter: Adapter, batches: Sequence[Sequence[Call]]) -> None:
        self.neuron, self.adapter, self.batches = neuron, adapter, batches
        self.reached = next(number for number, calls in enumerate(batches) if calls)
        first = batches[self.reached][0]
        stepped = adapter.layout(neuron) is Layout.STEP or first.kwargs.get("repeat") is not None
        self.norm: _BatchNorm | None = first.kwargs.get("norm")
        self.channel_axis = 1 if stepped or self._folded(first) else 2

    @torch.no_grad()
    def _folded(self, call: Call) -> bool:
        """Whether images and steps lie on one axis of what the neuron takes, as with Sinabs' Squeeze forms: its spikes
        have an axis more."""
        self.adapter.reset(self.neuron)
        try:
            spikes = self.adapter.spikes(self.neuron, self.neuron(*call.args, **call.kwargs))
        finally:
            self.adapter.reset(self.neuron)
        return call.input.ndim < spikes.ndim

    @property
    def unit(self) -> float:
        """The threshold, which shifts and levels are measured by: where thresholds differ, the largest."""
        return float(self.adapter.threshold(self.neuron).abs().max()) or 1.0

    def require_threshold(self, name: str) -> None:
        """Raise ModelError if these neurons have no threshold, which shifts and levels are measured by."""
        if not self.adapter.has_threshold(self.neuron):
            raise ModelError(
                f"{name!r} ({type(self.neuron).__name__}) has no threshold that biases and levels could be measured "
                "by; leave its membranes float by a rule, and set correct = 'never'"
            )

    def as_rate(self, errors: Tensor) -> float:
        """Mean over channels of errors in spikes, as spikes per neuron per step."""
        return float(errors.mean()) / self.samples

    @torch.no_grad()
    def counts(self, shift: Tensor | None = None) -> Tensor:
        """Spikes of each neuron, `[C, P]` int64 (P = 1 where a neuron is a channel), over all images and steps.

        Parameters
        ----------
        shift
            Added to the input currents of each image's neurons, `[C, ...]`; of a neuron that applies a norm itself
            `[C]`, added behind the norm.
        """
        total: Tensor | None = None
        self.samples = 0
        self.adapter.begin_counting(self.neuron)
        try:
            for calls in self.batches:
                self.adapter.reset(self.neuron)
                with _shifted(self.norm, shift):
                    output = None
                    for call in calls:
                        found, output = self._run(call, None if self.norm is not None else shift, output)
                        total = found if total is None else total + found
        finally:
            self.adapter.end_counting(self.neuron)
            self.adapter.reset(self.neuron)
        assert total is not None
        return total

    def _run(self, call: Call, shift: Tensor | None, before: Any) -> tuple[Tensor, Any]:
        """Spikes of each neuron, and what the neuron returned; `before`: what it returned in the call before."""
        args, kwargs = call.after(before)
        if shift is not None:
            args = (call.input + shift.to(call.input), *args[1:])
        output = self.neuron(*args, **kwargs)
        spikes = self.adapter.spikes(self.neuron, output)
        self.samples += spikes.shape[0] * spikes.shape[1]
        summed = self.adapter.summed(self.neuron)
        return (spikes_per_neuron(spikes) if summed is None else _by_channel(over_images(summed))), output

    def shift_(self, shift: Tensor) -> None:
        """Have the currents of the stored calls larger by `shift` `[C, ...]`, as a bias before them makes them."""
        self.batches = [
            [call._replace(args=(call.input + shift.to(call.input), *call.args[1:])) for call in calls]
            for calls in self.batches
        ]


def spikes_per_neuron(spikes: Tensor) -> Tensor:
    """`[T, N, C, ...]` to `[C, P]` int64: each neuron's spikes over steps and images."""
    total = zero_counts(1, spikes)
    exact = add_counts(total, spikes, torch.zeros(spikes.shape[1], dtype=torch.int64))
    whole = total[0] if exact else spikes.sum((0, 1), dtype=torch.float64).round_()
    return _by_channel(whole)


def _by_channel(total: Tensor) -> Tensor:
    return total.long().reshape(total.shape[0] if total.ndim else 1, -1)


@contextmanager
def _shifted(norm: _BatchNorm | None, shift: Tensor | None) -> Iterator[None]:
    """A norm whose bias is larger by `shift` inside."""
    if norm is None or norm.bias is None or shift is None:
        yield
        return
    kept = norm.bias.detach().clone()
    norm.bias.data.add_(shift)
    try:
        yield
    finally:
        norm.bias.data.copy_(kept)
