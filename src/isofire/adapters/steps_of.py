"""Looking at a network's steps by running it again: how many there are, and what spikes in one of them change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.axes import input_axis, unheard
from isofire.adapters.fired import Fired
from isofire.adapters.registry import batch_first, find_neurons, from_rest, heard
from isofire.errors import ModelError
from isofire.running import device_of, evaluating, forked, forward, hooked


def rows_see_steps(net: nn.Module, inputs: Tensor, images: int, axis: int) -> bool:
    """Whether some entry of an axis of the logits sees an early step of the last neuron before them, but not its last.

    So do logits of steps, and not those of exits or heads that all see all steps. Also true where nothing is seen to
    change them, and of a network that gives other logits each time.
    """
    calls = calls_of(net, inputs, images)

    def changed(name: str, step: int) -> frozenset[int]:
        return _entries_changed(_with_neuron_turned(net, inputs, images, calls, name, step), axis)

    for name, lengths in reversed(calls.items()):
        steps = sum(lengths)
        if last := changed(name, steps - 1):
            # the first steps may be left out, to warm up
            places = sorted({0, steps // 4, steps // 2, 3 * steps // 4, steps - 2} & set(range(steps - 1)))
            early = (changed(name, step) for step in places)
            return not next(filter(None, early), frozenset()) <= last or not _repeats(net, inputs, images)
        if changed(name, 0):
            return True
    return True


def _repeats(net: nn.Module, inputs: Tensor, images: int) -> bool:
    """Whether the same images give the same once more."""
    runs = run_on(net, inputs, images, images), run_on(net, inputs, images, images)
    first, again = _first_of_two(runs)
    return first is None or again is None or torch.equal(first.nan_to_num(), again.nan_to_num())


def _entries_changed(runs: tuple[Any, Any] | None, axis: int) -> frozenset[int]:
    """Entries of an axis of the logits in which two runs differ."""
    plain, other = _first_of_two(runs)
    if plain is None or other is None:
        return frozenset()
    # what is no number in both is refused elsewhere
    changed = ((plain != other) & ~(plain.isnan() & other.isnan())).movedim(axis, 0).flatten(1).any(1)
    return frozenset(changed.nonzero().flatten().tolist())


def changed_at_the_end(net: nn.Module, inputs: Tensor, images: int, axis_of_steps: int) -> bool:
    """Whether other spikes in the last step change one entry of the logits' first axis, but several of their last.

    The last neuron before the logits that tells is asked: of all at once the changes of one may undo another's.
    """
    calls = calls_of(net, inputs, images)
    for name, lengths in reversed(calls.items()):
        runs = _with_neuron_turned(net, inputs, images, calls, name, sum(lengths) - 1)
        time, classes = (len(_entries_changed(runs, axis)) for axis in (axis_of_steps, 2))
        if time != classes:
            return time == 1
    return False


def changed_by_last_step(net: nn.Module, inputs: Tensor, images: int) -> list[bool]:
    """For each tensor that the network returns, whether other spikes in the last step change it."""
    runs = _with_step_turned(net, inputs, images, images)
    return [] if runs is None else [not torch.equal(a, b) for a, b in zip(*runs, strict=True)]


def _first_of_two(runs: tuple[Any, Any] | None) -> tuple[Tensor | None, Tensor | None]:
    """The first tensor of each run's output; None where they cannot be compared."""
    plain, other = (run[0] if isinstance(run, tuple | list) and run else run for run in runs or (None, None))
    if not (isinstance(plain, Tensor) and isinstance(other, Tensor) and plain.shape == other.shape):
        return None, None
    return plain, other


def _with_neuron_turned(
    net: nn.Module, inputs: Tensor, images: int, calls: dict[str, list[int]], name: str, step: int
) -> tuple[Any, Any] | None:
    """`_with_step_turned` for one neuron, on a few of the images, or on all where it takes no few."""
    few = few_of(net, images)
    runs = _with_step_turned(net, inputs, images, few, calls, name, step)
    return _with_step_turned(net, inputs, images, images, calls, name, step) if runs is None and few < images else runs


def _with_step_turned(
    net: nn.Module,
    inputs: Tensor,
    images: int,
    some: int,
    calls: dict[str, list[int]] | None = None,
    only: str | None = None,
    step: int | None = None,
) -> tuple[Any, Any] | None:
    """What the network returns for `some` of the images, and what it does if every neuron, or only one, fires in one
    step, else the last, where it did not, and the other way round."""
    named = find_neurons(net)
    neurons = dict(named.values())
    calls = calls_of(net, inputs, images) if calls is None else calls
    steps = {named[name][0]: sum(lengths) - 1 if step is None else step for name, lengths in calls.items()}
    done: dict[nn.Module, int] = {}

    def turn(neuron: nn.Module, output: Any, *, other: bool) -> Any:
        adapter, before = neurons[neuron], done[neuron]
        done[neuron] += len(adapter.spikes(neuron, output))
        wanted = steps.get(neuron)
        if wanted is None or not before <= wanted < done[neuron]:
            return None
        fired = Fired(neuron, adapter, output)
        at, values = (fired.step_of_each == wanted - before) & other, fired.values
        return fired.with_values(torch.where(at, ((values == 0) * fired.heights).to(values), values))

    def run(*, other: bool) -> Any:
        done.update(dict.fromkeys(neurons, 0))
        turned = list(neurons) if only is None else [named[only][0]]
        # a copy that the forward makes of a neuron is that one
        own = {
            neuron: lambda _module, _given, output, neuron=neuron: turn(neuron, output, other=other)
            for neuron in turned
        }
        with hooked(neuron.register_forward_hook(hook) for neuron, hook in own.items()):
            return run_on(net, inputs, images, some)

    with unheard(net):
        # what is computed otherwise where it is looked at, and rounds otherwise, is so in both
        runs = run(other=False), run(other=True)
    return None if runs[0] is None or runs[1] is None else runs


def lengths_of(net: nn.Module, inputs: Tensor, images: int) -> set[int]:
    """Steps that neurons see in one forward; in one call too, since a neuron may stand at several places."""
    calls = calls_of(net, inputs, images).values()
    return {sum(lengths) for lengths in calls} | {n for lengths in calls for n in lengths if n > 1}


def calls_of(net: nn.Module, inputs: Tensor, images: int) -> dict[str, list[int]]:
    """Steps of each call of each neuron in one forward."""
    seen: dict[str, list[int]] = {}

    def note(name: str, spikes: Any) -> None:
        seen.setdefault(name, []).append(len(spikes))

    few = few_of(net, images)
    with unheard(net), heard(find_neurons(net), note):
        if run_on(net, inputs, images, few) is None and few < images:
            seen.clear()
            run_on(net, inputs, images, images)
    return seen


def few_of(net: nn.Module, images: int) -> int:
    """As many images as show a network's steps: all where a batch's size may be built in."""
    return images if batch_first(net) else min(2, images)


def run_on(net: nn.Module, inputs: Tensor, images: int, some: int) -> Any:
    """What the network returns for `some` of the images; None if it fails on them. It draws no random numbers."""
    part = inputs.narrow(input_axis(net, inputs, images), 0, some).to(device_of(net, inputs.device))
    with forked(part.device), torch.no_grad(), evaluating(net), from_rest(net):
        try:
            return forward(net, part)
        except ModelError:
            # built for one size of batch
            return None
