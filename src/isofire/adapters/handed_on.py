"""States that a step returned, found among those that a network hands to the next: by their values.

A loop may detach, copy, stack, sort or thin out what it hands on, or write over it: neither the object nor its memory
tells whose state it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isofire.errors import ModelError
from isofire.neurons.fast_path import in_a_trace


class Decided:
    """What was decided of a step's states, for where the states that were returned no longer show it.

    Parameters
    ----------
    states
        [N, ...] as the step returned them; a copy is kept.
    decisions
        Of the same shape.
    """

    def __init__(self, states: Tensor, decisions: Tensor) -> None:
        self.states, self.decisions = states.detach().clone(), decisions

    def of(self, given: Tensor, afresh: Callable[[Tensor], Tensor]) -> Tensor:
        """Decisions for the states that a network hands to the next step, of the shape of `given`.

        An image all of whose numbers are those of an image of the step before has its decisions, wherever it stands. In
        images that the network has changed, numbers that are what they were at their place have theirs. For all others,
        and for images that are zero throughout, as at rest, `afresh` decides by the state handed on.

        Raises
        ------
        ModelError
            If images came in another order or number, and one may be either of two that were decided differently.
        """
        given = given.detach()
        if given.is_floating_point() and given.dtype != self.states.dtype:
            # a loop may keep its states at half precision: equal is what was rounded alike
            return Decided(self.states.to(given.dtype), self.decisions).of(given, afresh)
        states, in_place = self.states, given.shape == self.states.shape
        if in_a_trace():
            # the same operations run for other inputs
            return self._by_place(given, afresh(given)) if in_place else afresh(given)
        alike = in_place or (given.ndim > 1 and given.shape[1:] == states.shape[1:])
        if not alike or given.device != states.device or not bool(given.any()):
            return afresh(given)
        if in_place and torch.equal(given, states):
            return self.decisions
        if torch.equal(afresh(states).to(self.decisions.dtype), self.decisions):
            # the states show it
            return afresh(given)
        by = self._by_place if in_place and not self._is_sorted_anew(given) else self._by_image
        return by(given, afresh(given))

    def _is_sorted_anew(self, given: Tensor) -> bool:
        """Whether images are those of the step before in another order: none occurs more often than there."""
        if given.ndim < 2:
            return False
        count, moving = len(given), ~_at_rest(given)
        changed = ~(given == self.states).flatten(1).all(1) & moving
        groups = self._groups(given)
        size = int(groups.max()) + 1
        before, now = groups[:count].bincount(minlength=size), groups[count:][moving].bincount(minlength=size)
        return bool(changed.any()) and bool((now <= before).all())

    def _by_place(self, given: Tensor, fresh: Tensor) -> Tensor:
        same = (given == self.states) & _wide(~_at_rest(given), given)
        return torch.where(same, self.decisions, fresh)

    def _by_image(self, given: Tensor, fresh: Tensor) -> Tensor:
        source = self._sources(given)
        decisions, twin = self.decisions, self._sources(self.states)
        unlike = (twin >= 0) & (decisions != decisions[twin]).flatten(1).any(1)
        if bool((either := torch.isin(source, twin[unlike])).any()):
            raise ModelError(
                f"image {int(either.nonzero()[0])} of the states that are handed to the next step may be either of two "
                "images of the step before: their states are equal after rounding, and one alone was above the "
                "threshold before it (placement 'post_reset'); hand states on in the order in which the step returned "
                "them, or take placement 'pre_fire'"
            )
        return torch.where(_wide(source >= 0, given), decisions[source], fresh)

    def _sources(self, given: Tensor) -> Tensor:
        """The first image of the step before with the same numbers, [N'] int64; -1 for none, and for images at rest."""
        count = len(self.states)
        groups = self._groups(given)
        numbers = torch.arange(count, device=given.device)
        first = torch.full_like(groups, count).scatter_reduce(0, groups[:count], numbers, "amin")[groups[count:]]
        return torch.where((first < count) & ~_at_rest(given), first, -1)

    def _groups(self, given: Tensor) -> Tensor:
        """One number for all images with the same numbers, [N + N'] int64: of the step before, then of `given`."""
        # 0 and -0 are equal
        rows = torch.cat([self.states, given]).flatten(1) + 0.0
        return rows.unique(dim=0, return_inverse=True)[1]


def _at_rest(states: Tensor) -> Tensor:
    """Which images are zero throughout, [N] bool; a state of one axis or none is one image."""
    return (states == 0).flatten(1).all(1) if states.ndim > 1 else (states == 0).all()


def _wide(images: Tensor, states: Tensor) -> Tensor:
    return images.view(-1, *[1] * (states.ndim - 1)) if states.ndim > 1 else images
