"""The network that a command works on: a file, a pretrained name, a NIR graph, or a builder of the user's own code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from torch import nn

from isofire.errors import ModelError, SpecError
from isofire.export import read_bundle
from isofire.models import build_named, fill_named, open_model, open_named
from isofire.quantization import spec_of

_MODEL = Group("Model")
_NETWORK = "A file that isofire wrote (model.safetensors); with --model, weights for it."
Network = Annotated[Path | None, Parameter(help=_NETWORK)]
_FULL = (
    "The full-precision network: a model.safetensors that isofire wrote, a pretrained one's name, or a FILE.nir; or "
    "--model names one of yours."
)
FullPrecision = Annotated[Path | None, Parameter(help=_FULL)]
_AGAINST = "The network to measure against, usually in full precision; with --model it may be left to --weights."
Against = Annotated[Path, Parameter(help=_AGAINST)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A network of your own code, of any library that isofire knows, or a NIR graph, instead of isofire's own file.

    Parameters
    ----------
    model
        package.module:builder, a function without arguments that gives the network; or a FILE.nir.
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
        if path is not None and is_nir(path):
            if self.model is not None and not is_nir(self.model):
                raise SpecError(f"{path} is a whole network, and --model {self.model} names another; leave one out")
            return read_nir(path).eval(), {}
        if path is not None and is_bundle(path):
            return read_bundle(path), {}
        if self.model is not None:
            return self._built(path or self.weights)
        if self.weights is not None:
            raise SpecError("--weights fills the network of --model package.module:builder; name that too")
        if path is None:
            raise SpecError(
                "name a network: a model.safetensors, a FILE.nir, a pretrained one such as sew_resnet8-cifar10, or "
                "--model package.module:builder"
            )
        return open_model(path)

    def open_baseline(self, path: Path | None) -> tuple[nn.Module, ModelChoice]:
        """A full-precision network, and the choice by which it is known from here on: a .nir file is a builder too.

        Raises
        ------
        SpecError
            If two networks are named.
        ModelError
            If it is quantized; else as `open`.
        """
        if path is not None and self.model is not None:
            raise SpecError("--model takes its file by --weights; leave the other file out")
        chosen = replace(self, model=str(path)) if path is not None and is_nir(path) else self
        model, _ = chosen.open(None if chosen.model else path)
        if spec_of(model) is not None:
            raise ModelError(
                f"{path or self.weights or self.model} is quantized already; name the full-precision network it came "
                "from"
            )
        return model, chosen

    def open_pair(
        self, command: str, baseline: Path, quantized: Path | None
    ) -> tuple[tuple[nn.Module, dict[str, Any]], tuple[nn.Module, dict[str, Any]]]:
        """Two networks to compare. Of a builder's network the baseline may be --weights, or what the builder gives.

        A baseline from a .nir file is the builder of what was quantized from it.

        Raises
        ------
        SpecError
            If there is one file and no builder; else as `open`.
        """
        if quantized is None and self.model is None:
            raise SpecError(f"{command} needs two files, BASELINE and QUANTIZED, got {baseline} alone")
        if quantized is not None and self.model is None and is_nir(baseline):
            return self.open(baseline), replace(self, model=str(baseline)).open(quantized)
        return self.open(None if quantized is None else baseline), self.open(quantized or baseline)

    def names_of_pair(self, baseline: Path, quantized: Path | None) -> tuple[str, str]:
        """What the two networks of `open_pair` are called."""
        return (
            (str(self.weights or self.model), str(baseline)) if quantized is None else (str(baseline), str(quantized))
        )

    def fresh(self) -> nn.Module:
        """What the builder gives, without --weights."""
        assert self.model is not None
        return self._built(None)[0] if is_nir(self.model) else build_named(self.model)

    def _built(self, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
        assert self.model is not None
        if is_nir(self.model):
            return fill_named(read_nir(self.model), self.model, weights)
        return open_named(self.model, weights)


def is_nir(path: str | Path) -> bool:
    """Whether a file is meant as a NIR graph."""
    return Path(path).suffix == ".nir"


def is_bundle(path: Path) -> bool:
    """Whether a folder is a bundle of integers, as `isofire export --to bundle` writes it."""
    return (path / "manifest.json").is_file()


def read_nir(path: str | Path) -> nn.Module:
    """The network of a .nir file.

    Raises
    ------
    SpecError
        If the package nir is missing.
    CheckpointError, ModelError
        As `isofire.nir.read`.
    """
    try:
        from isofire import nir
    except ImportError as error:
        raise SpecError(f"{path} needs the extra nir: pip install 'isofire[nir]' ({error})") from error
    return nir.read(path)
