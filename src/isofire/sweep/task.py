"""One piece of a sweep's work, complete in itself so that any process on any machine can do it."""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec
from msgspec import Struct

from isofire.config import DataSettings, Mode
from isofire.spec import QuantSpec
from isofire.training import Recipe


class BaselineTask(Struct, frozen=True, kw_only=True):
    """A full-precision network to get ready and to observe on the images that cells are compared on.

    Parameters
    ----------
    key
        Content hash.
    name, seed
        What the sweep calls it; a network from a file has no seed of its own.
    file, pretrained, builder, model, train
        Where it comes from, see `BaselineSettings`.
    data, test_split, test_images, batch_size
        Images, see `Sweep`.
    threads, device
        Where its cells run.
    identity, fingerprints, versions
        What the key was made from besides: the network, the images, and isofire and torch. A worker that finds others
        does not compute under this key.
    """

    key: str
    name: str
    seed: int | None
    file: str | None = None
    pretrained: str | None = None
    builder: str | None = None
    model: dict[str, Any] | None = None
    train: Recipe | None = None
    data: DataSettings
    test_split: Literal["test", "valid"]
    test_images: int | None
    batch_size: int
    threads: int
    device: str
    identity: Any = None
    fingerprints: dict[str, Any] = {}
    versions: dict[str, str | None] = {}


class CellTask(Struct, frozen=True, kw_only=True):
    """A cell to compute from a finished baseline.

    Parameters
    ----------
    key
        Content hash.
    title
        For people.
    mode, seed, recipe, calibration_images
        As in `run_cell`.
    spec
        What to quantize; None: a control.
    fast
        As in `run_cell`.
    keep_model
        Store the quantized network too.
    """

    key: str
    title: str
    mode: Mode
    seed: int
    spec: QuantSpec | None
    recipe: Recipe | None
    calibration_images: int
    keep_model: bool
    fast: bool = True


def baseline_title(name: str, seed: int | None) -> str:
    """What a baseline is called beside cells; one that is given has no seed."""
    return f"baseline {name}" if seed is None else f"baseline {name} seed {seed}"


class Task(Struct, frozen=True, kw_only=True):
    """A baseline (`cell` is None) or a cell of the sweep in `folder`."""

    folder: str
    baseline: BaselineTask
    cell: CellTask | None = None

    @property
    def key(self) -> str:
        """Key of what is to be made."""
        return self.baseline.key if self.cell is None else self.cell.key

    @property
    def title(self) -> str:
        """Name of what is to be made."""
        return baseline_title(self.baseline.name, self.baseline.seed) if self.cell is None else self.cell.title

    def encode(self) -> bytes:
        """JSON, in which tasks travel."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Task:
        """Back from `encode`."""
        return msgspec.json.decode(data, type=cls)


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a task.

    Parameters
    ----------
    kind
        "done": it is finished, by this process or another; "failed": the failure is recorded; "held": another process
        computes it; "stopped": nothing can be written, so going on makes no sense; "lost": whoever computed it died.
    reason
        What went wrong.
    seconds
        Time spent.
    """

    kind: Literal["done", "failed", "held", "stopped", "lost"]
    reason: str = ""
    seconds: float = 0.0


def absolute(folder: str | os.PathLike[str]) -> str:
    """Processes may have another working folder than the one that started them."""
    return os.path.abspath(folder)
