"""Whether a network gives the same for the same images again, and whatever images are beside them. What it keeps from
one batch to the next, isofire brings to rest in neurons that it knows; a readout that adds up by itself, or a counter,
makes every number depend on what was shown before, and a norm by the batch on what is shown with it."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, from_rest, heard, input_axis
from isofire.adapters.axes import unheard
from isofire.errors import ModelError
from isofire.firing.cost.few import few_or_all
from isofire.running import (
    device_of,
    drawing,
    forward,
    hooked,
    refuse_statistics_of_the_batch,
    several_steps,
    single_steps,
    tensors_in,
)
from isofire.telling import telling

_LOG = logging.getLogger(__name__)
_IMAGES = 6
"""Each is shown alone: what the first of a batch, or its surest image, decides does not change that one."""
_RTOL = 1e-3
"""Kernels may add up in another order; what is kept of a batch is more than that."""


def tell_unlike(model: nn.Module, inputs: Tensor, images: int) -> None:
    """Show a network, in eval mode, a few images twice, each time from rest, and log a warning if it gives something
    else; then each of them beside itself alone, in batches of the same size.

    Parameters
    ----------
    inputs
        A batch of so many images, as the model takes them.

    Raises
    ------
    ModelError
        If what it gives for an image depends on the images beside it.
    """
    refuse_statistics_of_the_batch(model)
    axis = input_axis(model, inputs, images)
    try:
        *_, asked = few_or_all(model, inputs, images, _IMAGES, lambda given: _ask(model, given, axis))
    except ModelError:
        # told with the inputs that were given, once it is shown all of them
        return
    first = asked.first
    if not asked.repeats:
        _LOG.warning(
            "%s gives other numbers when the same images are shown again: it keeps something from one batch to the "
            "next (a state of its own, a counter), or draws random numbers by another generator than torch's, so that "
            "what is measured depends on batches and their order; let its forward begin at rest, or register the "
            "class that keeps it (isofire.adapters.register)",
            type(model).__name__,
        )
    elif asked.failed is not None:
        _LOG.warning(
            "whether %s gives an image other numbers beside other images could not be asked, so that what is measured "
            "may depend on the batch size: it fails on a batch of one image, repeated (%s); show images one by one "
            "(batch_size = 1) if it may",
            type(model).__name__,
            asked.failed,
        )
    elif not asked.alone:
        told = f"{type(model).__name__} gives an image other numbers beside other images"
        if single := [name for name in single_steps(model) if len(first.rows.get(name, ())) == 1]:
            raise ModelError(
                f"{told}: likely because neurons of SpikingJelly in step mode 's' are called once, with all steps, and "
                f"take steps for images; {several_steps(single[0])}"
            )
        if first.turned:
            name, (given, made) = next(iter(first.turned.items()))
            raise ModelError(
                f"{told}: likely because the neurons {name!r} give {made} for currents {given}, so that images are on "
                "another axis from there on; give them currents of as many axes as they are made for (SpikingJelly's "
                "GatedLIFNode takes maps, [T, N, C, H, W])"
            )
        raise ModelError(
            f"{told} (a norm or a softmax over the batch, a loop that ends when all images are done, images and steps "
            "on each other's axes), so that what is measured depends on the batch size, and no number is the network's "
            "own; let each image have its own, or running statistics in eval mode, turn the inputs ([T, N, ...] for "
            "neurons that have steps first), or show images one by one (batch_size = 1)"
        )


class _Given(NamedTuple):
    """What a network returned, of each neuron's calls the spikes of the images asked about, [T, n, ...], and how many
    rows each had, whether the network drew random numbers (how many it draws may depend on the images before), and
    neurons whose spikes have other axes than what they were given: the shapes of both."""

    output: list[Tensor]
    spikes: dict[str, list[Tensor]]
    rows: dict[str, list[int]]
    drew: bool
    turned: dict[str, tuple[list[int], list[int]]]


class _Asked(NamedTuple):
    """The first pass, whether a second gave the same, whether each image gave the same alone, and why that could not be
    asked."""

    first: _Given
    repeats: bool
    alone: bool
    failed: ModelError | None = None


def _ask(model: nn.Module, inputs: Tensor, axis: int) -> _Asked:
    count = inputs.shape[axis]
    order = torch.argsort(-telling(inputs, axis), stable=True).to(inputs.device)
    shown = inputs.index_select(axis, order)
    asked = slice(0, _IMAGES)
    with unheard(model), from_rest(model), torch.inference_mode():
        first, again = _show(model, shown, asked), _show(model, shown, asked)
        repeats = _alike(first.output, again.output)
        if not repeats or count == 1 or first.drew or not _alike(_all_of(first.spikes), _all_of(again.spikes)):
            return _Asked(first, repeats, alone=True)
        del again
        fewer = _shapes_of(model, shown.narrow(axis, 0, count - 1))
        for place in range(min(count, _IMAGES)):
            copies = shown.narrow(axis, place, 1).repeat_interleave(count, axis)
            try:
                beside = _show(model, copies, slice(place, place + 1))
            except ModelError as error:
                return _Asked(first, repeats, alone=True, failed=error)
            if not _is_alike(first, beside, count, place, fewer):
                return _Asked(first, repeats, alone=False)
    return _Asked(first, repeats, alone=True)


def _show(model: nn.Module, inputs: Tensor, asked: slice) -> _Given:
    fired: dict[str, list[Tensor]] = {}
    rows: dict[str, list[int]] = {}

    def hear(name: str, spikes: Tensor) -> None:
        # both may be worked on further
        fired.setdefault(name, []).append(spikes[:, asked].to(torch.float32, copy=True))
        rows.setdefault(name, []).append(spikes.shape[1])

    turned: dict[str, tuple[list[int], list[int]]] = {}

    def compare_axes(name: str, given: Any, output: Any) -> None:
        before, after = ([x.shape for x in tensors_in(part)] for part in (given, output))
        if before and after and len(before[0]) != len(after[0]):
            turned.setdefault(name, (list(before[0]), list(after[0])))

    neurons = find_neurons(model)
    listening = heard(neurons, hear)
    shapes = hooked(
        neuron.register_forward_hook(lambda _module, given, output, name=name: compare_axes(name, given, output))
        for name, (neuron, _) in neurons.items()
    )
    device = device_of(model, inputs.device)
    with drawing(0, device), listening, shapes:
        state = _random_state(device)
        output = _copied(forward(model, inputs))
        return _Given(output, fired, rows, not torch.equal(state, _random_state(device)), turned)


def _random_state(device: torch.device) -> Tensor:
    """Of torch's generators, the CPU's and the device's."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return torch.cat(states)


def _shapes_of(model: nn.Module, inputs: Tensor) -> list[torch.Size] | None:
    """Of what it returns for these; None where it does not take them."""
    try:
        return [x.shape for x in _show(model, inputs, slice(0, 0)).output]
    except ModelError:
        return None


def _is_alike(first: _Given, beside: _Given, images: int, place: int, fewer: list[torch.Size] | None) -> bool:
    """Whether one of the images, the only one asked about in `beside`, has the same spikes and outputs, on one at least
    of the axes that may hold images: of as many numbers, and not of as many for an image fewer too."""

    # neurons that are sent some of the images are sent others here, and that is no difference of an image
    sent = {
        name
        for name in {**first.rows, **beside.rows}
        if (rows := (first.rows.get(name, []), beside.rows.get(name, [])))[0] != rows[1]
        and {*rows[0], *rows[1]} != {images}
    }

    def of_image(given: _Given, row: int) -> list[Tensor]:
        # where neurons see parts of images, whose they are is known of the first alone
        known = [(call, rows) for name, calls in given.spikes.items() if name not in sent
                 for call, rows in zip(calls, given.rows[name], strict=True)]  # fmt: skip
        return [spikes[:, row] for spikes, rows in known if rows and (place == 0 or rows == images)]

    def axes_of(output: int, shape: torch.Size) -> list[int]:
        other = fewer[output] if fewer is not None and len(fewer) == len(first.output) else ()
        known = len(other) == len(shape)
        return [axis for axis, size in enumerate(shape) if size == images and not (known and other[axis] == size)]

    return _alike(of_image(first, place), of_image(beside, 0)) and all(
        any(_close(a.select(axis, place), b.select(axis, place)) for axis in axes)
        for output, (a, b) in enumerate(zip(first.output, beside.output, strict=True))
        if a.shape == b.shape and (axes := axes_of(output, a.shape))
    )


def _all_of(spikes: dict[str, list[Tensor]]) -> list[Tensor]:
    return [call for calls in spikes.values() for call in calls]


def _copied(output: Any) -> list[Tensor]:
    return [x.detach().clone() for x in tensors_in(output)]


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(_close, first, second))


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    size = a.abs()
    size = size[torch.isfinite(size)]
    atol = _RTOL * float(size.max()) if size.numel() else 0.0
    return torch.allclose(a, b, rtol=_RTOL, atol=atol, equal_nan=True)
