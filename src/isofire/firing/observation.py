"""What one network did on a set of images: its spikes, and the class that it gave each image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isofire.errors import CheckpointError, DataError
from isofire.files import check_file, write_atomic
from isofire.firing.counts import SpikeCounts
from isofire.firing.evidence.chance import Chance


@dataclass(frozen=True, eq=False)
class Observation:
    """Spikes and predictions of one network, see `isofire.firing.observe`.

    Parameters
    ----------
    counts
        The counted spikes.
    predictions, labels
        int64 [N]: the class that the network gave each image, and the true one, in the order of the images.
    images
        float64 [N, 2]: by what each image is known again, see `fingerprints`; None in observations stored without.

    Raises
    ------
    DataError
        If the numbers of images differ.
    """

    counts: SpikeCounts
    predictions: Tensor
    labels: Tensor
    images: Tensor | None = None

    def __post_init__(self) -> None:
        for name, votes in (("predictions", self.predictions), ("labels", self.labels)):
            if votes.dtype != torch.int64 or votes.ndim != 1:
                raise DataError(f"{name} must be int64 [N], got {votes.dtype} {list(votes.shape)}")
        sizes = {self.counts.n_images, len(self.predictions), len(self.labels)}
        if len(sizes) > 1:
            raise DataError(
                f"an observation needs one prediction and one label an image, got {len(self.predictions)} and "
                f"{len(self.labels)} for {self.counts.n_images} images"
            )

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly."""
        return int((self.predictions == self.labels).sum()) / len(self.labels)

    @property
    def chance(self) -> Chance:
        """That share beside guessing, and whether any neuron fired."""
        silent = not any(bool(self.counts.per_neuron(name).any()) for name in self.counts.layers)
        return Chance.of(self.predictions, self.labels, silent)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write `counts.safetensors` and `predictions.safetensors`.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        place = Path(folder)
        votes = {"predictions": self.predictions.contiguous(), "labels": self.labels.contiguous()}
        if self.images is not None:
            votes["images"] = self.images.contiguous()
        return [
            self.counts.save(place / "counts.safetensors"),
            write_atomic(place / "predictions.safetensors", lambda part: save_file(votes, part)),
        ]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Observation:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, or the two do not belong together.
        """
        place = Path(folder)
        counts, path = SpikeCounts.load(place / "counts.safetensors"), place / "predictions.safetensors"
        try:
            check_file(path)
            votes = load_file(path)
            return cls(counts, votes["predictions"], votes["labels"], votes.get("images"))
        except (OSError, SafetensorError, KeyError, DataError) as error:
            raise CheckpointError(
                f"{path} cannot be read as predictions ({error}); observe the network anew"
            ) from error


def fingerprints(inputs: Tensor, axis: int) -> Tensor:
    """By what an image is known again, whatever the batch, device or rounding: float64 [N, 2].

    The root of the image's mean square, and its mean product with fixed numbers without a pattern. Images differ if one
    of them differs by more than 1e-4 of the first.

    Parameters
    ----------
    inputs
        A batch of images or frames.
    axis
        Of the images.
    """
    images = inputs.detach().movedim(axis, 0)
    images = images.reshape(len(images), -1).double()
    # the golden ratio's multiples fall evenly in 0..1, in no order that a picture has
    place = torch.arange(1, images.shape[1] + 1, dtype=torch.float64, device=images.device)
    weights = (place * 0.6180339887498949).frac() - 0.5
    size = images.square().mean(1).sqrt()
    return torch.stack([size, images @ weights / images.shape[1] ** 0.5], 1).cpu()


def require_same_images(first: Observation, second: Observation) -> None:
    """Refuse two passes over data that did not show the same images in the same order.

    Raises
    ------
    DataError
        If labels or images differ; says whether they are the same ones in another order.
    """
    cure = "switch off shuffling and augmentation, or let isofire.compare show each batch to both networks"
    if not torch.equal(first.labels, second.labels):
        raise DataError(
            f"both networks must be observed on the same images in the same order: the {len(first.labels)} labels of "
            f"the first pass are not the {len(second.labels)} of the second; {cure}"
        )
    if first.images is None or second.images is None:
        return
    differ = _differ(first.images, second.images)
    if not bool(differ.any()):
        return
    again = [images[images[:, 1].argsort()] for images in (first.images, second.images)]
    shuffled = not bool(_differ(*again).any())
    raise DataError(
        f"both networks must be observed on the same images in the same order: {int(differ.sum())} of {len(differ)} "
        f"images differ between the two passes over the data, the first is number {int(differ.int().argmax())}"
        f"{' (the same images in another order)' if shuffled else ''}; {cure}"
    )


def _differ(first: Tensor, second: Tensor) -> Tensor:
    """Which images are not the same: bool [N]."""
    size = torch.maximum(first[:, 0], second[:, 0])
    return ((first - second).abs() > 1e-4 * size[:, None]).any(1)
