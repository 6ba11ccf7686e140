"""How long a sweep will take, from cells of every kind timed on a few images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.firing import Observation, observe
from isofire.quantization import labels_of
from isofire.study import AnySet, Splits, fresh_model, load_splits, run_cell
from isofire.sweep.given import given_model
from isofire.sweep.plan import Plan
from isofire.sweep.task import BaselineTask, CellTask, Task
from isofire.training.distributed import pick_device

ONCE = 1.0
"""Seconds of a cell that is timed once; of shorter ones the faster of two counts, since noise only ever adds."""
ENOUGH = 0.1
"""Seconds of a forward pass that is long enough to time; small batches cost more an image than those of the sweep."""

Kind = tuple[str, str, str | None, str | float | None]


@dataclass(frozen=True)
class CellSeconds:
    """Seconds of a cell of some kind: `fixed`, for each image measured on (calibration, comparison), or trained on."""

    fixed: float
    measured: float
    trained: float


@dataclass(frozen=True)
class Estimate:
    """Seconds on one worker.

    Attributes
    ----------
    cells
        Kind of cell (baseline, mode, target, method) -> (number, seconds of one).
    baselines
        Name -> (number, seconds of one).
    """

    cells: dict[Kind, tuple[int, float]]
    baselines: dict[str, tuple[int, float]]

    @property
    def total(self) -> float:
        """Of everything, one after the other."""
        return sum(number * seconds for number, seconds in (*self.cells.values(), *self.baselines.values()))

    def span(self, workers: int) -> float:
        """With several workers: at best all of them are always at work, but a cell waits for its baseline."""
        longest = {name: seconds for name, (_, seconds) in self.baselines.items()}
        chains = [longest.get(kind[0], 0.0) + seconds for kind, (_, seconds) in self.cells.items()]
        return max([self.total / workers, *chains])


def estimate(
    plan: Plan, cells: Sequence[Task], made: Container[str] = (), on_kind: Callable[[int, int], None] | None = None
) -> Estimate:
    """Time a few images of every kind of cell, and scale by the images of the sweep.

    Parameters
    ----------
    cells
        Of the plan, those that are still to run.
    made
        Keys of finished baselines.
    on_kind
        Told how many kinds of cell are timed, and of how many.
    """
    torch.set_num_threads(plan.sweep.threads)
    with _quiet():
        return _timed(cells, made, on_kind)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what quantizing a few images warns of: the sweep will say it of the cells."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _timed(cells: Sequence[Task], made: Container[str], on_kind: Callable[[int, int], None] | None) -> Estimate:
    kinds = len({_kind(task) for task in cells})
    samples: dict[str, _Sample] = {}
    costs: dict[Kind, CellSeconds] = {}
    found: dict[Kind, tuple[int, float]] = {}
    baselines: dict[str, tuple[int, float]] = {}
    needed = set()
    for task in cells:
        assert task.cell is not None
        name = task.baseline.name
        sample = samples.setdefault(name, _Sample(task.baseline))
        kind = _kind(task)
        if kind not in costs:
            costs[kind] = sample.cost(task.cell)
            if on_kind is not None:
                on_kind(len(costs), kinds)
        number, _ = found.get(kind, (0, 0.0))
        found[kind] = (number + 1, sample.of_cell(costs[kind], task.cell))
        if task.baseline.key not in needed and task.baseline.key not in made:
            needed.add(task.baseline.key)
            baselines[name] = (baselines.get(name, (0, 0.0))[0] + 1, sample.of_baseline(task.baseline))
    return Estimate(found, baselines)


def fitted(
    images: tuple[int, int], after: Sequence[float], trained: Sequence[float] | None, observing: float, passes: int
) -> CellSeconds:
    """The costs of a cell that explain timings on few and on more images.

    Two timings can differ by noise alone. But every image is run to calibrate and to compare, and a gradient costs no
    less than half a forward pass more (on a CPU about a whole one).

    Parameters
    ----------
    images
        Few and more.
    after, trained
        Seconds on both, without and with an epoch of training; None: not trained.
    observing
        Seconds an image in a forward pass.
    passes
        Forward passes of an image in `trained` besides its training.
    """
    few, more = images
    measured = max(2 * observing, (after[1] - after[0]) / (more - few))
    epoch = 0.0
    if trained is not None:
        epoch = max(1.5 * observing, (trained[1] - trained[0]) / (more - few) - passes * observing)
    return CellSeconds(max(0.0, after[0] - few * measured), measured, epoch)


def fastest(run: Callable[[], float]) -> float:
    """Seconds of a run; of a short one those of the faster of two, since noise only ever adds."""
    first = run()
    return first if first > ONCE else min(first, run())


class _Sample:
    """A baseline and few images to time it on."""

    def __init__(self, task: BaselineTask) -> None:
        self._task = task
        self._warm: set[bool] = set()

    def cost(self, cell: CellTask) -> CellSeconds:
        images = self._few, 3 * self._few
        after = [self._time(cell, count, train=False) for count in images]
        trained = None if cell.recipe is None else [self._time(cell, count, train=True) for count in images]
        # the same images were compared on and, with quantizers, calibrated on
        return fitted(images, after, trained, self._observing, passes=1 if cell.spec is None else 2)

    def of_cell(self, cost: CellSeconds, cell: CellTask) -> float:
        # a timing calibrates on as many images as it compares on, so that an image counted once is half of each
        images = (min(cell.calibration_images, len(self._splits.train)) + self._compared) / 2
        epochs = cell.recipe.epochs if cell.recipe is not None else 0
        return cost.fixed + cost.measured * images + cost.trained * epochs * len(self._splits.train)

    def of_baseline(self, task: BaselineTask) -> float:
        measured = self._observing * self._compared
        if task.train is None:
            return measured
        valid = 0 if self._splits.valid is None else len(self._splits.valid)
        epochs = task.train.epochs
        return measured + epochs * (self._plain.trained * len(self._splits.train) + self._observing * valid)

    @cached_property
    def _plain(self) -> CellSeconds:
        """Training without quantizers."""
        assert self._task.train is not None
        control = CellTask(
            key="", title="", mode="qat", seed=0, spec=None, recipe=self._task.train, calibration_images=1,
            keep_model=False,
        )  # fmt: skip
        return self.cost(control)

    @cached_property
    def _model(self) -> nn.Module:
        model = fresh_model(self._task.model, 0) if self._task.model is not None else given_model(self._task)[0]
        return model.eval()

    @cached_property
    def _splits(self) -> Splits:
        return load_splits(self._task.data)

    @cached_property
    def _compared(self) -> int:
        found = len(self._splits.compared(self._task.test_split))
        return found if self._task.test_images is None else min(found, self._task.test_images)

    @cached_property
    def _few(self) -> int:
        """Images of the smaller timing: as many as take long enough, at most a batch."""
        images = 2
        while images < self._task.batch_size and images * 6 <= len(self._splits.train):
            if self._seconds(images) > ENOUGH:
                break
            images *= 2
        return images

    @cached_property
    def _observing(self) -> float:
        """Seconds an image in a forward pass."""
        few, more = self._few, 3 * self._few
        times = [min(self._seconds(images) for _ in range(2)) for images in (few, more)]
        # what a pass costs whatever its images is not theirs; half of the whole, if noise hides the difference
        return max((times[1] - times[0]) / (more - few), times[1] / more / 2)

    def _seconds(self, images: int) -> float:
        began = self._clock()
        self._observe(images)
        return self._clock() - began

    def _observe(self, images: int) -> Observation:
        return observe(self._model, self._images(images), batch_size=images, device=pick_device(self._task.device))

    def _images(self, images: int) -> AnySet:
        return self._splits.train.first(images)

    def _time(self, cell: CellTask, images: int, *, train: bool) -> float:
        if train not in self._warm:
            # what happens once in a process, such as loading kernels, belongs to no cell
            self._warm.add(train)
            self._run(cell, images, train=train)
        return fastest(lambda: self._run(cell, images, train=train))

    def _run(self, cell: CellTask, images: int, *, train: bool) -> float:
        data, observed = self._images(images), self._observe(images)
        recipe = None
        if train:
            assert cell.recipe is not None
            # one epoch stands for all: with every loss, which may begin to count later
            recipe = msgspec.structs.replace(
                cell.recipe,
                epochs=1,
                warmup_epochs=0.0,
                batch_size=min(self._few, cell.recipe.batch_size),
                losses={name: given | {"warmup_epochs": 0.0} for name, given in cell.recipe.losses.items()},
            )
        began = self._clock()
        run_cell(
            self._model, cell.spec, mode="qat" if train else "ptq", train_set=data, test_set=data, recipe=recipe,
            seed=cell.seed, observed=observed, calibration_images=images, batch_size=images,
            device=pick_device(self._task.device),
        )  # fmt: skip
        return self._clock() - began

    def _clock(self) -> float:
        """Seconds; on the CPU those of this process, spread over its threads: what else runs must not count."""
        if self._task.device != "cpu":
            return time.perf_counter()
        return time.process_time() / torch.get_num_threads()


def _kind(task: Task) -> Kind:
    assert task.cell is not None
    labels: dict[str, Any] = labels_of(task.cell.spec)
    return (task.baseline.name, task.cell.mode, labels["target"], labels["method"])
