"""What the calls of one place with weights come to, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isofire.firing.cost.counting.reuse import Image, Same, first_seen
from isofire.firing.cost.counting.tally import ALL, DENSE, EVENTS, NONZERO, REAL, SiteCall, SiteTally


@dataclass(frozen=True)
class Summed:
    """Of one site: sums [N, 7], multiply-accumulates [N] worked on once and at every step, events [N, T or 1]."""

    sums: np.ndarray
    once: np.ndarray
    every: np.ndarray
    events: np.ndarray
    counted: bool


def summed(
    tally: SiteTally,
    same: Same,
    steps: int,
    *,
    frames: bool,
    stepped: bool,
    loops: Sequence[bool | None],
    at_once: Sequence[bool],
) -> Summed:
    """Add up the calls of a site.

    Parameters
    ----------
    same
        Which of its inputs come again, see `isofire.firing.cost.counting.reuse`.
    steps
        T.
    frames
        Whether the network's inputs hold a part for each step.
    stepped
        Whether neurons see single steps.
    loops
        Of each image, whether calls between which no neuron runs are steps, and not parts of it that every step sees;
        None where nobody asked.
    at_once
        Of each image, whether a call works on all steps.
    """
    calls = max(map(len, tally.images))
    by_slot = [[image[slot] for image in tally.images if slot < len(image)] for slot in range(calls)]
    counted = _counted(by_slot)
    rows, once, every, events = [], [], [], []
    for image, steps_called, whole in zip(tally.images, loops, at_once, strict=True):
        its = [_kept(call, sure) for call, sure in zip(image, counted, strict=False)]
        rows.append(sum((call.sums.sum(1).numpy() for call in its), np.zeros(REAL + 1)))
        again = 1 if whole or is_again(its, steps, stepped=stepped, loops=steps_called) else steps
        first, second = _multiplications(its, same, again, frames=frames)
        once.append(first)
        every.append(second)
        found = _events(image, steps)
        events.append(found.sum(keepdims=True) if steps_called is False else found)
    length = min(len(item) for item in events)
    per_step = np.stack([item if len(item) == length else item.sum(keepdims=True) for item in events])
    total = np.stack(rows)
    return Summed(total, np.array(once), np.array(every), per_step, all(counted) and not total[:, REAL].any())


def is_lone(call: SiteCall) -> bool:
    """Whether it sees something of the image, all at once."""
    return call.static is not None and len(call.static) == 1 and not call.constant


def is_again(calls: Image, steps: int, *, stepped: bool, loops: bool | None) -> bool:
    """Whether what a place sees of the image all at once is worked on at each step already, or is more than one image.

    Where neurons run between calls of a layer, that is a loop over time if they see single steps (`stepped`), and other
    images if they see all. What a neuron does is part of its steps.
    """
    lone = [call for call in calls if is_lone(call) and call.sums[REAL].any()]
    if lone and all(call.inside for call in lone):
        return True
    if len({call.neuron_calls for call in lone}) > 1:
        return stepped
    if loops is None:
        # a call on all steps is none of one, and one that spikes come to tells nothing of those that see the image
        still = all(is_lone(call) or call.constant for call in calls)
        return len(calls) == steps > 1 and still and all(call.sums.shape[1] == 1 for call in calls)
    return loops


def _counted(by_slot: list[list[SiteCall]]) -> list[bool]:
    """Whether events arrive in each call. A constant is one where all else that arrives there is; a state at rest, of
    zeros, where anything is."""
    fixed = [all(call.constant for call in slot) for slot in by_slot]
    counted = [all(call.counted for call in slot) for slot in by_slot]
    moving = [sure for sure, still in zip(counted, fixed, strict=True) if not still]
    if not (moving and all(counted)):
        # beside calls that see no events, values that are whole numbers are so by chance
        guessed = [any(call.by_value and call.static is None for call in slot) for slot in by_slot]
        counted = [sure and not guess for sure, guess in zip(counted, guessed, strict=True)]
        moving = [sure for sure, still in zip(counted, fixed, strict=True) if not still]
    rest = [not any(bool(call.sums[EVENTS].any()) for call in slot) for slot in by_slot]
    all_, some = bool(moving) and all(moving), any(moving)
    return [
        sure and (not still or all_ or (some and silent))
        for sure, still, silent in zip(counted, fixed, rest, strict=True)
    ]


def _kept(call: SiteCall, counted: bool) -> SiteCall:
    """The call with its events, or all of it as a product."""
    if counted:
        return call
    sums = call.sums.clone()
    sums[[ALL, NONZERO]], sums[REAL] = 0, sums[DENSE]
    return replace(call, sums=sums)


def _multiplications(calls: Image, same: Same, again: int, *, frames: bool) -> tuple[float, float]:
    """Multiply-accumulates of one image, with each input that comes from the image alone worked on once, and at every
    step.

    What a forward does once with the image is reused, and so is taken T times for the latter (`again`); not so what
    depends on nothing (a state at rest), a first step of weights that are used at each, nor what is done for all steps.
    """
    executed = sum(map(_real, calls))
    if frames:
        return executed, executed
    static = [call for call in calls if call.static is not None and call.sums[REAL].any()]
    lone = [call for call in static if is_lone(call)]
    moving = executed - sum(map(_real, static))
    amounts = [call.sums[REAL].tolist() for call in calls]
    once = sum(amounts[place][row] for place, row in first_seen(calls, same))
    every = sum(map(_real, lone)) * again + sum(_real(call) for call in static if not is_lone(call))
    return once + moving, every + moving


def _real(call: SiteCall) -> float:
    return float(call.sums[REAL].sum())


def _events(calls: list[SiteCall], steps: int) -> np.ndarray:
    """Non-zero inputs of each step, [T]; of all steps together, [1], where they cannot be told apart."""
    total = np.zeros(steps)
    lone = [call for call in calls if call.sums.shape[1] == 1]
    for call in calls:
        if call.sums.shape[1] == steps > 1:
            total += call.sums[EVENTS].numpy()
    if not lone or steps == 1:
        return total if steps > 1 else np.array([sum(float(call.sums[EVENTS].sum()) for call in calls)])
    values = np.array([float(call.sums[EVENTS].sum()) for call in lone])
    if len(lone) % steps or len(lone) != len(calls):
        return np.array([values.sum() + total.sum()])
    # a loop over steps has neurons between its calls of a layer, or is the layer's own
    inner = len({call.neuron_calls for call in lone}) >= steps
    return values.reshape(steps, -1).sum(1) if inner else values.reshape(-1, steps).sum(0)
