"""Which noise floor a command shows drift beside, from the options that name networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Group, Parameter
from torch import nn

from isofire.errors import SpecError
from isofire.firing import Observation, observe
from isofire.firing.evidence.noise_floor import NoiseFloor, control_floor, seed_floor
from isofire.firing.observation import require_same_images
from isofire.models import NamedData, open_model
from isofire.quantization import spec_of
from isofire.study import AnySet

_FLOOR = Group("Noise floor")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FloorChoice:
    """What drift is shown beside; by default the baseline on other images.

    Parameters
    ----------
    control
        A network that went through the same procedure without quantization, such as training continued; may be
        repeated for several runs of the procedure.
    seed_model
        A full-precision network trained like the baseline from another seed; may be repeated.
    """

    control: Annotated[tuple[Path, ...], Parameter(negative=(), show_default=False, group=_FLOOR)] = ()
    seed_model: Annotated[tuple[Path, ...], Parameter(negative=(), show_default=False, group=_FLOOR)] = ()

    def of(
        self,
        baseline: Observation,
        data: AnySet | NamedData,
        batch_size: int,
        place: torch.device,
        open: Callable[[Path], tuple[nn.Module, dict[str, Any]]] = open_model,
    ) -> NoiseFloor | None:
        """The chosen floor on these images, cut into blocks as for the baseline; None: the image floor.

        `open` gives the network of a file, see `ModelChoice.open`.

        Raises
        ------
        SpecError
            If both are named, or a network is quantized.
        CheckpointError, ModelError, DataError
            If a file cannot be read, or its network does not match the baseline.
        """
        if self.control and self.seed_model:
            raise SpecError("name one floor: --control for the procedure, or --seed-model for other seeds")
        seen = [
            observe(_full_precision(path, open), data, batch_size=batch_size, device=place)
            for path in self.control or self.seed_model
        ]
        for other in seen:
            require_same_images(baseline, other)
        counts = [other.counts for other in seen]
        if self.control:
            return control_floor(baseline.counts, counts, about=f"control {', '.join(map(_shown, self.control))}")
        return seed_floor([baseline.counts, *counts]) if counts else None


def _full_precision(path: Path, open: Callable[[Path], tuple[nn.Module, dict[str, Any]]]) -> nn.Module:
    model, _ = open(path)
    if spec_of(model) is not None:
        raise SpecError(f"{path} is quantized; a noise floor is of networks in which nothing is, name another")
    return model


def _shown(path: Path) -> str:
    """The folder and name are enough to know a file by."""
    return str(Path(*path.parts[-2:]))
