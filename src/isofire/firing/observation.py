"""What one network did on a set of images: its spikes, and the class that it gave each image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isofire.errors import CheckpointError, DataError
from isofire.files import write_atomic
from isofire.firing.counts import SpikeCounts


@dataclass(frozen=True, eq=False)
class Observation:
    """Spikes and predictions of one network, see `isofire.firing.observe`.

    Parameters
    ----------
    counts
        The counted spikes.
    predictions, labels
        int64 [N]: the class that the network gave each image, and the true one, in the order of the images.

    Raises
    ------
    DataError
        If the numbers of images differ.
    """

    counts: SpikeCounts
    predictions: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
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

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write `counts.safetensors` and `predictions.safetensors`.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        place = Path(folder)
        votes = {"predictions": self.predictions.contiguous(), "labels": self.labels.contiguous()}
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
            votes = load_file(path)
            return cls(counts, votes["predictions"], votes["labels"])
        except (OSError, SafetensorError, KeyError, DataError) as error:
            raise CheckpointError(
                f"{path} cannot be read as predictions ({error}); observe the network anew"
            ) from error
