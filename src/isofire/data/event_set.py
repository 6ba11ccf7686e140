"""Event-camera recordings with their labels, turned into frames of counts batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from isofire.data.batches import BatchedSet
from isofire.data.checks import check_first, check_indices, check_labels, check_split, fingerprint
from isofire.errors import DataError, SpecError


class Events(NamedTuple):
    """Events in order of time, one entry an event in each field.

    `x` (column) and `y` (row) are uint8 pixels; `p` is uint8 polarity, 0 for OFF (darker) and 1 for ON (brighter);
    `t_us` is int32, microseconds since the recording began.
    """

    x: Tensor
    y: Tensor
    p: Tensor
    t_us: Tensor


def events_to_frames(events: Events, steps: int, step_us: int, height: int = 34, width: int = 34) -> Tensor:
    """Count a recording's events per time step, polarity and pixel.

    Parameters
    ----------
    events
        One recording.
    steps
        T, frames made.
    step_us
        Microseconds a frame: frame k counts the events with k * step_us <= t < (k + 1) * step_us.
    height, width
        Sensor size in pixels.

    Returns
    -------
    Tensor
        float32 [T, 2, H, W]: whole counts, possibly above 1. Channel 0 holds OFF events (polarity 0), channel 1 ON
        events (polarity 1). Events at or after `steps * step_us` are left out; frames after the last event are zero.

    Raises
    ------
    SpecError
        If `steps`, `step_us`, `height` or `width` is below 1.
    DataError
        If an event lies outside the sensor or outside the recording's clock.

    Examples
    --------
    >>> recording = Events(*(torch.tensor(v) for v in ([3], [5], [1], [1500])))
    >>> frames = events_to_frames(recording, steps=2, step_us=1000)
    >>> frames.nonzero().tolist()
    [[1, 1, 5, 3]]
    """
    check_window(steps, step_us)
    check_events(events, height, width, "events_to_frames")
    sample = torch.zeros_like(events.t_us, dtype=torch.int64)
    return _count(events, sample, (steps, 1, height, width), step_us, channels_last=False).squeeze(1)


def check_window(steps: int, step_us: int) -> None:
    """Raise `SpecError` unless there is at least one step of at least a microsecond."""
    if steps < 1:
        raise SpecError(f"steps must be 1 or more, got {steps}")
    if step_us < 1:
        raise SpecError(f"step_us must be 1 microsecond or more, got {step_us}")


def check_events(events: Events, height: int, width: int, place: str) -> None:
    """Raise `DataError` if an event lies outside a sensor of `height` x `width` pixels or has no valid polarity."""
    if min(height, width) < 1:
        raise SpecError(f"height and width must be 1 or more, got {height} and {width} ({place})")
    bounds = {"x": (events.x, width), "y": (events.y, height), "p": (events.p, 2)}
    for axis, (values, bound) in bounds.items():
        if values.numel() == 0:
            continue
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= bound:
            wrong = low if low < 0 else high
            raise DataError(f"event {axis} must lie in 0..{bound - 1}, got {wrong} ({place}); the file is altered")
    if events.t_us.numel() and int(events.t_us.min()) < 0:
        raise DataError(f"event times must be 0 or more, got {int(events.t_us.min())} us ({place})")


@final
@dataclass(frozen=True, eq=False)
class EventSet(BatchedSet):
    """One split of a set of event recordings.

    A batch is [T, N, 2, H, W], time first, and goes to the model as it is: event counts as float32, not normalized (see
    `events_to_frames`), counted on the device where they are wanted. Images are the other way: a batch of an `ImageSet`
    is [N, C, H, W] and the model makes the time steps.

    Parameters
    ----------
    name, split, labels, classes
        As in `ImageSet`.
    events
        The events of all recordings, one recording after another.
    offsets
        int64 [N + 1]: recording i holds events `offsets[i]:offsets[i + 1]`.
    height, width
        Sensor size in pixels.
    steps, step_us
        T and the microseconds a step; `dataclasses.replace(event_set, steps=100, step_us=3000)` changes them.

    Raises
    ------
    SpecError
        If the split is unknown or the time window empty.
    DataError
        If the parts do not fit together or an event lies outside the sensor.
    """

    name: str
    split: str
    events: Events
    offsets: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    height: int
    width: int
    steps: int
    step_us: int

    def __post_init__(self) -> None:
        place = f"{self.name}, {self.split}"
        check_split(self.split)
        check_window(self.steps, self.step_us)
        check_labels(self.labels, len(self.offsets) - 1, self.classes, place)
        lengths = {len(values) for values in self.events}
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if lengths != {ends[1]} or ends[0] != 0 or bool((self.offsets.diff() < 0).any()):
            raise DataError(f"offsets must rise from 0 to the number of events, got {ends} for {lengths} ({place})")
        check_events(self.events, self.height, self.width, place)

    def __repr__(self) -> str:
        window = f"{self.steps} steps of {self.step_us} us"
        return f"EventSet({self.name!r}, {self.split!r}, {len(self)} recordings, {window})"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of split, class names, time window, sensor size, events and labels: sha256, 64 hexadecimal digits."""
        window = [self.steps, self.step_us, self.height, self.width]
        header = json.dumps(["events", self.split, self.classes, *window])
        return fingerprint(header, (*self.events, self.offsets, self.labels))

    def recording(self, index: int) -> Events:
        """Return the events of one recording."""
        check_indices([index], len(self))
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Events(*(values[span] for values in self.events))

    def take(self, indices: Tensor | Iterable[int]) -> EventSet:
        """Pick recordings by number, in the order given; see `ImageSet.take`."""
        picked = check_indices(indices, len(self))
        lengths = self.offsets.diff()[picked]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        shift = (self.offsets[picked] - offsets[:-1]).repeat_interleave(lengths)
        gather = torch.arange(int(offsets[-1])) + shift
        events = Events(*(values[gather] for values in self.events))
        return replace(self, events=events, offsets=offsets, labels=self.labels[picked])

    def first(self, n: int) -> EventSet:
        """Keep the first `n` recordings; see `ImageSet.first`."""
        check_first(n, len(self))
        events = Events(*(values[: int(self.offsets[n])] for values in self.events))
        return replace(self, events=events, offsets=self.offsets[: n + 1], labels=self.labels[:n])

    def _batch(self, start: int, stop: int, device: torch.device, channels_last: bool) -> tuple[Tensor, Tensor]:
        span = slice(int(self.offsets[start]), int(self.offsets[stop]))
        events = Events(*(values[span].to(device, non_blocking=True) for values in self.events))
        lengths = self.offsets[start : stop + 1].diff().to(device)
        sample = torch.arange(stop - start, device=device).repeat_interleave(lengths)
        shape = (self.steps, stop - start, self.height, self.width)
        frames = _count(events, sample, shape, self.step_us, channels_last)
        return frames, self.labels[start:stop].to(device, non_blocking=True)


def _count(
    events: Events, sample: Tensor, shape: tuple[int, int, int, int], step_us: int, channels_last: bool
) -> Tensor:
    """Count events into float32 [T, N, 2, H, W]; `sample` [events] gives each event's place in the batch."""
    steps, count, height, width = shape
    step = events.t_us.to(torch.int64).div(step_us, rounding_mode="floor")
    kept = step < steps
    x, y, p = (values[kept].to(torch.int64) for values in (events.x, events.y, events.p))
    frame = step[kept] * count + sample[kept]
    pixel = y * width + x
    area = height * width
    flat = (frame * area + pixel) * 2 + p if channels_last else (frame * 2 + p) * area + pixel
    counts = torch.zeros(steps * count * 2 * area, device=flat.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.float32))
    if channels_last:
        return counts.view(steps, count, height, width, 2).permute(0, 1, 4, 2, 3)
    return counts.view(steps, count, 2, height, width)
