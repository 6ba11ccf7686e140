"""Counting against brute force, over memory layouts, dtypes and block patterns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isofire.firing import add_counts, zero_counts
from isofire.neurons import native
from isofire.neurons.counting import _memory_order, _runs, _sum_by_product, _sum_by_vector, add_image_counts


def brute_force(spikes: Tensor, block_ids: Tensor, blocks: int) -> Tensor:
    counts = torch.zeros(blocks, *spikes.shape[2:], dtype=torch.int64)
    for step in range(spikes.shape[0]):
        for image in range(spikes.shape[1]):
            counts[int(block_ids[image])] += spikes[step, image].long()
    return counts


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "image first in memory": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "neurons before images": lambda x: x.permute(2, 3, 4, 1, 0).contiguous().permute(4, 3, 0, 1, 2),
    "every second column": lambda x: torch.stack([x, x], -1).flatten(4)[..., ::2],
    "cut from a larger map": lambda x: torch.nn.functional.pad(x, (1, 2, 1, 0))[..., 1:, 1:-2],
    "same spikes at every step": lambda x: x[:1].expand_as(x),
    "same spikes for every image": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8])
def test_any_layout_and_dtype(layout: str, dtype: torch.dtype) -> None:
    spikes = LAYOUTS[layout](torch.randint(0, 4, (3, 7, 2, 4, 5)).to(dtype))
    ids = torch.tensor([2, 2, 0, 0, 0, 1, 2])
    counts = zero_counts(4, spikes)
    assert bool(add_counts(counts, spikes, ids))
    assert counts.dtype == torch.int32
    assert torch.equal(counts.long(), brute_force(spikes, ids, 4))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_shape_and_blocks(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    steps, images, blocks = (data.draw(st.integers(1, 5)) for _ in range(3))
    ids = torch.tensor(data.draw(st.lists(st.integers(0, blocks - 1), min_size=images, max_size=images)))
    spikes = torch.randint(0, 3, (steps, images, *shape)).float()
    order = data.draw(st.permutations(range(spikes.ndim)))
    spikes = spikes.permute(*order).contiguous().permute(*(order.index(dim) for dim in range(spikes.ndim)))
    counts = torch.zeros(blocks, *shape, dtype=torch.int32)
    assert bool(add_counts(counts, spikes, ids))
    assert torch.equal(counts.long(), brute_force(spikes, ids, blocks))


def test_the_gpu_path_counts_the_same() -> None:
    spikes = LAYOUTS["channels_last"](torch.randint(0, 3, (4, 9, 3, 2, 5)).float())
    ordered = spikes.permute(0, 1, *(2 + dim for dim in _memory_order(spikes)))
    runs = list(_runs(torch.tensor([0, 0, 0, 1, 1, 2, 0, 0, 0])))
    assert runs == [(0, 0, 3), (1, 3, 5), (2, 5, 6), (0, 6, 9)]
    assert torch.equal(_sum_by_product(ordered, runs), _sum_by_vector(ordered, runs))


@pytest.mark.skipif(native.library() is None, reason="the compiled kernels are not built here")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", ["contiguous", "channels_last"])
def test_counts_per_image_in_any_layout(layout: str, other: str) -> None:
    spikes = LAYOUTS[layout](torch.randint(0, 2, (3, 7, 2, 4, 5)))
    per_image = LAYOUTS[layout](spikes.sum(0, keepdim=True))[0].to(torch.uint8)
    ids = torch.tensor([2, 2, 0, 0, 0, 1, 2])
    counts = zero_counts(4, LAYOUTS[other](spikes))
    add_image_counts(counts, per_image, ids)
    add_image_counts(counts, per_image, ids)
    expected = brute_force(per_image.unsqueeze(0), ids, 4)
    assert torch.equal(counts.long(), 2 * expected)


def test_counts_are_added_to_what_is_there() -> None:
    counts = torch.tensor([[5, 6], [7, 8]], dtype=torch.int32)
    add_counts(counts, torch.ones(2, 1, 2), torch.tensor([1]))
    assert counts.tolist() == [[5, 6], [9, 10]]


def test_zero_counts_follow_the_memory_order_of_the_spikes() -> None:
    spikes = LAYOUTS["channels_last"](torch.zeros(2, 3, 4, 5, 6))
    counts = zero_counts(2, spikes)
    assert counts.shape == (2, 4, 5, 6)
    assert counts.stride()[1:] == spikes.stride()[2:]


@pytest.mark.parametrize("bad", [0.5, 1 / 3, -1.0, float("nan"), float("inf"), 2.0**24])
def test_values_that_are_no_counts_are_told(bad: float) -> None:
    spikes = torch.zeros(2, 3, 4)
    spikes[1, 2, 3] = bad
    assert not bool(add_counts(torch.zeros(1, 4, dtype=torch.int32), spikes, torch.zeros(3, dtype=torch.int64)))


def test_sums_right_below_the_limit_are_exact() -> None:
    spikes = torch.full((3, 1, 2), (2**24 - 1) / 3)
    counts = torch.zeros(1, 2, dtype=torch.int32)
    assert bool(add_counts(counts, spikes, torch.tensor([0])))
    assert counts.tolist() == [[2**24 - 1] * 2]
