"""Batches of images of several sizes, of each of which the network is asked before any is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from isofire.adapters import from_rest, input_axis
from isofire.firing.cost.counting.frames import holds_steps
from isofire.firing.cost.counting.kinds import Kind
from isofire.firing.cost.counting.rows import rows_of
from isofire.firing.cost.counting.together import together_for
from isofire.firing.cost.few import few_or_all
from isofire.firing.repeat import tell_unlike
from isofire.running import drawing, evaluating, forward
from isofire.telling import Most

_HELD = 8
"""Batches of one size that wait for one that tells more."""


@dataclass
class _Size:
    """Attributes: `most` of what was told so far, the batch that tells it, batches not counted, what was asked."""

    most: Most = field(default_factory=Most)
    telling: Tensor | None = None
    held: list[Tensor] = field(default_factory=list)
    kind: Kind | None = None


class Sizes:
    """Gives batches on with the kind of their images.

    Images that are the same everywhere tell nothing of a network; some batches of them wait for others of their size.

    Attributes
    ----------
    frames
        Whether inputs hold a part for each step.
    unknown
        Places of which the network does not tell how their rows lie, for some images at least.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.frames, self.unknown = False, set[str]()
        self._model, self._device = model, device
        self._most, self._sizes = Most(), dict[tuple[int, ...], _Size]()

    def see(self, inputs: Tensor, images: int) -> Iterator[tuple[Kind, Tensor]]:
        """A batch of so many images, as the model takes them; gives what can be counted now, on the model's device."""
        axis, given = input_axis(self._model, inputs, images), inputs.to(self._device)
        size = self._sizes.setdefault(tuple(given.movedim(axis, 0).shape[1:]), _Size())
        grows = size.most.grows(given, axis)
        ready = size.most.varied or (size.kind is not None and not grows) or len(size.held) == _HELD
        # a loader may fill the same memory again
        size.held.append(given if ready else given.clone())
        if grows:
            size.telling, size.kind = size.held[-1], None
        if ready:
            yield from self._ready(size, axis)

    def left(self) -> Iterator[tuple[Kind, Tensor]]:
        """What still waits when no more batches come."""
        for size in self._sizes.values():
            if size.held:
                yield from self._ready(size, input_axis(self._model, size.held[0]))

    def _ready(self, size: _Size, axis: int) -> Iterator[tuple[Kind, Tensor]]:
        if size.kind is None:
            assert size.telling is not None
            size.kind, size.telling = self._asked(size.telling, axis), None
        self.unknown |= size.kind.unknown
        for given in size.held:
            yield size.kind, given
        size.held.clear()

    def _asked(self, inputs: Tensor, axis: int) -> Kind:
        images = inputs.shape[axis]
        if grows := self._most.grows(inputs, axis):
            tell_unlike(self._model, inputs, images)
        way = together_for(self._model, inputs, axis)
        few = few_or_all(self._model, inputs, images, 2, self._run)[0]
        if grows:
            self.frames = axis == 1 or holds_steps(self._model, few, axis, strangers=way.strangers)
        lying, unknown = rows_of(self._model, few, partial(way.run, axis=axis), frames=self.frames)
        # whose parts they are is not told by their number
        return Kind(few, axis, replace(way, together=way.together and not lying.parts), lying, unknown)

    def _run(self, inputs: Tensor) -> None:
        with evaluating(self._model), from_rest(self._model), torch.no_grad(), drawing(0, self._device):
            forward(self._model, inputs)
