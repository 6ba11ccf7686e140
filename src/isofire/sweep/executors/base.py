"""The one interface of all executors."""

from __future__ import annotations

from typing import Protocol

import msgspec

from isofire.own_process import begin
from isofire.sweep.task import Outcome, Task


class Executor(Protocol):
    """Runs `isofire.sweep.work.perform` on tasks, somewhere.

    What a task leaves behind is in the sweep's folder, which every place that runs tasks must see; an executor only
    carries tasks there and outcomes back. It need not know whether a task was done before, or is being done elsewhere.
    """

    @property
    def free(self) -> int:
        """How many more tasks can be given now."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task soon."""
        ...

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """What ended since the last call; waits up to `seconds` for something to end.

        A task whose process died has the outcome "lost".
        """
        ...

    def close(self) -> None:
        """Stop what still runs, at once."""
        ...


def perform(task: bytes, local_rank: int = 0) -> bytes:
    """`isofire.sweep.work.perform` in a process of isofire's own, from a task's JSON to that of its outcome."""
    begin()
    # what sends tasks away need not import what does them
    from isofire.sweep import work

    return msgspec.json.encode(work.perform(Task.decode(task), local_rank))
