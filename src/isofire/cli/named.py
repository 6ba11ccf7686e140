"""`--model` and `--weights`: a network of the user's own code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from torch import nn

from isofire.errors import SpecError
from isofire.models import open_model, open_named

_MODEL = Group("Model")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A network of your own code, of any library that isofire knows, instead of a file that isofire wrote.

    Parameters
    ----------
    model
        package.module:builder, a function without arguments that gives the network.
    weights
        Its weights, a state dict as safetensors; without, those that the builder gives.
    """

    model: Annotated[str | None, Parameter(group=_MODEL)] = None
    weights: Annotated[Path | None, Parameter(group=_MODEL)] = None

    def open(self, path: Path | None) -> tuple[nn.Module, dict[str, Any]]:
        """The network of a file, or of the builder with the weights of `path` or else of --weights.

        Raises
        ------
        SpecError
            If nothing is named, or weights without a builder.
        ModelError, CheckpointError
            As `open_model` and `open_named`.
        """
        if self.model is not None:
            return open_named(self.model, path or self.weights)
        if self.weights is not None:
            raise SpecError("--weights fills the network of --model package.module:builder; name that too")
        if path is None:
            raise SpecError("name a model file, or --model package.module:builder")
        return open_model(path)

    def open_pair(
        self, command: str, baseline: Path, quantized: Path | None
    ) -> tuple[tuple[nn.Module, dict[str, Any]], tuple[nn.Module, dict[str, Any]]]:
        """Two networks to compare. Of a builder's network the baseline may be --weights, or what the builder gives.

        Raises
        ------
        SpecError
            If there is one file and no builder; else as `open`.
        """
        if quantized is None and self.model is None:
            raise SpecError(f"{command} needs two files, BASELINE and QUANTIZED, got {baseline} alone")
        return self.open(None if quantized is None else baseline), self.open(quantized or baseline)
