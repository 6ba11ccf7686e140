"""Tasks on a Ray cluster (extra `ray`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import msgspec

from isofire.errors import OutputError, SpecError, WorkerError
from isofire.sweep.executors.base import perform
from isofire.sweep.task import Outcome, Task


class Ray:
    """An executor of Ray tasks, as many at once as the cluster has room for.

    Every node must see the sweep's folder and the data under the same paths.

    Parameters
    ----------
    address
        Of a running cluster, "auto" for the one that this machine is part of; None: a connection that exists already,
        else RAY_ADDRESS, else a cluster of this machine alone.
    threads
        CPUs that a task reserves.
    gpus
        GPUs that a task reserves.
    options
        Further options of the Ray tasks, such as `resources`.

    Raises
    ------
    OutputError
        If Ray is not installed.
    SpecError
        If Ray knows no such option.
    WorkerError
        If there is no such cluster.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        threads: int = 1,
        gpus: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise OutputError("the executor 'ray' needs Ray, which is not installed; pip install 'isofire[ray]'")
        import ray

        try:
            # a task whose process died is given again by the runner, which counts the deaths; Ray shows a task the GPUs
            # that it reserved and no others
            self._perform = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0, **(options or {}))(perform)
        except (ValueError, TypeError) as error:
            raise SpecError(f"--option must be what Ray's tasks take, got {sorted(options or {})}: {error}") from error
        self._ray, self._threads, self._ours = ray, threads, not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise WorkerError(
                    f"cannot reach a Ray cluster at {address!r}: {error}; start one, or leave it out"
                ) from error
        self._running: dict[Any, Task] = {}

    @property
    def free(self) -> int:
        """Room of the cluster as it is now, of which one task may wait for more."""
        room = int(self._ray.cluster_resources().get("CPU", 0)) // self._threads
        return max(1, room) - len(self._running)

    def submit(self, task: Task) -> None:
        """Give a task to the cluster."""
        self._running[self._perform.remote(task.encode())] = task

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """Outcomes of tasks that ended, or whose process or node died."""
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=seconds)
        return [(self._running.pop(handle), self._outcome(handle)) for handle in ready]

    def close(self) -> None:
        """Stop what runs, and the connection if it was opened here."""
        for handle in self._running:
            self._ray.cancel(handle, force=True)
        self._running.clear()
        if self._ours:
            self._ray.shutdown()

    def _outcome(self, handle: Any) -> Outcome:
        try:
            return msgspec.json.decode(self._ray.get(handle), type=Outcome)
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError) as error:
            return Outcome(kind="lost", reason=f"its Ray worker died: {_first_line(error)}")
        except self._ray.exceptions.OutOfMemoryError as error:
            return Outcome(kind="lost", reason=f"Ray stopped it for lack of memory: {_first_line(error)}")
        except self._ray.exceptions.RayError as error:
            return Outcome(kind="lost", reason=f"Ray could not run it: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
