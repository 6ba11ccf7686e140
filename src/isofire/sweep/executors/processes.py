"""Processes of this machine: each does one task after the other, and a dead one is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess, SpawnProcess
from typing import Literal

import msgspec
import torch

from isofire.errors import SpecError
from isofire.sweep.executors.base import perform
from isofire.sweep.task import Outcome, Task

_PATIENCE = 5.0


@dataclass
class _Worker:
    process: SpawnProcess | ForkProcess
    line: Connection
    task: Task | None = None


class Processes:
    """An executor of `workers` processes, started as they are needed.

    Parameters
    ----------
    workers
        How many tasks run at once. Every process has the threads that the sweep's file gives a cell, whatever their
        number, since the number of threads is part of what decides a cell's bits.
    start
        How processes start. "fork" is quick, but not safe in a process that has run threads.

    Raises
    ------
    SpecError
        If `workers` is below 1, or `start` neither.
    """

    def __init__(self, workers: int = 1, start: Literal["spawn", "fork"] = "spawn") -> None:
        if workers < 1:
            raise SpecError(f"--workers must be at least 1, got {workers}")
        if start not in ("spawn", "fork"):
            raise SpecError(f"start must be 'spawn' or 'fork', got {start!r}")
        self._kind = SpawnProcess if start == "spawn" else ForkProcess
        self._workers: list[_Worker | None] = [None] * workers

    @property
    def free(self) -> int:
        """Workers without a task."""
        return sum(worker is None or worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""
        place = next(i for i, worker in enumerate(self._workers) if worker is None or worker.task is None)
        worker = self._workers[place]
        if worker is None or not worker.process.is_alive():
            worker = self._workers[place] = self._start(place)
        worker.task = task
        try:
            worker.line.send_bytes(task.encode())
        except OSError:
            # it died in this moment; `wait` finds it dead
            return

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """Outcomes of workers that finished or died."""
        busy = [(i, worker) for i, worker in enumerate(self._workers) if worker is not None and worker.task is not None]
        ready = wait([item for _, worker in busy for item in (worker.line, worker.process.sentinel)], seconds)
        ended: list[tuple[Task, Outcome]] = []
        for place, worker in busy:
            assert worker.task is not None
            if worker.line in ready:
                outcome = _received(worker.line)
            elif worker.process.sentinel in ready:
                outcome = None
            else:
                continue
            ended.append((worker.task, outcome or self._bury(place, worker)))
            worker.task = None
        return ended

    def close(self) -> None:
        """Stop all workers; what they were doing is not recorded."""
        for worker in self._workers:
            if worker is not None:
                worker.process.terminate()
        for worker in self._workers:
            if worker is None:
                continue
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.line.close()
        self._workers = [None] * len(self._workers)

    def _start(self, place: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        process = self._kind(target=_serve, args=(theirs, place), daemon=True, name=f"isofire worker {place}")
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _bury(self, place: int, worker: _Worker) -> Outcome:
        worker.process.join(_PATIENCE)
        worker.line.close()
        self._workers[place] = None
        return Outcome(kind="lost", reason=f"its process ended {_cause(worker.process.exitcode)}")


def _received(line: Connection) -> Outcome | None:
    try:
        return msgspec.json.decode(line.recv_bytes(), type=Outcome)
    except (EOFError, OSError):
        return None


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"by {name}" + (", perhaps since memory ran out" if name == "SIGKILL" else "")
    return f"with exit status {code}"


def _serve(line: Connection, place: int) -> None:
    """A worker's life."""
    # Ctrl-C reaches the whole group; the runner alone answers it, and stops its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    devices = torch.cuda.device_count()
    while True:
        try:
            task = line.recv_bytes()
        except (EOFError, OSError):
            return
        line.send_bytes(perform(task, place % devices if devices else 0))


def _die_with_parent() -> None:
    """Without its runner a worker would go on unseen, beside the workers of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
