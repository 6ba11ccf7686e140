"""Where tasks run: processes of this machine, a Ray cluster, or SLURM."""

from isofire.sweep.executors.base import Executor
from isofire.sweep.executors.processes import Processes

__all__ = ["Executor", "Processes"]
