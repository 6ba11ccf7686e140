"""PTQ4SNN's rule: bits by how often channels fire and by what their quantization does to the loss.

Of arXiv 2608.07066 and its code (dongfengwuyishi/ptq4nn, ptq4snn/solver/bit_allocation.py, and its configuration for
SEW-ResNet-18): a channel's score is 0.8 of its mean rate and 0.2 of its salience, each scaled to 0..1 over all
channels but the first layer's. Its salience is the mean over batches of |d + d^2 / 2|, d the inner product of the
loss's gradient by the channel's spikes, quantized to 4 bits, with the change of these spikes; the loss is the cross
entropy with the class that full precision gives. Scores above the 96th percentile get the most bits, those up to a
second one the fewest, the others the middle; the second is moved until the mean of the bits is as wanted.

What the source leaves open, or does otherwise, and is decided here: bits are a layer's, so its score is the mean of its
channels', and percentiles are those of layers; the first layer, which the source keeps at 16 bits, gets the most bits
if it is quantized at all; weights, all of 4 bits there, get those of the next layer of neurons; the second percentile
is moved until the budget is kept instead; logits are the mean over steps (there, the last step's).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.adapters import Adapter, Fired, from_rest, read_logits
from isofire.firing import Observation
from isofire.firing.record import spiking_adapters
from isofire.running import device_of, evaluating, forward
from isofire.study.allocation.measure import Bits
from isofire.study.splits import AnySet

RATE, SALIENCE = 0.8, 0.2
SALIENCE_BITS = 4
SALIENCE_IMAGES, SALIENCE_BATCH = 160, 16
MOST_ABOVE = 96.0
"""Percentile of the scores above which a layer gets the most bits."""


def scores(baseline: nn.Module, quantized: nn.Module, seen: Observation, images: AnySet) -> dict[str, float]:
    """Score of each layer of neurons but the first.

    Parameters
    ----------
    baseline
        In full precision.
    quantized
        The same with states, and what else is quantized, of about 4 bits.
    seen
        The baseline's firing.
    images
        For the salience.
    """
    names = list(seen.counts.layers)[1:]
    rates = {name: seen.counts.rates(name).double().reshape(seen.counts.shape(name)[0], -1).mean(1) for name in names}
    salience = saliences(baseline, quantized, images)
    scaled = [_scaled(values) for values in (rates, {name: salience[name] for name in names})]
    return {name: float((RATE * scaled[0][name] + SALIENCE * scaled[1][name]).mean()) for name in names}


def saliences(baseline: nn.Module, quantized: nn.Module, images: AnySet) -> dict[str, Tensor]:
    """Salience of each channel, layer -> `[C]` float64: mean over batches of |d + d^2 / 2|; see the module."""
    total: dict[str, Tensor] = {}
    batches, place = 0, device_of(baseline)
    for inputs, labels in images.first(min(len(images), SALIENCE_IMAGES)).batches(SALIENCE_BATCH, device=place):
        with torch.no_grad():
            logits, before = _heard(baseline, inputs, len(labels))
        with torch.enable_grad():
            found, after = _heard(quantized, inputs.clone().requires_grad_(), len(labels))
            loss = F.cross_entropy(found, logits.argmax(1))
            calls = [fired.values for name in after for fired in after[name].calls]
            gradients = iter(torch.autograd.grad(loss, calls))
        for name, heard in after.items():
            gradient = heard.steps([next(gradients) for _ in heard.calls])
            change = heard.steps().detach() - before[name].steps()
            inner = (gradient * change).transpose(0, 2).flatten(1).sum(1)
            total[name] = total.get(name, torch.zeros_like(inner)) + (inner + inner.square() / 2).abs()
        batches += 1
    return {name: values.cpu() / batches for name, values in total.items()}


class _Heard(NamedTuple):
    """What one layer gave in a forward pass: its output of each call, through which gradients come."""

    neuron: nn.Module
    adapter: Adapter
    calls: list[Fired]

    def steps(self, values: Sequence[Tensor] | None = None) -> Tensor:
        """Spikes, or values laid out as the outputs, as `[T, N, C, ...]` float64."""
        laid = [fired.values for fired in self.calls] if values is None else values
        return torch.cat([fired.as_spikes(x) for fired, x in zip(self.calls, laid, strict=True)]).double()


def assign(
    given: Mapping[str, float],
    layers: Sequence[tuple[str, str]],
    order: Sequence[str],
    neurons: Collection[str],
    bits: Sequence[int],
) -> list[Bits]:
    """Bits of each layer by the scores of layers of neurons: one choice for each place that the second percentile can
    have, from the most bits to the fewest.

    Parameters
    ----------
    given
        Score of each layer of neurons but the first.
    layers
        (target, module) of what is quantized.
    order
        Layers with weights and layers of neurons, as the network runs them.
    neurons
        Which of them are layers of neurons.
    bits
        Ascending; the fewest, the middle one and the most are given.
    """
    fewest, middle, most = bits[0], bits[len(bits) // 2], bits[-1]
    high = float(np.percentile(list(given.values()), MOST_ABOVE)) if given else 0.0

    def of(target: str, name: str, low: float) -> int:
        after = order[order.index(name) :] if name in order else []
        fed = name if target == "membrane" else next((other for other in after if other in neurons), None)
        if fed is None:
            # a layer of logits feeds no neurons
            return middle
        if fed not in given:
            return most
        return most if given[fed] > high else middle if given[fed] > low else fewest

    places = [-np.inf, *sorted(given.values())]
    return [{(target, name): of(target, name, low) for target, name in layers} for low in places]


def _heard(model: nn.Module, inputs: Tensor, images: int) -> tuple[Tensor, dict[str, _Heard]]:
    """Logits, mean over steps, and what every layer of neurons gave."""
    heard = {name: _Heard(neuron, adapter, []) for name, (neuron, adapter) in spiking_adapters(model).items()}

    def hook(item: _Heard) -> Callable[..., None]:
        return lambda neuron, _inputs, output: item.calls.append(Fired(neuron, item.adapter, output))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(from_rest(model))
        for item in heard.values():
            stack.callback(item.neuron.register_forward_hook(hook(item)).remove)
        logits = read_logits(model, forward(model, inputs), images, inputs)
    return logits.mean(0) if logits.ndim == 3 else logits, heard


def _scaled(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """To 0..1 over all channels of all layers."""
    every = torch.cat(list(values.values()))
    low, span = every.min(), every.max() - every.min()
    return {name: torch.zeros_like(part) if span < 1e-8 else (part - low) / span for name, part in values.items()}
