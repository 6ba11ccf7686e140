"""What an epoch of training adds up: losses, hits, and the first step whose loss was not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.training.distributed import Group


class Means(NamedTuple):
    """Over the images so far.

    Parameters
    ----------
    loss
        The task's.
    accuracy
        Share of images that are right.
    further
        The further losses, each over the images for which it counted.
    images
        How many there are.
    """

    loss: float
    accuracy: float
    further: dict[str, float]
    images: float


class EpochSums:
    """Sums on the device, read back only when somebody asks.

    Of loss times images, images right, images; then of each further loss its value times images, and images.

    Parameters
    ----------
    names
        Of the further losses.
    values
        Sums to go on from.
    """

    def __init__(self, names: Sequence[str], group: Group, values: Sequence[float] | None = None) -> None:
        self._names, self._group = names, group
        exact = torch.float32 if group.device.type == "mps" else torch.float64
        self._sums = torch.tensor(values or [0.0] * (3 + 2 * len(names)), dtype=exact, device=group.device)
        # of the whole loss, the task's and each further one
        self._bad_steps = torch.full((2 + len(names),), -1, device=group.device)

    def add(
        self, total: Tensor, task: Tensor, further: Mapping[str, Tensor], right: Tensor, images: int, step: int
    ) -> None:
        """Count a step: its parts and its hits, and whether the whole loss and each part is finite."""
        count, none = self._sums.new_full((), images), self._sums.new_zeros(())
        parts = [task.to(self._sums) * images, right.to(self._sums), count]
        finite = [total.detach().isfinite(), task.isfinite()]
        for name in self._names:
            value = further.get(name)
            parts += [none, none] if value is None else [value.detach().to(self._sums) * images, count]
            finite.append(finite[0].new_tensor(True) if value is None else value.detach().isfinite())
        self._sums += torch.stack(parts)
        bad = (self._bad_steps < 0) & ~torch.stack(finite)
        self._bad_steps = torch.where(bad, step, self._bad_steps)

    def gathered(self) -> Tensor:
        """The sums of every process, a row each."""
        return self._group.gather(self._sums)

    def own(self) -> Means:
        """Of this process."""
        return self._means(self._sums)

    def all(self) -> Means:
        """Of all processes."""
        return self._means(self.gathered().sum(0))

    def first_bad_step(self) -> tuple[int, list[str]] | None:
        """The first step in which a process had a loss that is not finite, and the further losses that were not in it;
        None if there is none."""
        found = self._group.gather(self._bad_steps).tolist()
        steps = [step for process in found for step in process if step >= 0]
        if not steps:
            return None
        first = min(steps)
        return first, [name for i, name in enumerate(self._names, 2) if any(process[i] == first for process in found)]

    def _means(self, sums: Tensor) -> Means:
        loss, right, images, *pairs = sums.tolist()
        further = zip(self._names, pairs[::2], pairs[1::2], strict=True)
        return Means(loss / images, right / images, {name: value / n for name, value, n in further if n}, images)
