"""Spike counts per neuron and image block: what a recording leaves behind, small enough to store for every run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import torch
from msgspec import Meta, Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from isofire.errors import CheckpointError, DataError, SpecError
from isofire.files import check_file, write_atomic
from isofire.toml_json import parse_json

_FORMAT = "isofire.spike_counts"
_VERSION = 1
_INT32_MAX = 2**31 - 1
_ROUNDING = 1e-3
"""A spike this close to a whole number, but none, was rounded."""
_MOST_IMAGES = 2**40
"""Far beyond any set, and times `steps` still exact where rates are computed."""


@dataclass(frozen=True, eq=False)
class SpikeCounts:
    """Spikes counted per layer, image block and neuron.

    Images are split into blocks so that error bars can be had by resampling blocks, without keeping single images.
    Two recordings of the same images in the same order have the same images in the same block.

    Parameters
    ----------
    counts
        Layer name -> int32 [blocks, *neuron_shape], with the neuron shape in its natural order (C, H, W for a
        convolution). In the order of the layers in the model. A count may be above T * images, and a rate above 1,
        where neurons fire several spikes a step.
    images_per_block
        int64 [blocks].
    steps
        Time steps T of one image.
    run
        How many images went to a block one after the other, see `FiringRecorder`; None if that is not known.

    Raises
    ------
    DataError
        If a tensor has another dtype or shape, a count is negative, a block of no images has spikes, or there is no
        layer, image or step.

    Examples
    --------
    >>> counts = SpikeCounts({"lif": torch.tensor([[3, 0], [1, 0]], dtype=torch.int32)}, torch.tensor([1, 1]), steps=4)
    >>> counts.n_images, counts.rates("lif").tolist(), counts.total("lif")
    (2, [0.5, 0.0], 4)
    """

    counts: Mapping[str, Tensor]
    images_per_block: Tensor
    steps: int
    run: int | None = None

    def __post_init__(self) -> None:
        _check_images(self.images_per_block, self.steps)
        if not self.counts:
            raise DataError("spike counts need at least one layer, got none")
        for name, tensor in self.counts.items():
            _check_layer(name, tensor, self.images_per_block)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in the model's order."""
        return tuple(self.counts)

    @property
    def blocks(self) -> int:
        """Number of image blocks; a block may be empty."""
        return self.images_per_block.numel()

    @property
    def n_images(self) -> int:
        """Number of images counted."""
        return int(self.images_per_block.sum())

    @property
    def denominator(self) -> int:
        """`T * n_images`: a neuron's count divided by it is the neuron's rate."""
        return self.steps * self.n_images

    def shape(self, layer: str) -> tuple[int, ...]:
        """Shape of the neurons of `layer`, for instance (C, H, W)."""
        return tuple(self._get(layer).shape[1:])

    def n_neurons(self, layer: str | None = None) -> int:
        """Number of neurons of `layer`, or of all layers."""
        layers = self.layers if layer is None else (layer,)
        return sum(self._get(name)[0].numel() for name in layers)

    def per_neuron(self, layer: str | None = None) -> Tensor:
        """Spikes of each neuron over all images: int64 [n], of `layer` or of all layers one after the other."""
        if layer is None:
            return torch.cat([self.per_neuron(name) for name in self.layers])
        counts = self._get(layer)
        # block by block is several times faster than torch's integer sum over the first dimension
        total = torch.zeros(counts.shape[1:], dtype=torch.int64)
        for block in counts:
            total += block
        return total.flatten()

    def rates(self, layer: str | None = None) -> Tensor:
        """Firing rates in spikes per neuron per step: float64 [n], of `layer` or of all layers one after the other."""
        return self.per_neuron(layer).double() / self.denominator

    def total(self, layer: str | None = None) -> int:
        """Spikes of `layer`, or of all layers, over all images."""
        return int(self.per_neuron(layer).sum())

    def merge(self, other: SpikeCounts) -> SpikeCounts:
        """Counts of both recordings together: counts add, and blocks add element by element.

        Raises
        ------
        DataError
            If the layers, neuron shapes, T or number of blocks differ, or a sum leaves int32.
        """
        difference = self.difference(other)
        if difference is None and self.blocks != other.blocks:
            difference = f"{self.blocks} against {other.blocks} blocks"
        if difference is not None:
            raise DataError(f"only recordings of the same network can be merged: {difference}")
        return SpikeCounts(
            {name: _add(name, self.counts[name], other.counts[name]) for name in self.layers},
            self.images_per_block + other.images_per_block,
            self.steps,
            self.run if self.run == other.run else None,
        )

    def difference(self, other: SpikeCounts) -> str | None:
        """The first thing that keeps two recordings from being compared neuron by neuron, or None."""
        if missing := [name for name in self.layers if name not in other.counts]:
            return f"layer {missing[0]!r} is only in the first"
        if missing := [name for name in other.layers if name not in self.counts]:
            return f"layer {missing[0]!r} is only in the second"
        for name in self.layers:
            if self.shape(name) != other.shape(name):
                return f"layer {name!r} has neurons {self.shape(name)} against {other.shape(name)}"
        return None if self.steps == other.steps else f"T = {self.steps} against {other.steps} steps"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file; the format, its version, T and the order of the layers go in its header.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "steps": self.steps,
            "layers": list(self.layers),
            "run": self.run,
        }
        tensors = {f"counts/{name}": tensor.contiguous() for name, tensor in self.counts.items()}
        tensors["images_per_block"] = self.images_per_block.contiguous()
        metadata = {"isofire": json.dumps(header)}
        return write_atomic(path, lambda part: save_file(tensors, part, metadata=metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SpikeCounts:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            If the file is missing, truncated, altered, of another format, or of a version this isofire does not read.
        """
        try:
            check_file(path)
            with safe_open(os.fspath(path), framework="pt") as file:
                header = _read_header(file.metadata())
                counts = {name: file.get_tensor(f"counts/{name}") for name in header.layers}
                return cls(counts, file.get_tensor("images_per_block"), header.steps, header.run)
        except (OSError, SafetensorError, CheckpointError, DataError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"{path} cannot be read as spike counts ({reason}); record and save again") from error

    def _get(self, layer: str) -> Tensor:
        if layer not in self.counts:
            raise SpecError(f"layer must be one of {', '.join(self.layers)}, got {layer!r}")
        return self.counts[layer]


Spikes = Tensor | Mapping[str, Tensor] | SpikeCounts
"""[T, N, *neuron_shape] of one layer, or of several by name, or what a `FiringRecorder` counted.

Whole numbers >= 0 of any dtype: 0 and 1, or counts of neurons that fire several spikes a step. So come the spikes of
neurons that isofire does not know.
"""


class LayerCounts(NamedTuple):
    """Spikes of each neuron of a layer, int64 [n], over so many steps and images."""

    steps: int
    images: int
    counts: Tensor

    def told(self) -> str:
        """Its shape in words."""
        return f"{len(self.counts)} neurons, T = {self.steps}, {self.images} images"


def counts_by_layer(spikes: Spikes, network: str) -> dict[str, LayerCounts]:
    """Counts of every layer, by name; a tensor alone has the name "".

    Raises
    ------
    DataError
        If they are no spikes; names `network`.
    """
    if isinstance(spikes, SpikeCounts):
        return {name: LayerCounts(spikes.steps, spikes.n_images, spikes.per_neuron(name)) for name in spikes.layers}
    found = {"": spikes} if isinstance(spikes, Tensor) else spikes
    if not isinstance(found, Mapping) or not found:
        raise DataError(
            f"spikes must be a tensor [T, N, ...], a mapping of layers to such, or SpikeCounts, got "
            f"{type(spikes).__name__} ({network})"
        )
    return {
        name: _summed(tensor, f"layer {name!r} of {network}" if name else network) for name, tensor in found.items()
    }


def no_counts(spikes: Tensor) -> str | None:
    """What is wrong with spikes that must be whole numbers >= 0: their first other value, and its cure; or None."""
    values = spikes.detach()
    fits = values >= 0
    if values.is_floating_point():
        fits = fits & (values == values.round()) & values.isfinite()
    if bool(fits.all()):
        return None
    value = float(values[~fits][0])
    cure = "look for fractional or negative spikes, or for NaN"
    if value < 0 and value == round(value):
        cure = "of spikes below 0 costs alone are measured; for rates let each sign be neurons of its own"
    if math.isfinite(value) and 0 < abs(value - round(value)) < _ROUNDING:
        cure = "write straight-through spikes as hard + (soft - soft.detach()): the other order rounds"
    return f"got {value:.9g}; {cure}"


def _summed(spikes: Tensor, place: str) -> LayerCounts:
    if not isinstance(spikes, Tensor) or spikes.ndim < 3 or spikes.numel() == 0:
        got = list(spikes.shape) if isinstance(spikes, Tensor) else type(spikes).__name__
        raise DataError(f"spikes must be [T, N, ...], got {got} ({place})")
    if spikes.is_complex():
        raise DataError(f"spikes must be whole numbers >= 0, got {spikes.dtype} ({place})")
    if (wrong := no_counts(spikes)) is not None:
        raise DataError(f"spikes must be whole numbers >= 0, {wrong} ({place})")
    total = spikes.detach().flatten(2).sum((0, 1), dtype=torch.float64)
    return LayerCounts(spikes.shape[0], spikes.shape[1], total.long())


def _check_images(images: Tensor, steps: int) -> None:
    if images.dtype != torch.int64 or images.ndim != 1:
        raise DataError(f"images_per_block must be int64 [blocks], got {images.dtype} {list(images.shape)}")
    if images.numel() == 0 or bool((images < 0).any()) or not bool(images.any()):
        raise DataError("images_per_block must count at least one image and hold no negative number")
    if sum(images.tolist()) > _MOST_IMAGES:
        raise DataError(f"images_per_block must count at most {_MOST_IMAGES:,} images, got {sum(images.tolist()):,}")
    if not isinstance(steps, int) or not 1 <= steps <= _INT32_MAX:
        raise DataError(f"steps must be a whole number >= 1, got {steps!r}; it has 31 bits at most")


def _check_layer(name: str, tensor: Tensor, images: Tensor) -> None:
    blocks = len(images)
    if tensor.dtype != torch.int32 or tensor.ndim < 2 or tensor.shape[0] != blocks or tensor.numel() == 0:
        given = f"{tensor.dtype} {list(tensor.shape)}"
        raise DataError(f"counts must be int32 [{blocks}, *neuron_shape] with neurons, got {given} (layer {name!r})")
    if int(tensor.min()) < 0:
        raise DataError(f"counts must not be negative, got {int(tensor.min())} (layer {name!r})")
    for block in (images == 0).nonzero().flatten().tolist():
        if bool(tensor[block].any()):
            raise DataError(
                f"counts of a block without images must be 0, got {int(tensor[block].max())} in block {block} (layer "
                f"{name!r}); give images_per_block the images that they come from"
            )


def _add(name: str, first: Tensor, second: Tensor) -> Tensor:
    total = first.long() + second
    if int(total.max()) > _INT32_MAX:
        raise DataError(f"merged counts must fit int32, got {int(total.max())} (layer {name!r}); use more blocks")
    return total.int()


class _Header(Struct, frozen=True, kw_only=True):
    steps: int
    layers: list[str]
    run: Annotated[int, Meta(ge=1)] | None = None


def _read_header(metadata: Mapping[str, str] | None) -> _Header:
    if not metadata or "isofire" not in metadata:
        raise CheckpointError("it holds no isofire header")
    header = parse_json(metadata["isofire"])
    if not isinstance(header, dict):
        raise CheckpointError("its header is no table")
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"its format must be {_FORMAT!r}, is {header.get('format')!r}")
    if header.get("version") != _VERSION:
        raise CheckpointError(f"its version must be {_VERSION}, is {header.get('version')!r}")
    try:
        return msgspec.convert(header, _Header)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"its header does not fit: {error}") from error
