"""What a spike costs in a network, and which of its neurons isofire does not know, whatever ways its images take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import from_rest
from isofire.errors import ModelError
from isofire.firing.cost.few import few_or_all
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.cost.routes import Routes, same_way
from isofire.firing.cost.synops_per_spike import SynopsPerSpike, reach
from isofire.firing.cost.unreached import Unreached, of_integers, unreached, unsure
from isofire.running import device_of, drawing, evaluating, forward

_FEW = 2
_MOST = 16
"""Ways that are looked at: to look takes several times as long as to run."""
_PARTED = (
    "the products of the network are not as many per image in every batch as on the first images (images take "
    "different ways through the network, or are run one by one or under torch.vmap), so what a spike costs is not "
    "known to be the same for all; isofire.firing.cost.measure_cost counts each image's own"
)
_TOO_MANY = (
    f"its batches take more than {_MOST} ways through it, and so many were looked at; images that are shown one by one "
    "(batch_size = 1) may take fewer"
)


@dataclass(frozen=True)
class _Way:
    """What ran in a forward pass of so many images: see `Routes.products` and `Routes.code`."""

    images: int
    products: Sequence[tuple[str, int]] = ()
    code: Sequence[Any] = ()


class Ways:
    """Follows a network from batch to batch: what a spike costs is asked on few images, and holds for all if their
    products are those of every batch, as many numbers per image; unknown neurons are looked for in all code that a
    batch runs, on however many rows of it.

    Parameters
    ----------
    model
        In eval mode, on the device where it is to run.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._routes = Routes(model)
        self._found: SynopsPerSpike | Unreached = Unreached("no image was shown")
        self._first: _Way | None = None
        self._looked: list[Sequence[Any]] = []
        self._new = self._parted = self._full = False
        self._unknown: tuple[LeftOut, ...] = ()

    @property
    def reached(self) -> SynopsPerSpike | Unreached:
        """See `isofire.firing.cost.synops_per_spike`, or why that is not known."""
        if self._parted and isinstance(self._found, SynopsPerSpike):
            return Unreached(_PARTED, self._unknown)
        return self._found.with_unknown(self._unknown)

    def ask(self, inputs: Tensor, images: int) -> None:
        """Find what a spike costs on a batch that tells more than those before it."""
        # a first pass may have made buffers
        self._routes = Routes(self._model)
        device = device_of(self._model, inputs.device)
        given, way = inputs, _Way(images)
        # networks that draw random numbers go on as if nobody had looked
        with drawing(0, device):
            try:
                given, shown, _ = few_or_all(self._model, inputs, images, _FEW, self._run)
                way = self._taken(shown)
                with self._routes.listening():
                    self._found = reach(self._model, given)
                way = self._taken(shown)
            except ModelError as error:
                self._found = unreached(self._model, given.clone().to(device), way.images, str(error))
        self._add(self._found.unknown_neurons)
        self._compare(way)
        if way.code not in self._looked:
            self._looked.append(way.code)

    @contextmanager
    def watching(self, images: int) -> Iterator[None]:
        """A forward pass of so many images."""
        if self._full and self._parted:
            yield
            return
        with self._routes.listening():
            yield
        way = self._taken(images)
        self._compare(way)
        self._new = not self._full and way.code not in self._looked

    def look(self, inputs: Tensor, images: int) -> None:
        """After that pass, on its images and with its random numbers: neurons may fire that no other way has."""
        if not self._new:
            return
        self._new = False
        if len(self._looked) >= _MOST:
            self._full = True
            self._add(() if of_integers(self._model) else (unsure(_TOO_MANY),))
            return
        self._looked.append(self._routes.code)
        given = inputs.clone().to(device_of(self._model, inputs.device))
        self._add(unreached(self._model, given, images, _PARTED).unknown_neurons)

    def _run(self, inputs: Tensor) -> None:
        with evaluating(self._model), from_rest(self._model), torch.no_grad(), self._routes.listening():
            forward(self._model, inputs)

    def _taken(self, images: int) -> _Way:
        return _Way(images, self._routes.products, self._routes.code)

    def _compare(self, way: _Way) -> None:
        self._first = self._first or way
        first = self._first
        self._parted = self._parted or not same_way(first.products, first.images, way.products, way.images)

    def _add(self, more: tuple[LeftOut, ...]) -> None:
        named = {item.name for item in self._unknown}
        self._unknown += tuple(item for item in more if item.name not in named)
