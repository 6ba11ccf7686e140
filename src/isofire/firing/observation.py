"""What one network did on a set of images: its spikes, and the class that it gave each image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from isofire.errors import CheckpointError, DataError
from isofire.files import check_file, write_atomic
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.firing.cost.unreached import Unreached
from isofire.firing.counts import SpikeCounts
from isofire.firing.evidence.chance import Chance
from isofire.toml_json import parse_json


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
    reached
        What a spike of each neuron costs in the network, see `isofire.firing.cost.synops_per_spike`, or why that is not
        known, see `isofire.firing.cost.unreached`; None where it was not looked for.

    Raises
    ------
    DataError
        If the numbers of images differ, or `reached` is of other neurons.
    """

    counts: SpikeCounts
    predictions: Tensor
    labels: Tensor
    images: Tensor | None = None
    reached: SynopsPerSpike | Unreached | None = None

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
        if isinstance(self.reached, SynopsPerSpike):
            for name in self.counts.layers:
                if name not in self.reached or self.reached[name].shape != (self.counts.n_neurons(name),):
                    raise DataError(f"what a spike costs must be that of the counted neurons, layer {name!r} is not")

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
        reached: Any = self.reached
        if isinstance(reached, SynopsPerSpike):
            votes |= {f"{_REACHED}{name}": tensor.contiguous() for name, tensor in reached.items()}
            reached = _Beside.of(reached)
        metadata = {"isofire": msgspec.json.encode(reached).decode()}
        return [
            self.counts.save(place / "counts.safetensors"),
            write_atomic(place / "predictions.safetensors", lambda part: save_file(votes, part, metadata=metadata)),
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
            with safe_open(path, framework="pt") as file:
                metadata, names = file.metadata() or {}, file.keys()
                votes = {name: file.get_tensor(name) for name in names}
            # a file of an earlier isofire has no metadata
            found = _read_reached(parse_json(metadata.get("isofire", "null")), votes)
            return cls(counts, votes["predictions"], votes["labels"], votes.get("images"), found)
        except (OSError, SafetensorError, KeyError, DataError, ValueError, msgspec.ValidationError) as error:
            raise CheckpointError(
                f"{path} cannot be read as predictions ({error}); observe the network anew"
            ) from error


_REACHED = "reached/"
"""Before the name of a layer: what a spike of each of its neurons costs."""


class _Beside(msgspec.Struct, frozen=True):
    """What a `SynopsPerSpike` holds beside its tensors."""

    left_out: tuple[LeftOut, ...]
    driven: float
    input_synapses: dict[str, float]
    own_states: tuple[str, ...]
    unknown_neurons: tuple[LeftOut, ...] = ()
    beside_spikes: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: SynopsPerSpike) -> _Beside:
        return cls(**{name: getattr(found, name) for name in cls.__struct_fields__})

    def with_tensors(self, stored: Mapping[str, Tensor]) -> SynopsPerSpike:
        own = {name.removeprefix(_REACHED): item for name, item in stored.items() if name.startswith(_REACHED)}
        return SynopsPerSpike(own, **msgspec.structs.asdict(self))


def _read_reached(about: Any, stored: Mapping[str, Tensor]) -> SynopsPerSpike | Unreached | None:
    if about is None:
        return None
    # an earlier isofire wrote the reason alone
    if isinstance(about, str):
        return Unreached(about)
    if isinstance(about, dict) and "reason" in about:
        return msgspec.convert(about, Unreached)
    return msgspec.convert(about, _Beside).with_tensors(stored)


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
