"""Which images of a batch stand for all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from isofire.telling import Most, pick, telling

BLANK, GREY, EVENTS, SIGNED, REAL = (
    torch.tensor(values) for values in ([0.0, 0, 0], [-0.4] * 3, [0.0, 1, 2], [-1.0, 0, 1], [0.2, -0.3, 0.7])
)
IMAGES = torch.stack([BLANK, BLANK, EVENTS, SIGNED, GREY, REAL, REAL, 2 * REAL])


def test_real_numbers_tell_more_than_events_and_these_more_than_nothing() -> None:
    assert telling(IMAGES, 0).tolist() == [0, 0, 1, 1, 2, 3, 3, 3]
    assert telling(IMAGES.unsqueeze(0).expand(4, *IMAGES.shape), 1).tolist() == [0, 0, 1, 1, 2, 3, 3, 3]
    # beyond -1, whole numbers below 0 are no events
    assert telling(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), 0).tolist() == [3, 1]


@pytest.mark.parametrize("dtype", [
    torch.uint8, torch.uint16, torch.uint64, torch.int64, torch.bool, torch.float16, torch.bfloat16,
    torch.float8_e4m3fn,
])  # fmt: skip
def test_of_any_type(dtype: torch.dtype) -> None:
    images = torch.tensor([[0, 0], [0, 1], [1, 1]]).to(dtype)
    assert telling(images, 0).tolist() == [0, 1, 0]
    assert torch.equal(pick(images, 0, 2), images[[1, 0]])


@pytest.mark.parametrize(("rows", "chosen"), [
    ([5, 7, 6], [5, 7]), ([0, 1, 6], [6, 0]), ([0, 1, 5, 6, 7], [5, 7]), ([5, 6, 0], [5, 0]), ([5, 6], [5, 6]),
    ([0, 1], [0, 1]), ([3], [3]), ([7, 5], [7, 5]), ([0, 2, 4, 5], [5, 4]), ([5, 2, 7], [5, 7]),
])  # fmt: skip
@pytest.mark.parametrize("axis", [0, 1])
def test_those_that_tell_most_come_first_and_none_twice(rows: list[int], chosen: list[int], axis: int) -> None:
    def shown(places: list[int]) -> Tensor:
        return IMAGES[places] if axis == 0 else IMAGES[places].unsqueeze(0).expand(3, -1, -1)

    assert torch.equal(pick(shown(rows), axis, 2), shown(chosen))


def test_batches_that_tell_more_than_those_before() -> None:
    most = Most()
    told = [most.grows(IMAGES[rows], 0) for rows in ([0, 1], [0], [2, 0], [3], [4], [2], [5, 0], [7])]
    assert told == [True, False, True, False, True, False, True, False]


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("size", [(8, 8), (8,)])
def test_a_blank_image_stays_blank_where_each_channel_is_normalized(size: tuple[int, ...], steps: int) -> None:
    mean, std = (torch.tensor(values).reshape(3, *[1] * len(size)) for values in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25]))
    images = torch.zeros(3, 3, *size)
    images[1:] = torch.rand(images[1:].shape, generator=torch.Generator().manual_seed(0))
    images = (images - mean) / std
    axis = 1 if steps else 0
    shown = images.expand(steps, *images.shape) if steps else images
    assert telling(shown, axis).tolist() == [2, 3, 3]
    assert torch.equal(pick(shown, axis, 2), shown.narrow(axis, 1, 2))


def test_features_that_differ_are_no_blank_channels() -> None:
    features = torch.stack([REAL, EVENTS, BLANK])
    for shape in ((3, 3), (3, 3, 1), (3, 3, 1, 1), (3, 1, 3), (3, 1, 1, 3)):
        assert telling(features.reshape(shape), 0).tolist() == [3, 1, 0]


def test_complex_numbers_are_real_in_either_part() -> None:
    assert telling(torch.complex(torch.ones(2, 3), torch.stack([BLANK, REAL])), 0).tolist() == [2, 3]


def test_numbers_that_are_none_are_real() -> None:
    assert telling(torch.tensor([[0, float("nan")], [0, float("inf")]]), 0).tolist() == [3, 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_batch_is_told_without_a_copy_of_it(dtype: torch.dtype, axis: int) -> None:
    batch = torch.randint(0, 200, (64, 64, 3, 16, 16)).to(dtype)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        telling(batch, axis)
    taken = [event.self_cpu_memory_usage for event in told.events()]
    assert max(taken) < batch.nbytes / 16
