"""Whether a network knows its classes at all: its accuracy beside that of guessing.

A network at chance is no reference. It was not trained, its weights were not loaded, or the data are not those that it
was trained on; that a quantized network keeps its accuracy then says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from isofire.firing.evidence.decisions import share_interval
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import LEVEL


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Accuracy of a network beside that of guessing as often each class as it does.

    Parameters
    ----------
    images, right
        How many images, and how many of them were put in the right class.
    guessing
        Share of images that would be right if the same answers were dealt out to the images blindly: over the classes,
        the sum of share of answers x share of labels (what Cohen's kappa of 1960 corrects for). So unequal classes do
        not make a network look good that always gives the largest. Images of one class alone cannot tell; for them it
        is a coin's 0.5.
    silent
        Whether none of its neurons fired on these images.

    Examples
    --------
    >>> labels = torch.arange(100) % 10
    >>> Chance.of(torch.zeros(100, dtype=torch.int64), labels).is_above, Chance.of(labels, labels).is_above
    (False, True)
    """

    images: int
    right: int
    guessing: float
    silent: bool = False

    @classmethod
    def of(cls, predictions: Tensor, labels: Tensor, silent: bool = False) -> Chance:
        """From the classes that a network gave, and the true ones: int64 [N]."""
        size = int(torch.maximum(predictions.max(), labels.max())) + 1
        answers, truth = (torch.bincount(classes, minlength=size).double() for classes in (predictions, labels))
        guessing = 0.5 if int((truth > 0).sum()) == 1 else float(answers @ truth) / len(labels) ** 2
        right = int((predictions == labels).sum())
        return cls(images=len(labels), right=right, guessing=guessing, silent=silent)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Chance | None:
        """Of the baseline of a row of results; None where the row does not say, as those of isofire 0.1."""
        guessing, images = row.get("accuracy_chance"), int(row["n_images"])
        if guessing is None:
            return None
        right = round(row["accuracy_fp"] * images)
        return cls(images=images, right=right, guessing=float(guessing), silent=row.get("mfr_fp") == 0)

    @property
    def accuracy(self) -> Interval:
        """Share of images in the right class, with its 95 % interval by Clopper and Pearson."""
        return share_interval(self.right, self.images, LEVEL)

    @property
    def is_above(self) -> bool:
        """Whether the whole interval of its accuracy lies above guessing."""
        return self.accuracy.low > self.guessing

    @property
    def doubt(self) -> str | None:
        """Why the network is no reference, in a sentence; None if it is one."""
        if self.is_above and not self.silent:
            return None
        found = self.accuracy
        told = (
            f"right on {100 * found.estimate:.1f} % of {self.images:,} images (95 %: {100 * found.low:.1f} .. "
            f"{100 * found.high:.1f}), where guessing as often each class as it does gives {100 * self.guessing:.1f} %"
        )
        silence = "its neurons never fire on these images" if self.silent else ""
        if self.is_above:
            return f"{silence}, so there is no firing to keep; it is {told}"
        return f"not above chance: {told}{'; ' if silence else ''}{silence}. That this is kept says nothing"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        ends = {"low": self.accuracy.low, "high": self.accuracy.high}
        return {**asdict(self), **ends, "is_above": self.is_above}
