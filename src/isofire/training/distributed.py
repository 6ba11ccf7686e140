"""Several processes, started by torchrun, that train one model.

Every process holds the whole model and the whole training set. Each step takes the next `processes * batch_size`
images of the epoch's common shuffle, every process its own stretch of them, and DistributedDataParallel averages the
gradients: the same step as one process with a batch that many times larger, but for layers that look across the batch.

Batch normalization uses the statistics of each process's own batch; its running statistics are those of process 0,
whose buffers are broadcast before every training step and before validation. The same holds for quantizers that adapt
buffers to the data.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isofire.errors import OutputError, SpecError
from isofire.folder_lock import hold


@dataclass(frozen=True)
class Group:
    """This process among its peers; alone, every method does nothing or the obvious."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Make the backward pass of a model average its gradients over all processes."""
        if self.world == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def gather(self, tensor: Tensor) -> Tensor:
        """Stack a tensor of every process: `[...]` -> `[world, ...]`, the same everywhere."""
        if self.world == 1:
            return tensor.unsqueeze(0)
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of process 0 to the others."""
        if self.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.world > 1:
            dist.barrier()


def join(device: torch.device | str | None = None) -> Group:
    """Join the processes that torchrun started, or stand alone if there is no `WORLD_SIZE` above 1.

    The group is made once and left when the interpreter ends, so that several runs can follow each other. A group that
    the caller has made is used as it is.

    Parameters
    ----------
    device
        `None` takes CUDA if there is one, else the CPU. A CUDA device without an index is that of `LOCAL_RANK`.

    Raises
    ------
    SpecError
        If the device does not exist, or `WORLD_SIZE` is set but torchrun's other variables are not.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = pick_device(device, local)
    if not (dist.is_available() and dist.is_initialized()):
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return Group(place)
        _start(place)
    return Group(place, dist.get_rank(), dist.get_world_size())


def pick_device(device: torch.device | str | None = None, local_rank: int = 0) -> torch.device:
    """Give the device asked for; `None` takes CUDA if there is one, else the CPU.

    Raises
    ------
    SpecError
        If there is no such device.
    """
    try:
        place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device is None else device)
    except (RuntimeError, ValueError, UnicodeError) as error:
        raise SpecError(f"device must name a torch device, got {device!r} ({error}); try 'cpu' or 'cuda'") from error
    if place.type not in ("cpu", "cuda"):
        raise SpecError(f"device must be on cpu or cuda, got {str(device)!r}; others were never tried")
    if place.type == "cpu":
        if place.index:
            raise SpecError(f"there is one cpu, of all cores, got {str(device)!r}; name it 'cpu'")
        return torch.device("cpu")
    index = local_rank if place.index is None else place.index
    if index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        there = f"torch finds cuda:0 to cuda:{count - 1}" if count else "torch finds no CUDA device here"
        asked = "" if device is None or str(place) == f"cuda:{index}" else f" (cuda:{index})"
        raise SpecError(
            f"device {str(device or place)!r}{asked} does not exist, {there}; leave it out, or choose 'cpu'"
        )
    return torch.device("cuda", index)


def _start(device: torch.device) -> None:
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise SpecError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {', '.join(missing)} is not set (environment); "
            "start through torchrun, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def alone_in(folder: Path | None, group: Group) -> Iterator[None]:
    """No other run trains in the folder; the processes of one run are told together."""
    with ExitStack() as stack:
        refused: OutputError | None = None
        if folder is not None and group.leads:
            try:
                stack.enter_context(hold(folder))
            except OutputError as error:
                refused = error
        if bool(group.gather(torch.tensor(int(refused is not None), device=group.device)).any()):
            raise refused or OutputError(f"{folder} could not be opened by the first process, whose error says why")
        yield
