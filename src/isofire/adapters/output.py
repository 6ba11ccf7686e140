"""What a model returns, brought to logits with the images on the last axis but one; what can be read twice is refused.

Which axis holds the images is told by their number, once per network: where several are as long (as many images as
steps, or as classes), the network is run on fewer images, and the axis that changes is the one. So a last batch of as
many images as there are steps is read as the others are. Whether a list has an entry a step or a head is told by what
the last step's spikes change. That the first axis of three holds steps is not taken for granted either: it is as long
as the neurons have steps, and one of its entries sees the first step of the last neuron and not its last step: stacked
exits, each of which sees all steps, may be as many.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from isofire.adapters.axes import unheard
from isofire.adapters.compiled import original
from isofire.adapters.logits_of import LogitsOf
from isofire.adapters.over_time import OverTime
from isofire.adapters.registry import batch_first, find_neurons
from isofire.adapters.steps_of import (
    calls_of,
    changed_at_the_end,
    changed_by_last_step,
    lengths_of,
    rows_see_steps,
    run_on,
)
from isofire.errors import ModelError
from isofire.running import several_steps, single_steps

_AXES: WeakKeyDictionary[nn.Module, dict[int, int]] = WeakKeyDictionary()
"""Network -> number of axes of its logits -> the axis of the images, once known."""
_BY_STEP: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether the list that a network returns has an entry a step, once known."""
_TIME_FIRST: WeakSet[nn.Module] = WeakSet()
"""Networks of whose logits [T, N, classes] the first axis is known to be that of the steps."""
_CAUSAL: WeakSet[nn.Module] = WeakSet()
"""Networks of whose logits [T, N, classes] not every row sees the last step."""


def read_logits(model: nn.Module, output: Any, images: int, inputs: Tensor) -> Tensor:
    """Logits [T, N, classes] or [N, classes] in what `model` returned for `images` inputs.

    - A tensor: [N, classes], [T, N, classes], and [N, T, classes] of a model of batch-first neurons (Sinabs).
    - A list or tuple of three or more tensors [N, classes], as many as the neurons have steps: the logits of each step.
    - A tuple of spikes [T, N, classes] and others of the same shape that are none, such as (spikes, membranes), or of
      logits beside spikes, or (logits, state) with a state that could not be logits: the first. Of spikes, classes are
      told by their rates.

    Parameters
    ----------
    model
        The network.
    output
        What it returned.
    images
        N.
    inputs
        What it was given; the network is run again on it, once, to see its steps, and on a part of it where the shapes
        alone leave more than one reading.

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
    if first.is_complex():
        raise ModelError(
            f"logits must be real numbers, which have an order, those of {type(net).__name__} are "
            f"{str(first.dtype).removeprefix('torch.')}; say what of them counts, such as their size: "
            "isofire.adapters.LogitsOf(model, output=lambda found: found.abs())"
        )
    stacked = isinstance(output, tuple | list) and not any(first is item for item in output)
    entry = first[0] if stacked else first
    if entry.ndim in (2, 3) and not isinstance(net, LogitsOf):
        axis = _axis(net, entry, images, inputs)
        if axis == entry.ndim - 1:
            raise _unread(images, f"{list(entry.shape)}, the images on the last axis")
        if axis == 0 and entry.ndim == 3:
            if not batch_first(net) or isinstance(net, OverTime):
                raise _unread(images, f"{list(first.shape)}, the images on the first axis")
            first = first.transpose(0, 1)
    if first.ndim == 1 and len(first) == images:
        raise ModelError(
            f"a model must give logits [T, {images}, classes] or [{images}, classes], got [{images}]: "
            f"{of_one_number(net)}, and found.unsqueeze(-1) for [N], as here"
        )
    if first.ndim not in (2, 3) or first.shape[-2] != images:
        raise _unread(images, str(list(first.shape)))
    if first.ndim == 3 and not (stacked or isinstance(net, LogitsOf) or _is_time_first(net, first, images, inputs)):
        single = "".join(f" ({several_steps(layer)})" for layer in single_steps(net)[:1])
        raise _unread(images, f"{list(entry.shape)}, in which the neurons' steps are not where they belong{single}")
    if first.ndim == 3 and not (stacked or isinstance(net, LogitsOf) or _rows_are_steps(net, first, images, inputs)):
        raise ModelError(
            f"logits [T, {images}, classes] must be those of one step after the other, the {len(first)} rows of "
            f"{list(entry.shape)} all see the last step, as exits do that are as many as steps; say by "
            "isofire.adapters.LogitsOf(model, output=lambda found: found[-1], axes='NC') that the last exit is meant, "
            "or by LogitsOf(model, axes='TNC') that they are steps"
        )
    return first


def of_one_number(model: nn.Module) -> str:
    """What to do with a network that gives one number an image, which tells no classes apart."""
    return (
        f"{type(model).__name__} gives one number an image, and classes are told by the largest of several logits; of "
        "a number that is above 0 for class 1 make two logits: isofire.adapters.LogitsOf(model, output=lambda found: "
        "torch.cat((torch.zeros_like(found), found), -1)), with axes='NC' for [N, 1]"
    )


def _one_of(net: nn.Module, output: Any, images: int, inputs: Tensor) -> Any:
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
        (item for item, same in zip(others, alike, strict=True) if not same and _like_logits(item, first, images)), None
    )
    if isinstance(output, list) and any(alike):
        rival = first
    if first.ndim == 3 and rival is None:
        rival = next((item for item, same in zip(others, alike, strict=True) if same and _are_heads(first, item)), None)
    if rival is not None:
        raise _unread(images, f"{list(first.shape)} and {list(rival.shape)}, each of which could be logits")
    return first


def _are_heads(first: Tensor, other: Tensor) -> bool:
    """Whether both of two tensors [T, N, classes] could be logits, or both spikes of one height: spikes come beside
    membranes, and logits beside spikes. Nothing is told from a tensor without a value."""
    return bool(first.any()) and bool(other.any()) and _height(first) == _height(other)


def _height(values: Tensor) -> float | None:
    """The one number beside 0 that spikes are; None of values that have several."""
    top = float(values.max())
    return top if bool(((values == 0) | (values == top)).all()) else None


def _like_logits(item: Any, first: Tensor, images: int) -> bool:
    """Whether another part of the output has axes that logits may have, with another number of classes."""
    if not isinstance(item, Tensor) or item.ndim not in (2, 3) or item.shape[-1:] == first.shape[-1:]:
        return False
    return item.shape[:-1] == first.shape[:-1] if item.ndim == first.ndim else images in item.shape[:-1]


def _axis(net: nn.Module, logits: Tensor, images: int, inputs: Tensor) -> int:
    """Axis of the images in logits of two or three axes."""
    fits = [axis for axis, size in enumerate(logits.shape) if size == images]
    known = _AXES.setdefault(net, {})
    if len(fits) == 1:
        known[logits.ndim] = fits[0]
    elif not fits or images == 1:
        # none: told by the caller; one image and one step: either
        return logits.ndim - 2
    elif logits.ndim not in known:
        known[logits.ndim] = _probed_axis(net, logits, images, inputs)
    return known[logits.ndim]


def _probed_axis(net: nn.Module, logits: Tensor, images: int, inputs: Tensor) -> int:
    """Axis that has one entry less when the network sees one image less."""
    with unheard(net):
        output = run_on(net, inputs, images, images - 1)
    fewer = output[0] if isinstance(output, tuple | list) and output else output
    shape = list(fewer.shape) if isinstance(fewer, Tensor) else []
    for axis in range(logits.ndim):
        expected = list(logits.shape)
        expected[axis] -= 1
        if shape == expected:
            return axis
    others = "steps" if logits.ndim == 3 and logits.shape[0] == images else "classes"
    raise _unread(images, f"{list(logits.shape)}, in which images and {others} are as many")


def _is_time_first(net: nn.Module, logits: Tensor, images: int, inputs: Tensor) -> bool:
    """Whether logits with the images on the second axis have the steps on the first, and not on the last."""
    if not find_neurons(net) or getattr(net, "gives_steps_first", False):
        # nothing to compare with, or known
        return True
    if net in _TIME_FIRST:
        return True
    steps, (first, _, last) = lengths_of(net, inputs, images), logits.shape
    if first in steps and last in steps and (first, last) != (1, 1):
        found = changed_at_the_end(net, inputs, images, _axis_of_steps(net))
    elif first in steps or last in steps:
        found = first in steps
    else:
        found = first > 1 and changed_at_the_end(net, inputs, images, _axis_of_steps(net))
    if found:
        # a network that is refused may be mended, and asked again
        _TIME_FIRST.add(net)
    return found


def _rows_are_steps(net: nn.Module, logits: Tensor, images: int, inputs: Tensor) -> bool:
    """Whether the rows of logits differ in which steps they see, or are one."""
    if not find_neurons(net) or getattr(net, "gives_steps_first", False) or len(logits) == 1 or net in _CAUSAL:
        return True
    # the mean of rows that are one is each of them
    alike = bool((logits == logits[:1]).all())
    if alike or rows_see_steps(net, inputs, images, _axis_of_steps(net)):
        if not alike or bool((logits != logits.flatten()[0]).any()):
            _CAUSAL.add(net)
        return True
    return False


def _axis_of_steps(net: nn.Module) -> int:
    return 1 if _AXES.get(net, {}).get(3) == 0 else 0


def _is_by_step(net: nn.Module, entries: int, images: int, inputs: Tensor) -> bool:
    """Whether an output of so many tensors has one for each step.

    Heads may be as many as steps. What tells them apart: other spikes in the last step change each head, but of the
    logits of steps only the last.
    """
    if net not in _BY_STEP:
        _BY_STEP[net] = {sum(lengths) for lengths in calls_of(net, inputs, images).values()} == {
            entries
        } and changed_by_last_step(net, inputs, images) == [False] * (entries - 1) + [True]
    return _BY_STEP[net]


def _unread(images: int, given: str) -> ModelError:
    return ModelError(
        f"a model must give logits [T, {images}, classes] or [{images}, classes], got {given}; say which are "
        "meant, and the order of their axes, by isofire.adapters.LogitsOf(model, output=..., axes=...)"
    )
