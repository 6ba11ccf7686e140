"""Adding up spikes per neuron and image block in one read of the spike tensor, whatever its memory layout."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from isofire.neurons import native

_EXACT = 2**24
"""float32 holds every whole number below this, so sums that stay below it are exact in any order."""


def zero_counts(blocks: int, spikes: Tensor) -> Tensor:
    """Zeros for `add_counts`: int32 [blocks, *neuron_shape], laid out in memory as the neurons of `spikes` are."""
    order = _memory_order(spikes)
    shape = [spikes.shape[2 + dim] for dim in order]
    zeros = torch.zeros([blocks, *shape], dtype=torch.int32, device=spikes.device)
    inverse = [order.index(dim) for dim in range(len(order))]
    return zeros.permute(0, *(1 + dim for dim in inverse))


def add_counts(accumulator: Tensor, spikes: Tensor, block_ids: Tensor) -> Tensor:
    """Add every image's spikes to the row of its block, in `accumulator` itself.

    The spikes are read once, in their own memory order; only the result, `T * N` times smaller per block, is ever
    reordered. Images of one block that follow each other share a pass, so long runs of equal ids are fastest.

    Parameters
    ----------
    accumulator
        int32 [blocks, *neuron_shape], changed in place; fastest when it comes from `zero_counts`.
    spikes
        [T, N, *neuron_shape], whole numbers >= 0 in any dtype, any strides (channels_last needs no copy).
    block_ids
        int64 [N], on the CPU: the row of each image.

    Returns
    -------
    Tensor
        0-d bool on the device of `spikes`: True if every sum was exact, which needs whole numbers >= 0 that add up to
        less than 2**24 per neuron and block in this call. A tensor, so that a GPU is not made to wait for it.

    Examples
    --------
    >>> counts = torch.zeros(2, 3, dtype=torch.int32)
    >>> spikes = torch.tensor([[[1., 0., 1.], [1., 1., 0.]], [[1., 0., 0.], [0., 1., 0.]]])  # [T=2, N=2, 3]
    >>> add_counts(counts, spikes, torch.tensor([0, 1])), counts.tolist()
    (tensor(True), [[2, 0, 1], [1, 2, 0]])
    """
    order = _memory_order(spikes)
    ordered = spikes.permute(0, 1, *(2 + dim for dim in order))
    target = accumulator.permute(0, *(1 + dim for dim in order))
    runs = list(_runs(block_ids))
    # in full precision also inside a caller's autocast region, where a product would be rounded to bfloat16
    with torch.autocast(spikes.device.type, enabled=False):
        # a GPU pays per launch, so it gets one matrix product; a CPU's matrix-vector product runs at memory speed
        sums = _sum_by_vector(ordered, runs) if spikes.device.type == "cpu" else _sum_by_product(ordered, runs)
    whole = sums.to(torch.int32)
    for (block, _, _), row in zip(runs, whole, strict=True):
        target[block].add_(row.view(target.shape[1:]))
    low, high = torch.aminmax(sums)
    return (sums == whole).all() & (low >= 0) & (high < _EXACT)


def add_image_counts(accumulator: Tensor, counts: Tensor, block_ids: Tensor) -> None:
    """Add spikes that a neuron has already summed over T to the rows of their images' blocks, in `accumulator` itself.

    Parameters
    ----------
    accumulator
        As in `add_counts`.
    counts
        uint8 [N, *neuron_shape] on the accumulator's device: `Neuron.spike_counts`.
    block_ids
        int64 [N].
    """
    order = _memory_order(counts.unsqueeze(0))
    ordered = counts.permute(0, *(1 + dim for dim in order))
    target = accumulator.permute(0, *(1 + dim for dim in order))
    if counts.device.type == "cpu" and ordered.is_contiguous() and target.is_contiguous():
        native.tally_(target, ordered, block_ids.contiguous())
    else:
        accumulator.index_add_(0, block_ids.to(counts.device), counts.to(torch.int32))


def over_images(counts: Tensor) -> Tensor:
    """The sum over images of counts uint8 [N, *neuron_shape]: int32 [*neuron_shape]."""
    total = zero_counts(1, counts.unsqueeze(0))
    add_image_counts(total, counts, torch.zeros(len(counts), dtype=torch.int64))
    return total[0]


def _sum_by_vector(ordered: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
    """Float32 [runs, n]: per run and step, the images' rows times a vector of ones."""
    steps, images = ordered.shape[:2]
    ones = torch.ones(images, dtype=torch.float32)
    sums = torch.zeros(len(runs), ordered[0, 0].numel(), dtype=torch.float32)
    for row, (_, start, stop) in zip(sums, runs, strict=True):
        for step in range(steps):
            row.addmv_(ordered[step, start:stop].flatten(1).float().t(), ones[: stop - start])
    return sums


def _sum_by_product(ordered: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
    """Float32 [runs, n]: a 0/1 matrix [runs, T * N] times the spikes as [T * N, n]."""
    steps, images = ordered.shape[:2]
    member = torch.zeros(len(runs), steps, images, dtype=torch.float32)
    for row, (_, start, stop) in zip(member, runs, strict=True):
        row[:, start:stop] = 1.0
    return member.flatten(1).to(ordered.device) @ ordered.reshape(steps * images, -1).float()


def _memory_order(spikes: Tensor) -> list[int]:
    """The neuron dimensions of `spikes`, slowest in memory first."""
    strides = spikes.stride()[2:]
    return sorted(range(len(strides)), key=lambda dim: -strides[dim])


def _runs(block_ids: Tensor) -> Iterator[tuple[int, int, int]]:
    """(block, first image, one past the last image) of each stretch of equal block ids."""
    ids, lengths = torch.unique_consecutive(block_ids, return_counts=True)
    stop = 0
    for block, length in zip(ids.tolist(), lengths.tolist(), strict=True):
        start, stop = stop, stop + length
        yield block, start, stop
