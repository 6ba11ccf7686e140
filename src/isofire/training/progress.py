"""Telling how a run goes: a bar on a terminal, a line per epoch elsewhere, or nothing. All goes to stderr."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from isofire.training.records import EpochRecord


class Reporter:
    """What the loop calls; this one says nothing."""

    def say(self, text: str) -> None:
        """Print a line."""

    def step(self, epoch: int, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Take in the means of an epoch (0 is the first) up to and with `step` steps of it."""

    def epoch(self, record: EpochRecord) -> None:
        """Take in a finished epoch."""

    def close(self) -> None:
        """Give the terminal back."""


def reporter(show: bool, epochs: int, steps: int, done: int) -> Reporter:
    """Choose by `show` and by whether stderr is a terminal; `done` of all `epochs * steps` steps lie behind."""
    console = Console(stderr=True)
    if not show:
        return Reporter()
    return Bar(console, epochs, steps, done) if console.is_terminal else Lines(console, epochs, done / steps)


def line(record: EpochRecord, epochs: int) -> str:
    """Put a record on one line.

    Examples
    --------
    >>> line(EpochRecord(epoch=1, train_loss=2.0, train_accuracy=0.25, valid_loss=None, valid_accuracy=None, lr=0.1,
    ...                  seconds=2.0, images_per_second=50.0), 3)
    'epoch 1/3  loss 2.0000  accuracy 25.0 %  lr 0.1  50 images/s'
    """
    valid = "" if record.valid_accuracy is None else f"  valid {100 * record.valid_accuracy:.1f} %"
    return (
        f"epoch {record.epoch}/{epochs}  loss {record.train_loss:.4f}  accuracy {100 * record.train_accuracy:.1f} %"
        f"{valid}  lr {record.lr:.3g}  {record.images_per_second:.0f} images/s"
    )


class Lines(Reporter):
    """One line per epoch, for logs."""

    def __init__(self, console: Console, epochs: int, done: float) -> None:
        self.console, self.epochs, self.done = console, epochs, done
        self.start = time.perf_counter()

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def epoch(self, record: EpochRecord) -> None:
        pace = (time.perf_counter() - self.start) / (record.epoch - self.done)
        left = timedelta(seconds=round(pace * (self.epochs - record.epoch)))
        self.say(f"{line(record, self.epochs)}  left {left}")


class Bar(Reporter):
    """A bar over the whole run; finished epochs scroll away above it."""

    def __init__(self, console: Console, epochs: int, steps: int, done: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}"), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self.task: TaskID = self.bar.add_task("training", total=epochs * steps, completed=done, now="")
        self.bar.start()

    def say(self, text: str) -> None:
        self.bar.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def step(self, epoch: int, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        self.bar.update(
            self.task,
            completed=epoch * self.steps + step,
            description=f"epoch {epoch + 1}/{self.epochs} step {step}/{self.steps}",
            now=f"loss {loss:.4f} accuracy {100 * accuracy:.1f} % {images_per_second:.0f} images/s",
        )

    def epoch(self, record: EpochRecord) -> None:
        self.say(line(record, self.epochs))

    def close(self) -> None:
        self.bar.stop()
