from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.data import Events, EventSet, events_to_frames
from isofire.errors import DataError, SpecError

HEIGHT, WIDTH = 3, 5


def make_events(rows: list[tuple[int, int, int, int]]) -> Events:
    x, y, p = (torch.tensor([row[i] for row in rows], dtype=torch.uint8) for i in range(3))
    return Events(x, y, p, torch.tensor([row[3] for row in rows], dtype=torch.int32))


def count_by_hand(rows: list[tuple[int, int, int, int]], steps: int, step_us: int) -> np.ndarray:
    frames = np.zeros((steps, 2, HEIGHT, WIDTH), np.float32)
    for x, y, p, t in rows:
        for k in range(steps):
            if k * step_us <= t < (k + 1) * step_us:
                frames[k, p, y, x] += 1
    return frames


RECORDINGS = [
    [(0, 0, 0, 0), (4, 2, 1, 5), (4, 2, 1, 9), (1, 2, 0, 10), (1, 1, 1, 39)],
    [],
    [(3, 0, 1, 0), (3, 0, 1, 0), (2, 1, 0, 100)],
    [(2, 2, 0, 25)],
]


def make_set(recordings: list[list[tuple[int, int, int, int]]] = RECORDINGS, steps: int = 4) -> EventSet:
    offsets = torch.tensor([0, *(len(rows) for rows in recordings)]).cumsum(0)
    labels = torch.arange(len(recordings)) % 2
    events = make_events([row for rows in recordings for row in rows])
    return EventSet("toy", "train", events, offsets, labels, ("a", "b"), HEIGHT, WIDTH, steps, 10)


rows_strategy = st.lists(
    st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.integers(0, 1), st.integers(0, 60)), max_size=30
).map(lambda rows: sorted(rows, key=lambda row: row[3]))


@given(rows_strategy, st.integers(1, 6), st.integers(1, 15))
@settings(max_examples=100, deadline=None)
def test_frames_match_a_count_by_hand(rows: list[tuple[int, int, int, int]], steps: int, step_us: int) -> None:
    frames = events_to_frames(make_events(rows), steps, step_us, HEIGHT, WIDTH)
    assert frames.dtype == torch.float32
    np.testing.assert_array_equal(frames.numpy(), count_by_hand(rows, steps, step_us))


def test_late_events_are_left_out_and_late_frames_empty() -> None:
    events = make_events([(0, 0, 1, 0), (0, 0, 1, 19), (0, 0, 1, 20)])
    frames = events_to_frames(events, 2, 10, HEIGHT, WIDTH)
    assert frames[:, 1, 0, 0].tolist() == [1, 1]
    assert events_to_frames(events, 5, 10, HEIGHT, WIDTH).sum((1, 2, 3)).tolist() == [1, 1, 1, 0, 0]


def test_off_is_channel_0_and_on_is_channel_1() -> None:
    frames = events_to_frames(make_events([(1, 2, 0, 0), (4, 0, 1, 0)]), 1, 10, HEIGHT, WIDTH)
    assert frames.nonzero().tolist() == [[0, 0, 2, 1], [0, 1, 0, 4]]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 9])
def test_batches_are_time_first_and_re_iterable(batch_size: int, channels_last: bool) -> None:
    data = make_set()
    batches = data.batches(batch_size, channels_last=channels_last)
    expected = np.stack([count_by_hand(rows, 4, 10) for rows in RECORDINGS], axis=1)
    for _ in range(2):
        pairs = list(batches)
        assert all(frames.shape[0] == 4 and frames.dtype == torch.float32 for frames, _ in pairs)
        np.testing.assert_array_equal(torch.cat([frames for frames, _ in pairs], dim=1).numpy(), expected)
        assert torch.cat([labels for _, labels in pairs]).tolist() == [0, 1, 0, 1]


def test_channels_last_frames_suit_a_convolution() -> None:
    frames, _ = next(iter(make_set().batches(4, channels_last=True)))
    assert frames.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_take_first_and_recording() -> None:
    data = make_set()
    picked = data.take([2, 0, 1, 2])
    assert picked.labels.tolist() == [0, 0, 1, 0]
    for place, source in enumerate([2, 0, 1, 2]):
        for got, wanted in zip(picked.recording(place), make_events(RECORDINGS[source]), strict=True):
            assert torch.equal(got, wanted)
    assert data.first(3).fingerprint == data.take([0, 1, 2]).fingerprint
    with pytest.raises(SpecError, match=r"0\.\.3, got 4"):
        data.recording(4)
    with pytest.raises(SpecError, match=r"1\.\.4"):
        data.first(5)


def test_the_window_can_be_changed() -> None:
    wide = replace(make_set(), steps=1, step_us=101)
    frames, _ = next(iter(wide.batches(4)))
    assert frames.sum().item() == sum(len(rows) for rows in RECORDINGS)


def test_fingerprint_covers_events_labels_classes_split_window_and_sensor() -> None:
    data = make_set()
    later = data.events._replace(t_us=data.events.t_us + 1)
    others = [
        replace(data, steps=5),
        replace(data, step_us=11),
        replace(data, height=data.height + 1),
        replace(data, width=data.width + 1),
        replace(data, classes=tuple(reversed(data.classes))),
        replace(data, split="test"),
        replace(data, labels=1 - data.labels),
        replace(data, events=later),
        replace(data, offsets=torch.tensor([0, 4, 5, 8, 9])),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 10
    assert data.fingerprint == make_set().fingerprint


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"steps": 0}, SpecError, "steps must be 1 or more, got 0"),
        ({"step_us": 0}, SpecError, "step_us must be 1 microsecond or more, got 0"),
        ({"height": 0}, SpecError, "height and width"),
        ({"split": "dev"}, SpecError, "got 'dev'"),
        ({"width": 4}, DataError, r"event x must lie in 0\.\.3, got 4"),
        ({"height": 2}, DataError, r"event y must lie in 0\.\.1, got 2"),
        ({"offsets": torch.tensor([0, 5, 5, 8, 8])}, DataError, "offsets must rise"),
        ({"offsets": torch.tensor([0, 5, 4, 8, 9])}, DataError, "offsets must rise"),
        ({"offsets": torch.tensor([1, 5, 5, 8, 9])}, DataError, "offsets must rise"),
        ({"labels": torch.tensor([0, 1, 0])}, DataError, "4 samples and 3 labels"),
        ({"labels": torch.tensor([0, 1, 0, 2])}, DataError, r"0\.\.1, got 2"),
    ],
)
def test_refuses_parts_that_do_not_fit(changes: dict, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        replace(make_set(), **changes)


def test_frames_refuse_bad_events_and_windows() -> None:
    events = make_events([(1, 1, 1, 5)])
    with pytest.raises(SpecError, match="steps must be 1 or more"):
        events_to_frames(events, 0, 10)
    with pytest.raises(DataError, match=r"event p must lie in 0\.\.1, got 2"):
        events_to_frames(make_events([(1, 1, 2, 5)]), 1, 10)
    with pytest.raises(DataError, match="times must be 0 or more, got -1"):
        events_to_frames(events._replace(t_us=torch.tensor([-1])), 1, 10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_a_gpu() -> None:
    data = make_set()
    for host, gpu in zip(data.batches(3), data.batches(3, "cuda"), strict=True):
        assert torch.equal(host[0], gpu[0].cpu())
        assert torch.equal(host[1], gpu[1].cpu())
