"""Rows of a place in which an image comes again for every step, wherever the steps lie among them."""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.firing.cost.counting.row_sums import near_of
from isofire.firing.cost.counting.tally import Lying


class Repeated:
    """Arranges the rows of places by steps that see the same."""

    def __init__(self) -> None:
        self.ways: dict[str, set[str]] = {}
        """Place -> ways of `Lying` in which all of its rows so far are the same at each step, where it is not known."""

    def see(
        self,
        site: str,
        lying: Lying,
        keys: list[int],
        rows: Tensor | None,
        image: Tensor,
        step: Tensor | None,
        steps: int,
    ) -> tuple[Tensor | None, bool]:
        """Steps of a call's rows, and whether each is known to see the same, however it was rounded.

        Parameters
        ----------
        lying
            Places of which it is known, and how their rows lie.
        keys, rows
            Of each row: equal keys are equal numbers; where no rows are kept nothing is found out.
        image, step
            Of each row, steps as far as axes tell them.
        """
        arranged = _arranged(image, step, steps)
        known = next((way for way in arranged if site in getattr(lying, way)), None)
        if known is None:
            if rows is not None:
                found = {way for way, index in arranged.items() if _are_alike(rows, index, keys, way)}
                self.ways[site] = self.ways.get(site, found) & found
            return step, False
        index, step = arranged[known], torch.empty_like(image)
        step[index] = torch.arange(steps).view(1, -1, 1).expand(index.shape)
        return step, True


def _arranged(image: Tensor, step: Tensor | None, steps: int) -> dict[str, Tensor]:
    """Way -> rows as [images, steps, parts of an image]; none where they do not come out even."""
    if steps == 1:
        return {}
    counts = image.bincount()
    own = int(counts[0])
    if own % steps or bool((counts != own).any()):
        return {}
    if step is not None:
        return {"steps": (image * steps + step).argsort(stable=True).view(len(counts), steps, -1)}
    order = image.argsort(stable=True)
    return {
        "first": order.view(len(counts), steps, -1),
        "last": order.view(len(counts), -1, steps).transpose(1, 2),
    }


def _are_alike(rows: Tensor, index: Tensor, keys: list[int], way: str) -> bool:
    """Whether each step sees the same but for rounding, which other images may show where these do not."""
    named = torch.tensor(keys)[index]
    if bool((named == named[:, :1]).all()):
        return True
    place = index.to(rows.device)
    apart = torch.stack([(rows[place[:, step]] - rows[place[:, 0]]).abs().max() for step in range(index.shape[1])])
    return bool((apart <= near_of(rows) * rows.abs().max()).all())
