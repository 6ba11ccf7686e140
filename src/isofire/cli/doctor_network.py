"""`isofire doctor NETWORK`: what is wrong with a network's firing."""

from __future__ import annotations

from pathlib import Path

import torch

from isofire.cli.named import ModelChoice
from isofire.cli.options import DataChoice
from isofire.cli.screen import Report
from isofire.errors import SpecError
from isofire.quantization import diagnose
from isofire.quantization.diagnosis.diagnose import IMAGES
from isofire.study import environment


def examine_network(
    path: Path | None, baseline: Path | None, chosen: ModelChoice, choice: DataChoice, place: torch.device
) -> Report:
    """Look at a network, on images if data are named, beside its baseline if one is named.

    Raises
    ------
    SpecError
        If there is a baseline and no data; else as `ModelChoice.open` and `DataChoice.load`.
    ModelError, CheckpointError, DataError
        If the network, its baseline or the data cannot be used.
    """
    named = choice.config is not None or choice.data is not None
    if not named and (baseline is not None or choice.n is not None or choice.set or choice.given()):
        raise SpecError("a baseline, --n, --set and --root need images: name the data by --data NAME or --config FILE")
    model = chosen.open(path)[0].to(place)
    before = None if baseline is None else chosen.open(baseline)[0].to(place)
    found = diagnose(model, choice.load() if named else None, before, max_images=choice.n or IMAGES)
    return Report({**found.to_dict(), "environment": environment(place)}, found.table(), int(not found.healthy))
