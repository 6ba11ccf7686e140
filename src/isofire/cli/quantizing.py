"""What commands that quantize a network in many ways open first: its settings, the network, and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from isofire.cli.named import ModelChoice
from isofire.cli.options import Machine, QuantChoice, first, refuse_processes
from isofire.cli.progress import networks_shown
from isofire.cli.screen import Report
from isofire.config import DataSettings
from isofire.spec import QuantSpec
from isofire.study import environment


class Quantizing:
    """A full-precision network, what to quantize in it, and the images to do it by.

    Parameters
    ----------
    load
        How the data are read: whether they must be sets that can be cut.

    Attributes
    ----------
    train, test
        The images that calibrate, and the first `n` of those that are compared on.
    how
        Seed, calibration images, device and progress, as `isofire.study` takes them.
    """

    def __init__(
        self,
        command: str,
        baseline: Path | None,
        asked: QuantChoice | None,
        network: ModelChoice | None,
        machine: Machine | None,
        n: int | None,
        load: Callable[[DataSettings], Any],
    ) -> None:
        refuse_processes(command)
        settings = (asked or QuantChoice()).read("data", "quant")
        assert settings.data is not None
        place = (machine or Machine()).claim()
        self.model: nn.Module = (network or ModelChoice()).open_baseline(baseline)[0]
        settings = (asked or QuantChoice()).fit(settings, self.model)
        assert settings.quant is not None
        self.spec: QuantSpec = settings.quant
        assert settings.data is not None
        splits = load(settings.data)
        self.train: Any = splits.train
        self.test: Any = first(splits.test, n)
        self.how: dict[str, Any] = {
            "seed": settings.seed,
            "calibration_images": settings.calibration.images,
            "device": place,
            "on_step": networks_shown(),
        }

    def report(self, found: Any) -> Report:
        """A result that has a `table` and plain values, with where it was computed."""
        return Report({**found.to_dict(), "environment": environment(self.how["device"])}, found.table())
