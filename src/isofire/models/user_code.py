"""Models and data of the user's own code, by name: "package.module:function"."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from isofire.batches import BatchSource, Data, check_batch, is_pair, read_batches
from isofire.data import EventSet, ImageSet, TensorSet
from isofire.errors import CheckpointError, DataError, IsofireError, ModelError, SpecError
from isofire.models.pretrained import REGISTER
from isofire.models.restoring import restore_for_
from isofire.quantization import is_converted, spec_of
from isofire.running import require_shapes
from isofire.training.checkpoint import load_plain_weights, load_weights, peek_note, save_weights

_LOG = logging.getLogger(__name__)
_SAMPLES = 64
"""Samples a batch of a data set of single ones."""
_QUICK_S = 5.0
"""A builder that took longer is not called again to see whether it gives the same."""


def open_named(builder: str, weights: str | os.PathLike[str] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Build a model, with its quantizers if it was quantized, and fill it with the weights of a file; in eval mode.

    Parameters
    ----------
    builder
        "package.module:function", called without arguments; the working directory is searched too.
    weights
        A safetensors file: the model's state dict as `safetensors.torch.save_model` or `save_file` writes it, or one of
        `save_named`. None keeps what the builder gave; where it gives others when it is called again, so that nobody
        trained them, a warning says so.

    Returns
    -------
    tuple
        The model, and what `save_named` noted with it.

    Raises
    ------
    SpecError
        If there is no such function.
    ModelError
        If the builder fails, or gives no module.
    CheckpointError
        If the file cannot be read, or does not fit the model: the names that are missing or surplus are told.
    """
    began = time.perf_counter()
    model = build_named(builder)
    if weights is None and time.perf_counter() - began < _QUICK_S and (drawn := drawn_anew(model, builder)):
        more = f" and {len(drawn) - 1} more" if len(drawn) > 1 else ""
        _LOG.warning(
            "--weights is not given, and %s draws its weights anew in each call (%s%s): they are initial values, not "
            "trained ones; name the trained ones by --weights FILE.safetensors",
            builder, drawn[0], more,
        )  # fmt: skip
    return fill_named(model, builder, weights)


def fill_named(
    model: nn.Module, builder: str, weights: str | os.PathLike[str] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Like `open_named`, of a model that was built already; `builder` names it in errors.

    Raises
    ------
    CheckpointError
        As `open_named`.
    """
    if weights is None:
        return model.eval(), {}
    if str(weights) in REGISTER and not Path(weights).exists():
        raise CheckpointError(
            f"{weights} is a pretrained network, not weights for {builder}, and there is no file of that name; leave "
            "the builder out to take that network, or name a file with weights for it"
        )
    note = peek_note(weights)
    if note is None:
        load_plain_weights(weights, model)
        return model.eval(), {}
    try:
        restore_for_(weights, model, note)
    except CheckpointError:
        raise
    except IsofireError as error:
        raise CheckpointError(f"{weights} was quantized in a way that {builder} does not fit: {error}") from error
    load_weights(weights, model)
    written_for = str(note.get("builder", builder))
    if written_for != builder and ":" in written_for:
        _LOG.warning(
            "%s was written for %s and fills %s here: their weights have the same names and sizes, but what is done "
            "between them may differ, and accuracy and firing with it; name %s unless both give one network",
            weights, written_for, builder, written_for,
        )  # fmt: skip
    return model.eval(), note


def save_named(path: str | os.PathLike[str], model: nn.Module, builder: str, note: dict[str, Any]) -> Path:
    """Write the weights of a model, quantized or not, with what `open_named` needs besides the builder.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    spec = spec_of(model)
    quantization = None if spec is None else spec.to_dict()
    about = {"builder": builder, "quantization": quantization, "converted": is_converted(model)}
    return save_weights(path, model, {**note, **about})


@dataclass(frozen=True, eq=False)
class NamedData:
    """A split of the user's own data, cut into batches as `isofire.firing.compare` takes them."""

    name: str
    split: str
    data: Data
    limit: int | None = None

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (inputs, labels); data that come in batches keep theirs."""
        return read_batches(self.data, batch_size, self.limit)

    @property
    def size(self) -> int | None:
        """How many images; None of the user's own batches, which would have to be read to know."""
        match self.data:
            case ImageSet() | EventSet() | TensorSet() as images:
                found = len(images)
            case (Tensor(), Tensor() as labels):
                found = len(labels)
            case _:
                return self.limit
        return found if self.limit is None else min(found, self.limit)

    def first(self, n: int) -> NamedData:
        """The first `n` images, or all if there are fewer."""
        return replace(self, limit=n)


def load_named(loader: str, split: str) -> NamedData:
    """What the function "package.module:function" gives for a split, "train" or "test".

    It gives an image set, a pair of tensors (inputs, labels), batches that can be walked through again, such as a list
    or a `torch.utils.data.DataLoader`, or a `torch.utils.data.Dataset` of single samples.

    Raises
    ------
    SpecError
        If there is no such function.
    DataError
        If it fails, or gives none of these.
    """
    try:
        found = _function(loader, "--data")(split)
    except IsofireError:
        raise
    except (Exception, SystemExit) as error:
        cure = "; it is called with the split, as in def load(split)" if "argument" in str(error) else ""
        raise DataError(
            f"the loader {loader} failed for split {split!r}: {type(error).__name__}: {error}{cure}"
        ) from error
    if isinstance(found, Dataset) and not isinstance(found, IterableDataset | BatchSource):
        found = DataLoader(found, batch_size=_SAMPLES)
    place = f"what the loader {loader} gives for {split!r}"
    if isinstance(found, Tensor) or not isinstance(found, BatchSource | Iterable) or isinstance(found, Iterator):
        cure = "give the labels too, (inputs, labels)" if isinstance(found, Tensor) else "return one of these"
        cure = "of an iterator give list(...)" if isinstance(found, Iterator) else cure
        raise DataError(
            f"{place} must be an image set, a pair of tensors (inputs, labels), or batches of such pairs that can be "
            f"walked through again, got {type(found).__name__}; {cure}"
        )
    if is_pair(found):
        check_batch(found, place)
    elif isinstance(found, list | tuple) and found:
        check_batch(found[0], f"batch 0 of {place}")
    return NamedData(loader, split, found)


def source_hash(builder: str) -> str:
    """SHA-256 of the file that a builder stands in, 64 hexadecimal digits.

    Raises
    ------
    SpecError
        If there is no such function, or it is in no file.
    """
    file = sys.modules[_function(builder, "--model").__module__].__dict__.get("__file__")
    if file is None:
        raise SpecError(f"the builder {builder} must stand in a file, by which it is told from others; it does not")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def is_named(text: str) -> bool:
    """Whether it is meant as "package.module:function"."""
    module, colon, function = text.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def build_named(builder: str) -> nn.Module:
    """What a builder gives, as `open_named` without weights, and without a word on whether they were trained.

    Raises
    ------
    SpecError, ModelError
        As `open_named`.
    """
    try:
        model = _function(builder, "--model")()
    except IsofireError:
        raise
    except (Exception, SystemExit) as error:
        needs = "required positional argument" in str(error) or "required keyword-only argument" in str(error)
        cure = "; it is called without arguments: give them defaults, or name a function that fills them in"
        raise ModelError(
            f"the builder {builder} failed: {type(error).__name__}: {error}{cure if needs else ''}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"the builder {builder} must return a torch.nn.Module, got {type(model).__name__}")
    try:
        require_shapes(model)
    except ModelError as error:
        raise ModelError(f"the builder {builder} gives a network without shapes: {error}, in the builder") from error
    return model


def drawn_anew(model: nn.Module, builder: str) -> list[str]:
    """Names of the weights that the builder of a model gives otherwise when it is called again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() ^ 1)
        try:
            other = build_named(builder).state_dict()
        except IsofireError:
            return []
    return [
        name
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor) and not (name in other and torch.equal(tensor, other[name]))
    ]


def _function(text: str, option: str) -> Callable[..., Any]:
    module, _, name = text.partition(":")
    if module.endswith(".py") or not is_named(text):
        file = "; a file is named without it" if os.path.exists(text) and not text.endswith(".py") else ""
        meant = _meant(module, name)
        raise SpecError(
            f"{option} takes package.module:function, got {text!r}{file}"
            + (f"; did you mean {meant}?" if meant and not file else "")
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise SpecError(
            f"{option} {text}: cannot import {module} ({error}); run it from the module's folder"
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(f"{option} {text}: importing {module} failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        known = [key for key, value in vars(sys.modules[module]).items() if callable(value)]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {module}:{close[0]}?" if close else ""
        if getattr(sys.modules[module], "__file__", None) is None and hasattr(sys.modules[module], "__path__"):
            hint = f"; it is the folder {next(iter(sys.modules[module].__path__))}, which has no __init__.py"
        raise SpecError(f"{option} {text}: {module} has no function {name!r}{hint}")
    return found


def _meant(module: str, name: str) -> str:
    """What may be meant by a file in place of a module, or a dot in place of the colon; "" if nothing."""
    if module.endswith(".py"):
        place, file = os.path.split(module.removesuffix(".py"))
        return f"{file}:{name or 'function'}{f', started from the folder {place}' if place else ''}"
    package, _, last = module.rpartition(".")
    return f"{package}:{last}" if not name and is_named(f"{package}:{last}") else ""
