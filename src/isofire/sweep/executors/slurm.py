"""Tasks as jobs of SLURM, through submitit (extra `slurm`)."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from isofire.errors import OutputError, SpecError, WorkerError
from isofire.sweep.executors.base import perform
from isofire.sweep.task import Outcome, Task

_POLL = 0.2


class Slurm:
    """An executor of SLURM jobs, a task each.

    Every node must see the sweep's folder and the data under the same paths. submitit's own files, in which it hands a
    job its task, are in `slurm/` of the sweep's folder.

    Parameters
    ----------
    folder
        The sweep's folder.
    jobs
        How many jobs are queued or running at once.
    threads
        CPUs of a job.
    gpus
        GPUs of a job.
    minutes
        Time limit of a job.
    cluster
        "slurm", or "local" for processes of this machine in SLURM's place.
    options
        Further parameters of submitit's `AutoExecutor`, such as `slurm_partition`.

    Raises
    ------
    OutputError
        If submitit is not installed.
    WorkerError
        If there is no SLURM here.
    SpecError
        If an option is unknown or `jobs` is below 1.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        jobs: int = 16,
        threads: int = 1,
        gpus: int = 0,
        minutes: int = 240,
        cluster: str = "slurm",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if jobs < 1:
            raise SpecError(f"--workers must be at least 1, got {jobs}")
        if importlib.util.find_spec("submitit") is None:
            raise OutputError(
                "the executor 'slurm' needs submitit, which is not installed; pip install 'isofire[slurm]'"
            )
        import submitit

        self._submitit, self._jobs = submitit, jobs
        try:
            self._executor = submitit.AutoExecutor(folder=Path(folder) / "slurm", cluster=cluster)
        except RuntimeError as error:
            raise WorkerError(f"cannot submit to {cluster!r}: {error}; run this where sbatch works") from error
        try:
            self._executor.update_parameters(
                name="isofire", timeout_min=minutes, cpus_per_task=threads, gpus_per_node=gpus, **(options or {})
            )
        except (NameError, TypeError, ValueError) as error:
            raise SpecError(f"submitit does not take these options: {error}") from error
        self._running: list[tuple[Any, Task]] = []

    @property
    def free(self) -> int:
        """How many more jobs may be queued."""
        return self._jobs - len(self._running)

    def submit(self, task: Task) -> None:
        """Queue a job."""
        self._running.append((self._executor.submit(perform, task.encode()), task))

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """Outcomes of jobs that ended, were cancelled, or ran out of time."""
        end = time.monotonic() + seconds
        while not (ended := [item for item in self._running if item[0].done()]) and time.monotonic() < end:
            time.sleep(_POLL)
        self._running = [item for item in self._running if item not in ended]
        return [(task, self._outcome(job)) for job, task in ended]

    def close(self) -> None:
        """Cancel what is queued or runs."""
        for job, _ in self._running:
            job.cancel(check=False)
        self._running.clear()

    def _outcome(self, job: Any) -> Outcome:
        errors = self._submitit.core.utils
        try:
            return msgspec.json.decode(job.result(), type=Outcome)
        except (errors.UncompletedJobError, errors.FailedJobError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            return Outcome(kind="lost", reason=f"job {job.job_id} ended as {job.state}: {said[0]}")
