"""Which images of a batch stand for all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float16, torch.bfloat16])
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
