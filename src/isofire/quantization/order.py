"""Whether calibration images are a fair sample: sorted by class they are none, neither batch by batch nor as the first
of their set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)
_LEAST = 32
"""Neighbours of unlike class that a shuffled set is expected to have before anything is said of its order."""


def is_sorted(labels: Tensor) -> bool:
    """Whether neighbours share their class far more often than in a shuffled set: at most half as many pairs differ.

    Shuffled, half is four standard deviations away or more, see the runs test of Wald and Wolfowitz (1940).

    Examples
    --------
    >>> is_sorted(torch.arange(100) // 10), is_sorted(torch.arange(100) % 10)
    (True, False)
    """
    n = len(labels)
    counts = torch.unique(labels, return_counts=True)[1].double()
    if n < 2:
        return False
    unlike = (n - 1) * (1.0 - float((counts * (counts - 1)).sum()) / (n * (n - 1)))
    return unlike >= _LEAST and int((labels[1:] != labels[:-1]).sum()) <= unlike / 2


def tell_sorted(seen: Sequence[Tensor], data: object, *, by_batch: bool) -> None:
    """Log a warning if the images of a calibration come sorted by class where that makes it wrong.

    Parameters
    ----------
    seen
        Labels of each batch.
    data
        What the batches came from; where it has all labels, they tell whether classes are missing.
    by_batch
        Whether something was measured batch by batch, as batch norms are.
    """
    if not seen:
        return
    part = torch.cat([labels.cpu() for labels in seen])
    whole = _all_labels(data)
    missing = 0 if whole is None else len(set(whole.unique().tolist()) - set(part.unique().tolist()))
    if not is_sorted(part if whole is None else whole) or not (missing or (by_batch and len(seen) > 1)):
        return
    said = f"; {missing} classes are not among its {len(part)} images" if missing else ""
    _LOG.warning(
        "the calibration images come sorted by class%s: ranges and the statistics of batch norms are those of few "
        "classes at a time. Shuffle them first (of an image set: images.take(torch.randperm(len(images))))",
        said,
    )


def _all_labels(data: object) -> Tensor | None:
    labels = data[1] if isinstance(data, tuple) and len(data) == 2 else getattr(data, "labels", None)
    return labels.cpu() if isinstance(labels, Tensor) and labels.ndim == 1 else None
