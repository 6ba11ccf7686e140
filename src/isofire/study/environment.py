"""What a result was made with: versions, machine, time and commit."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from isofire.neurons import native
from isofire.study.git_state import git_state

_PACKAGES = ("isofire", "torch", "numpy", "msgspec", "safetensors")


def environment(device: torch.device | str | None = None) -> dict[str, Any]:
    """JSON values that are stored beside every result; no names of machines, users or folders among them.

    Parameters
    ----------
    device
        Where the work runs; None: the CPU.

    Examples
    --------
    >>> environment()["device"]
    'cpu'
    """
    place = torch.device(device or "cpu")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(place),
        "gpu": torch.cuda.get_device_name(place) if place.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "kernels": native.library() is not None,
        "git": git_state(),
    }


def version(package: str) -> str | None:
    """The installed version; None if the package is not installed."""
    return next((found.version for found in metadata.distributions(name=package)), None)


def cpu_model() -> str:
    """Such as "Intel(R) Xeon(R) CPU @ 2.20GHz"; on systems that do not tell, the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
