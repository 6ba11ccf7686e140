"""What a model returns, brought to logits with the images on the last axis but one; what can be read twice is refused.

Which axis of [a, b, classes] holds the images is told by their number, once per network: where a = b, the network is
run on fewer images, and the axis that changes is the one. So a last batch of as many images as there are steps is read
as the others are.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from isofire.adapters.axes import input_axis, unheard
from isofire.adapters.compiled import original
from isofire.adapters.logits_of import LogitsOf
from isofire.adapters.over_time import OverTime
from isofire.adapters.registry import batch_first, find_neurons, from_rest
from isofire.errors import ModelError
from isofire.running import device_of, evaluating, forward

_AXES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Axis of the images in the logits [a, b, classes] of a network, once known."""
_BY_STEP: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether the list that a network returns has an entry a step, once known."""


def read_logits(model: nn.Module, output: Any, images: int, inputs: Tensor | None = None) -> Tensor:
    """Logits [T, N, classes] or [N, classes] in what `model` returned for `images` inputs.

    - A tensor: [N, classes], [T, N, classes], and [N, T, classes] of a model of batch-first neurons (Sinabs).
    - A list or tuple of three or more tensors [N, classes], as many as the neurons have steps: the logits of each step.
    - A tuple (spikes or logits [T, N, classes], others of the same shape, ...) such as (spikes, membranes), or (logits,
      state) with a state that could not be logits: the first. Of spikes, classes are told by their rates.

    Parameters
    ----------
    model
        The network.
    output
        What it returned.
    images
        N.
    inputs
        What it was given; the network is run again on a part of it where the shapes alone leave more than one reading.

    Raises
    ------
    ModelError
        If there are no such logits, or more than one reading is left: several heads, dictionaries, other orders of
        axes. `isofire.adapters.LogitsOf` says which is meant.
    """
    net = original(model)
    first = _one_of(net, output, images, inputs)
    if not isinstance(first, Tensor):
        raise _unread(images, type(first).__name__)
    stacked = isinstance(output, tuple | list) and not any(first is item for item in output)
    if first.ndim == 3 and not stacked and not isinstance(net, OverTime | LogitsOf):
        axis = _axis(net, first, images, inputs)
        if axis == 0 and not batch_first(net):
            raise _unread(images, f"{list(first.shape)}, the images on the first axis")
        first = first.transpose(0, 1) if axis == 0 else first
    if first.ndim not in (2, 3) or first.shape[-2] != images:
        raise _unread(images, str(list(first.shape)))
    return first


def _one_of(net: nn.Module, output: Any, images: int, inputs: Tensor | None) -> Any:
    """The one object in a model's output that holds the logits."""
    if not isinstance(output, tuple | list) or not output:
        return output
    first, *others = output
    if not isinstance(first, Tensor) or (isinstance(output, list) and len(output) == 1):
        return first
    alike = [isinstance(item, Tensor) and item.shape == first.shape for item in others]
    if first.ndim == 2 and others and all(alike):
        if len(output) > 2 and _is_by_step(net, len(output), images, inputs):
            return torch.stack(list(output))
        raise _unread(images, f"{len(output)} tensors {list(first.shape)}, which could be steps, heads or states")
    rival = next(
        (item for item, same in zip(others, alike, strict=True) if not same and _like_logits(item, first)), None
    )
    if isinstance(output, list) and any(alike):
        rival = first
    if rival is not None:
        raise _unread(images, f"{list(first.shape)} and {list(rival.shape)}, each of which could be logits")
    return first


def _like_logits(item: Any, first: Tensor) -> bool:
    """Whether another part of the output has the axes of the first, with another number of classes."""
    return isinstance(item, Tensor) and item.ndim == first.ndim and item.shape[:-1] == first.shape[:-1]


def _axis(net: nn.Module, logits: Tensor, images: int, inputs: Tensor | None) -> int:
    fits = [axis for axis in (0, 1) if logits.shape[axis] == images]
    if len(fits) == 1:
        _AXES[net] = fits[0]
    elif not fits or images == 1:
        # none: told by the caller; one image and one step: either
        return 1
    elif net not in _AXES:
        _AXES[net] = _probed_axis(net, logits, images, inputs)
    return _AXES[net]


def _probed_axis(net: nn.Module, logits: Tensor, images: int, inputs: Tensor | None) -> int:
    """Axis that has one entry less when the network sees one image less."""
    with unheard(net):
        output = None if inputs is None else _run(net, inputs, images, images - 1)
    fewer = output[0] if isinstance(output, tuple | list) and output else output
    shape = list(fewer.shape) if isinstance(fewer, Tensor) else []
    for axis in (0, 1):
        expected = list(logits.shape)
        expected[axis] -= 1
        if shape == expected:
            return axis
    raise _unread(images, f"{list(logits.shape)}, in which images and steps are as many")


def _is_by_step(net: nn.Module, entries: int, images: int, inputs: Tensor | None) -> bool:
    if net not in _BY_STEP:
        _BY_STEP[net] = inputs is not None and _steps(net, inputs, images) == entries
    return _BY_STEP[net]


def _steps(net: nn.Module, inputs: Tensor, images: int) -> int | None:
    """Steps that every neuron sees in one forward; None if they differ."""
    seen: dict[nn.Module, int] = {}
    neurons = dict(find_neurons(net).values())

    def note(neuron: nn.Module, _: Any, output: Any) -> None:
        seen[neuron] = seen.get(neuron, 0) + len(neurons[neuron].spikes(neuron, output))

    with unheard(net), ExitStack() as stack:
        for neuron in neurons:
            stack.callback(neuron.register_forward_hook(note).remove)
        _run(net, inputs, images, images)
    return next(iter(seen.values())) if len(set(seen.values())) == 1 else None


def _run(net: nn.Module, inputs: Tensor, images: int, some: int) -> Any:
    """What the network returns for `some` of the images; None if it fails on them. It draws no random numbers."""
    part = inputs.narrow(input_axis(net, inputs, images), 0, some).to(device_of(net, inputs.device))
    cuda = [part.device] if part.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.no_grad(), evaluating(net), from_rest(net):
        try:
            return forward(net, part)
        except ModelError:
            # built for one size of batch
            return None


def _unread(images: int, given: str) -> ModelError:
    return ModelError(
        f"a model must give logits [T, {images}, classes] or [{images}, classes], got {given}; say which are "
        "meant, and the order of their axes, by isofire.adapters.LogitsOf(model, output=..., axes=...)"
    )
