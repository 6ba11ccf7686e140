"""Running a plan to its end: what is missing is given out, what comes back is counted, and the table is kept."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isofire.errors import DataError, OutputError, WorkerError
from isofire.files import writable_folder, write_text
from isofire.firing.evidence.outcome import HEADLINE
from isofire.study import markdown_table, write_rows
from isofire.study.rows import Row
from isofire.sweep.executors import Executor
from isofire.sweep.plan import Plan
from isofire.sweep.results import Results
from isofire.sweep.store import Store
from isofire.sweep.task import Outcome, Task
from isofire.text_table import counted

_LOG = logging.getLogger(__name__)

LIVES = 3
"""A cell whose process died so often in one run counts as failed."""

_HOPELESS = 10
"""After so many deaths in a row the cells are not the cause."""

_TICK = 0.5
_REST = 2.0
_TABLE_EVERY = 10.0


@dataclass
class State:
    """How far a run is, for whoever shows it.

    Attributes
    ----------
    total, done, failed
        Cells of the plan.
    running
        Titles of what this run computes now.
    elsewhere
        Cells that other runs compute now.
    computed
        Cells that this run finished.
    rows
        Of finished cells.
    last
        What ended last, and how.
    elapsed
        Seconds since the start.
    left
        Seconds that the rest takes, by the times of finished cells; None before the first.
    damaged
        What was found damaged at the start, and where it is kept; it is computed again.
    """

    total: int
    done: int = 0
    failed: int = 0
    running: list[str] = field(default_factory=list)
    elsewhere: int = 0
    computed: int = 0
    rows: list[Row] = field(default_factory=list)
    last: str = ""
    elapsed: float = 0.0
    left: float | None = None
    damaged: Sequence[str] = ()

    @property
    def rate(self) -> float | None:
        """Cells an hour that this run finished; None before the first."""
        return 3600 * self.computed / self.elapsed if self.computed and self.elapsed > 0 else None


def time_left(modes: Iterable[str], rows: Sequence[Row], workers: int) -> float | None:
    """Seconds that cells of these modes take, by the mean time of finished ones of the same mode.

    Examples
    --------
    >>> time_left(["ptq", "qat"], [{"mode": "ptq", "seconds": 1.0}, {"mode": "qat", "seconds": 9.0}], workers=2)
    5.0
    """
    times: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(str(row["mode"]), []).append(float(row["seconds"]))
    every = [value for values in times.values() for value in values]
    if not every or workers < 1:
        return None
    found = [times.get(mode, every) for mode in modes]
    return sum(sum(values) / len(values) for values in found) / workers


def run_sweep(
    plan: Plan,
    folder: str,
    executor: Executor,
    *,
    retry_failed: bool = False,
    watch: Callable[[State], None] = lambda state: None,
) -> Results:
    """Run every baseline and cell of the plan that `folder` does not hold yet; the executor is closed at the end.

    Parameters
    ----------
    retry_failed
        Run cells again that failed before.
    watch
        Called about twice a second, and whenever something ended.

    Raises
    ------
    OutputError
        If something cannot be written (full disk). What is finished is kept.
    WorkerError
        If processes die whatever cell they are given.
    """
    try:
        writable_folder(folder)
        return _Run(plan, folder, executor, retry_failed, watch).to_end()
    finally:
        executor.close()


class _Run:
    def __init__(
        self, plan: Plan, folder: str, executor: Executor, retry_failed: bool, watch: Callable[[State], None]
    ) -> None:
        self.plan, self.folder, self.executor, self.watch = plan, folder, executor, watch
        self.store = Store(folder)
        self.began = time.perf_counter()
        self.state = State(total=len(plan.cells))
        self.deaths: Counter[str] = Counter()
        self.deaths_in_a_row = 0
        self.finished: list[str] = []
        self.active: dict[str, Task] = {}
        # tasks that others were at when we asked, with the time to ask again
        self.resting: dict[str, tuple[float, Task]] = {}
        self.store.tidy()
        self._tell_of_others()
        write_text(self.store.root / "plan.json", plan.to_json())
        finished = {task.key for task in plan.cells if self.store.check("cells", task.key)}
        attempts = {task.key: self._attempts(task) for task in plan.cells if task.key not in finished}
        failed = set() if retry_failed else {key for key, count in attempts.items() if count}
        self.state.done, self.state.failed = len(finished), len(failed)
        waiting = [task for task in plan.cells if task.key not in finished | failed]
        # finished cells need theirs too: results and reports read it
        needed = {task.baseline.key for task in plan.cells if task.key not in failed}
        self.blocked: dict[str, list[Task]] = {}
        self.ready: deque[Task] = deque()
        for task in plan.baselines:
            if task.key in needed and not self.store.check("baselines", task.key):
                self.blocked[task.key] = []
                self.ready.append(task)
                attempts[task.key] = self._attempts(task)
        # a task with more attempts than these was tried by another run, or failed before and is not to be retried
        self.attempts = attempts if retry_failed else dict.fromkeys(attempts, 0)
        self.unmade: list[str] = []
        self.store.settle([*finished, *(task.key for task in plan.baselines if task.key not in self.blocked)])
        self.state.damaged = self.store.damaged
        for task in waiting:
            self.blocked.get(task.baseline.key, self.ready).append(task)
        self.state.rows = list(self._results().rows)
        self.written = -_TABLE_EVERY

    def _tell_of_others(self) -> None:
        """Say which finished cells of an earlier file no result will show any more."""
        try:
            before = Results.open(self.folder).plan
        except DataError:
            # there is none, or it is damaged and about to be written anew
            return
        keys = {str(cell["key"]) for cell in before["cells"]} - {task.key for task in self.plan.cells}
        left = [key for key in keys if self.store.exists("cells", key)]
        if left:
            _LOG.warning(
                "%s holds %s of %r that this file does not ask for: they stay in its cells/, but results and reports "
                "are now of this file alone; another --out keeps both",
                self.folder, counted(len(left), "finished cell"), before["name"],
            )  # fmt: skip

    def to_end(self) -> Results:
        self._show()
        while self.ready or self.resting or self.active:
            self._give()
            ended = self.executor.wait(_TICK) if self.active else self._rest()
            for task, outcome in ended:
                del self.active[task.key]
                self._ended(task, outcome)
            self._show()
            if ended:
                self._write(self._results(), at_least=_TABLE_EVERY)
        for key in self.finished:
            self.store.appears("cells", key)
        self.store.settle(task.key for task in (*self.plan.cells, *self.plan.baselines) if self._is_done(task))
        results = self._results()
        self._write(results)
        if self.unmade:
            raise OutputError(
                f"baseline {'; '.join(self.unmade)}. Its cells are finished and kept, a report of them needs it; "
                "mend the cause and run again with --retry-failed"
            )
        return results

    def _is_done(self, task: Task) -> bool:
        return self.store.exists("baselines" if task.cell is None else "cells", task.key)

    def _give(self) -> None:
        now = time.perf_counter()
        for key, (when, task) in list(self.resting.items()):
            # a task that is still at work elsewhere is not worth a worker, or a job in a queue
            if when <= now and self.store.is_claimed(key) and not self._is_done(task):
                self.resting[key] = (now + _REST, task)
            elif when <= now:
                del self.resting[key]
                self.ready.append(task)
        free = self.executor.free
        while self.ready and free > 0:
            task = self.ready.popleft()
            if self._attempts(task) > self.attempts[task.key]:
                self._failed(task, str((self.store.failure(task.key) or {}).get("reason")))
                continue
            self.active[task.key] = task
            self.executor.submit(task)
            free -= 1

    def _attempts(self, task: Task) -> int:
        record = self.store.failure(task.key)
        return 0 if record is None else int(record.get("attempts", 1))

    def _rest(self) -> Iterable[tuple[Task, Outcome]]:
        time.sleep(_TICK)
        return ()

    def _ended(self, task: Task, outcome: Outcome) -> None:
        if outcome.kind == "stopped":
            raise OutputError(outcome.reason)
        if outcome.kind != "lost":
            self.deaths_in_a_row = 0
        if outcome.kind == "held":
            self.resting[task.key] = (time.perf_counter() + _REST, task)
        elif outcome.kind == "lost":
            self._lost(task, outcome.reason)
        elif outcome.kind == "failed":
            self._failed(task, outcome.reason)
        elif task.cell is None:
            self.ready.extend(self.blocked.pop(task.key))
        else:
            self._done(task, outcome)

    def _lost(self, task: Task, reason: str) -> None:
        self.deaths[task.key] += 1
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row >= _HOPELESS:
            raise WorkerError(
                f"the last {_HOPELESS} processes that were given a cell died, the last one {reason}; look at what they "
                "print, mend it, and give the same command again"
            )
        self.store.note("lost", task.key, title=task.title, reason=reason)
        if self.deaths[task.key] < LIVES:
            self.ready.appendleft(task)
            return
        reason = f"{reason}, {LIVES} times"
        self.store.fail(task.key, {"title": task.title, "type": "WorkerLost", "reason": reason, "traceback": ""})
        self._failed(task, reason)

    def _failed(self, task: Task, reason: str) -> None:
        """A cell, or all that wait for a baseline."""
        if task.cell is not None:
            self.state.failed += 1
            self.state.last = f"{task.title}: failed, {reason}"
            return
        cells = self.blocked.pop(task.key)
        if not cells:
            self.unmade.append(f"{task.baseline.name} cannot be made again: {reason}")
        reason = f"its baseline {task.baseline.name} failed: {reason}"
        for cell in cells:
            trace = (self.store.failure(task.key) or {}).get("traceback", "")
            self.store.fail(cell.key, {"title": cell.title, "type": "Baseline", "reason": reason, "traceback": trace})
            self._failed(cell, reason)

    def _done(self, task: Task, outcome: Outcome) -> None:
        self.state.done += 1
        self.state.computed += outcome.seconds > 0
        self.finished.append(task.key)
        rows = self._results(only=task.key).rows
        self.state.rows.extend(rows)
        # a network file system may show the row later
        self.state.last = f"{task.title}: {told(rows[0]) if rows else 'done'}"

    def _results(self, only: str | None = None) -> Results:
        cells = [
            {"key": task.key, "title": task.title, "baseline": task.baseline.key}
            for task in self.plan.cells
            if only in (None, task.key)
        ]
        baselines = [{"key": task.key, "name": task.baseline.name} for task in self.plan.baselines]
        return Results(self.folder, {"cells": cells, "baselines": baselines})

    def _show(self) -> None:
        self.state.running = [task.title for task in self.active.values()]
        self.state.elsewhere = len(self.resting)
        self.state.elapsed = time.perf_counter() - self.began
        waiting = [*self.ready, *self.active.values(), *(task for _, task in self.resting.values())]
        waiting += [cell for cells in self.blocked.values() for cell in cells]
        modes = [task.cell.mode for task in waiting if task.cell is not None]
        self.state.left = time_left(modes, self.state.rows, len(self.active) + len(self.resting))
        self.watch(self.state)

    def _write(self, results: Results, at_least: float = 0.0) -> None:
        now = time.perf_counter()
        if now - self.written < at_least:
            return
        self.written = now
        write_rows(self.folder, results.rows, self.plan.about)
        if results.rows:
            write_text(self.store.root / "table.md", markdown_table(results.rows))


def told(row: dict[str, Any]) -> str:
    """A finished cell's measures in one line."""
    return (
        f"accuracy {100 * row['accuracy']:.2f} % (baseline {100 * row['accuracy_fp']:.2f}), "
        f"EMD {row[HEADLINE]:.5f}, rate {row['mfr']:.4f} ({row['mfr_fp']:.4f}), {row['seconds']:.1f} s"
    )
