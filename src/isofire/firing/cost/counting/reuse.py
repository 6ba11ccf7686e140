"""Which inputs of a layer are the same again within one forward pass, so that their result can be reused.

Inputs that are equal by chance, as blank parts of an image are, are not the same: a forward pass on random numbers in
place of the images tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.tally import Lying, SiteCall
from isofire.running import device_of, drawing

Slot = tuple[int, int]
"""A call of a layer in one forward pass, and a row of it (a step, where rows are steps)."""
Same = Mapping[Slot, Slot]
"""Slot -> the first that sees the same input in every image."""
Image = Sequence[SiteCall]


def same_inputs(images: Sequence[Image], others: Sequence[Image] = ()) -> dict[Slot, Slot]:
    """Inputs of a layer that come from the image alone, and where they came first.

    Parameters
    ----------
    images
        The calls of each image.
    others
        Those of random images; images that are called otherwise tell nothing.

    Examples
    --------
    >>> def call(*keys):
    ...     return SiteCall(torch.zeros(7, len(keys)), False, True, False, 0, keys)
    >>> same_inputs([[call(5), call(5), call(5)]], others=[[call(1), call(2), call(1)]])
    {(0, 0): (0, 0), (1, 0): (1, 0), (2, 0): (0, 0)}
    """
    calls = max(map(len, images))
    longest = [image for image in images if len(image) == calls]
    told = [*longest, *_alike(longest[0], others)]
    first: dict[tuple[int, ...], Slot] = {}
    found: dict[Slot, Slot] = {}
    for call in range(calls):
        for row in range(min(_rows(image[call]) for image in told)):
            keys = tuple(image[call].static[row] for image in told)  # pyright: ignore[reportOptionalSubscript]
            found[call, row] = first.setdefault(keys, (call, row))
    return found


def first_seen(image: Image, same: Same) -> Iterator[Slot]:
    """Slots of one image that see an input that none before them saw."""
    seen: set[tuple[Slot, int]] = set()
    for place, call in enumerate(image):
        for row, key in enumerate((call.static or ())[: 1 if call.again else None]):
            known = same.get((place, row), (place, row)), key
            if known not in seen:
                seen.add(known)
                yield place, row


def comes_again(same: Same) -> bool:
    """Whether any input does."""
    return any(slot != first for slot, first in same.items())


def calls_on_noise(
    model: nn.Module,
    inputs: Tensor,
    run: Callable[[CostMeter, Tensor], None],
    of_data: bool,
    lying: Lying | None = None,
) -> dict[str, list[Image]]:
    """Place -> its calls on random numbers in place of a few images; none where the network does not take them.

    Parameters are those of `on_noise`.
    """
    meter = on_noise(model, inputs, run, of_data, lying)
    return {} if meter is None else {name: list(tally.images) for name, tally in meter.sites.items()}


def on_noise(
    model: nn.Module,
    inputs: Tensor,
    run: Callable[[CostMeter, Tensor], None],
    of_data: bool,
    lying: Lying | None = None,
    *,
    probing: bool = False,
) -> CostMeter | None:
    """A meter that has seen random numbers in place of a few images; None where the network does not take them.

    Parameters
    ----------
    run
        Runs inputs with a meter that counts.
    of_data
        Numbers that the images hold, for networks that take no others, instead of any in their range.
    lying, probing
        As of `CostMeter`.
    """
    noise = _of_data(inputs) if of_data else _in_range(inputs)
    if noise is None:
        return None
    meter = CostMeter(model, lying, probing=probing)
    try:
        with drawing(0, device_of(model, inputs.device)), meter.counting():
            run(meter, noise)
    except ModelError:
        return None
    return meter


def is_told(images: Sequence[Image], others: Sequence[Image]) -> bool:
    """Whether any of the others is called as the longest of the images are."""
    return bool(_alike(max(images, key=len), others))


def _alike(image: Image, others: Sequence[Image]) -> list[Image]:
    return [other for other in others if pattern_of(other) == pattern_of(image)]


def pattern_of(image: Image) -> tuple[int, ...]:
    """Of each of an image's calls how many inputs it tells apart."""
    return tuple(map(_rows, image))


def _in_range(inputs: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    if inputs.dtype == torch.bool:
        return (torch.rand(inputs.shape, generator=chance) < 0.5).to(inputs.device)
    low, high = (float(inputs.double().min()), float(inputs.double().max()))
    high = low + 1 if high == low else high
    drawn = low + (high - low) * torch.rand(inputs.shape, generator=chance, dtype=torch.float64)
    return (drawn if inputs.is_floating_point() else drawn.round()).to(inputs)


def _of_data(inputs: Tensor) -> Tensor | None:
    """Each number as often as any other, so that little is blank; None where all are the same."""
    values = inputs.flatten().unique()
    places = torch.randint(len(values), inputs.shape, generator=torch.Generator().manual_seed(0))
    return values[places.to(inputs.device)] if len(values) > 1 else None


def _rows(call: SiteCall) -> int:
    return len(call.static or ())
