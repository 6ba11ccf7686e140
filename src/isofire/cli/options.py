"""Options that several commands share."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
import torch
from cyclopts import Group, Parameter
from cyclopts.validators import Number
from torch import nn

from isofire.cli.whole import WHOLE
from isofire.config import DataSettings, RunConfig, read_config, require
from isofire.errors import SpecError
from isofire.firing.evidence.outcome import Margins, check_drop
from isofire.limits import MOST_THREADS
from isofire.models import NamedData, load_named
from isofire.quantization.presets import fitted
from isofire.study import AnySet, is_uncut_loader, load_split
from isofire.training.distributed import pick_device

Images = TypeVar("Images", bound=AnySet | NamedData)

_DATA = Group("Data")
_MACHINE = Group("Machine")
_OUTPUT = Group("Output")
_VERDICT = Group("Verdict")

_FILE = "TOML file; the package has some that run as they are, such as configs/digits-demo.toml."
ConfigFile = Annotated[Path, Parameter(name=["--config", "-c"], help=_FILE)]
_SET = "Change one setting, e.g. train.epochs=2; may be repeated."
Settings = Annotated[tuple[str, ...], Parameter(name="--set", help=_SET, negative=(), show_default=False)]
_LOG = logging.getLogger(__name__)
_CODE = "Let the configuration name code of yours, package.module:function, which is then imported and run."
AllowCode = Annotated[bool, Parameter(name="--allow-code", negative=(), show_default=False, help=_CODE)]
Seed = Annotated[int | None, WHOLE, Parameter(name="--seed", help="Replaces the configuration's seed.")]
_BATCH = "Images at once."
BatchSize = Annotated[int, WHOLE, Parameter(help=_BATCH, validator=Number(gte=1, lte=2**31 - 1))]
Out = Annotated[Path | None, Parameter(name=["--out", "-o"], help="Folder for results; made if it is missing.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """How results and errors are told.

    Parameters
    ----------
    json
        Print one JSON document on stdout and nothing else there.
    debug
        Show the traceback of an error (also: ISOFIRE_DEBUG=1).
    """

    json: Annotated[bool, Parameter(negative=(), show_default=False, group=_OUTPUT)] = False
    debug: Annotated[bool, Parameter(negative=(), show_default=False, group=_OUTPUT)] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the work runs.

    Parameters
    ----------
    device
        cpu, cuda or cuda:1; by default CUDA if there is one.
    threads
        CPU threads; by default as many as torch finds cores.
    """

    device: Annotated[str | None, Parameter(group=_MACHINE)] = None
    threads: Annotated[int | None, WHOLE, Parameter(group=_MACHINE)] = None

    def claim(self, default_threads: int | None = None) -> torch.device:
        """Set the threads and return the device: CUDA without an index is that of torchrun's `LOCAL_RANK`.

        Raises
        ------
        SpecError
            If there is no such device, or `threads` is below 1.
        """
        threads = default_threads if self.threads is None else self.threads
        if threads is not None:
            if not 1 <= threads <= MOST_THREADS:
                raise SpecError(f"--threads must lie in 1..{MOST_THREADS}, got {threads}")
            torch.set_num_threads(threads)
        return pick_device(self.device, int(os.environ.get("LOCAL_RANK", "0")))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MarginChoice:
    """How much may change and still count as kept.

    Parameters
    ----------
    margin_accuracy
        Most that accuracy may fall, as a share of images: 0.01, the default, is one point.
    margin_firing
        Most that drift may be, as a multiple of its noise floor; by default 2.
    """

    margin_accuracy: Annotated[float | None, Parameter(group=_VERDICT, show_default=False)] = None
    margin_firing: Annotated[float | None, Parameter(group=_VERDICT, show_default=False)] = None

    def over(self, margins: Margins | None = None) -> Margins:
        """`margins`, with what was given in place of theirs."""
        given = {"accuracy": self.margin_accuracy, "firing": self.margin_firing}
        known = {key: value for key, value in given.items() if value is not None}
        if self.margin_accuracy is not None:
            check_drop("--margin-accuracy", self.margin_accuracy)
        return msgspec.structs.replace(margins or Margins(), **known)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SetChoice:
    """Which data set. It wins over the table [data] of a file, which is told; how that table cuts its images stays.

    Parameters
    ----------
    data
        Instead of the set that a file's [data] names: digits, cifar10, cifar100, fashion-mnist, mnist, nmnist or
        nmnist-small; or package.module:loader, a function of yours that takes "train" or "test" and gives a pair of
        tensors (inputs, labels), batches of such pairs such as a DataLoader, a torch Dataset, or an
        isofire.data.ImageSet.
    root
        Data folder; by default the one that ISOFIRE_DATA names, else ~/.cache/isofire.
    download
        Fetch what is missing.
    """

    data: Annotated[str | None, Parameter(group=_DATA)] = None
    root: Annotated[str | None, Parameter(group=_DATA)] = None
    download: Annotated[bool, Parameter(negative=(), show_default=False, group=_DATA)] = False

    def given(self) -> dict[str, Any]:
        """What was given, as settings of the table [data]."""
        found: dict[str, Any] = {"name": self.data, "root": self.root, "download": self.download or None}
        return {key: value for key, value in found.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class QuantChoice(SetChoice):
    """What to quantize and on which data.

    Parameters
    ----------
    config
        TOML file; the package has some that run as they are, such as configs/digits-demo.toml.
    preset
        A spec by its name, instead of the table [quant]: keep-firing (4-bit weights, 2-bit states), keep-firing-2bit
        (both 2 bits) or keep-firing-1bit-state; see docs/keep-firing.md. --set changes single settings of it.
    seed
        Replaces the configuration's.
    """

    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None
    preset: str | None = None
    set: Settings = ()
    allow_code: AllowCode = False
    seed: Seed = None

    def read(self, *parts: str) -> RunConfig:
        """The configuration with all that the options say laid over it.

        Raises
        ------
        SpecError
            If nothing says what to quantize, or one of the tables `parts` is missing; else as `read_config`.
        """
        if self.config is None and self.preset is None and not any(text.startswith("quant") for text in self.set):
            raise SpecError(
                "what to quantize is said by --config FILE, --preset keep-firing, or --set alone, such as "
                "--set quant.weights.method=uniform --set quant.weights.bits=4; give one"
            )
        found = read_config(self.config, self.set, self.seed, self.allow_code, self.preset, self.given())
        require(found, *parts)
        return found

    def fit(self, settings: RunConfig, model: nn.Module) -> RunConfig:
        """A preset's membranes where the network's neurons store them, unless --set says where; what is changed is
        told."""
        said = any(text.replace(" ", "").startswith("quant.membrane.placement=") for text in self.set)
        if self.preset is None or said or settings.quant is None:
            return settings
        spec, told = fitted(settings.quant, model)
        if told is not None:
            _LOG.warning("--preset %s: %s", self.preset, told)
        return msgspec.structs.replace(settings, quant=spec)

    @property
    def source(self) -> str:
        """The file or preset, for people."""
        return str(self.config or self.preset or "--set")

    @property
    def stem(self) -> str:
        """The same as part of a folder's name."""
        return self.config.stem if self.config else str(self.preset or "set")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataChoice(SetChoice):
    """Which images.

    Parameters
    ----------
    config
        TOML file whose [data] table to use.
    set
        Change one setting of the [data] table, e.g. data.test_images=100; may be repeated.
    split
        test, or valid as the file's [data] table cuts it.
    n
        How many images; by default all.
    allow_code
        Let the file name code of yours, package.module:loader, which is then imported and run.
    """

    config: Annotated[Path | None, Parameter(name=["--config", "-c"], group=_DATA)] = None
    set: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, group=_DATA)] = ()
    split: Annotated[Literal["test", "valid"], Parameter(group=_DATA)] = "test"
    n: Annotated[int | None, WHOLE, Parameter(group=_DATA)] = None
    allow_code: Annotated[bool, Parameter(negative=(), show_default=False, group=_DATA)] = False

    def load(self) -> AnySet | NamedData:
        """The first `n` images of the split.

        Raises
        ------
        SpecError
            If nothing names the data, or a setting does not fit them.
        DataError
            If the data are missing or damaged.
        """
        settings = self.settings()
        if self.split == "test" and is_uncut_loader(settings):
            return first(load_named(settings.name, "test"), self.n)
        return first(load_split(settings, self.split), self.n)

    def settings(self) -> DataSettings:
        """The data settings of the file and the options."""
        if self.config is None and self.data is None:
            raise SpecError(
                "name the data by --data NAME, a set such as digits, or --data package.module:loader, a function of "
                "yours; or by --config FILE with a table [data]"
            )
        config = read_config(self.config, self.set, allow_code=self.allow_code, data=self.given())
        require(config, "data")
        assert config.data is not None
        return config.data


def first(images: Images, n: int | None) -> Images:
    """The first `n` images, as --n says; of a loader's batches all, if there are fewer.

    Raises
    ------
    SpecError
        If there are not so many.
    """
    if n is None:
        return images
    if isinstance(images, NamedData):
        if n < 1:
            raise SpecError(f"--n must be at least 1, got {n}")
    elif not 1 <= n <= len(images):
        raise SpecError(f"--n must lie in 1..{len(images)}, the size of {images.name} ({images.split}), got {n}")
    return cast(Images, images.first(n))


def batch_of(images: AnySet | NamedData, count: int) -> torch.Tensor:
    """Inputs of the first `count` images as one batch; of a set with fewer, all."""
    count = count if isinstance(images, NamedData) else min(count, len(images))
    return next(iter(images.first(count).batches(count)))[0]


def refuse_processes(command: str) -> None:
    """Refuse a command that torchrun started in several processes, of which each would do and write the same.

    Raises
    ------
    SpecError
        If `WORLD_SIZE` is above 1.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        raise SpecError(
            f"isofire {command} runs in one process, got {world} (WORLD_SIZE), quantization-aware training included; "
            "start it without torchrun, which is for isofire train only"
        )


def out_folder(given: Path | None, configured: str | None, name: str, seed: int, decides: Any) -> Path:
    """Where results go: --out, else the configuration's `out`, else a folder of the run's own below runs/.

    Its name has the seed and a hash of what else decides the run, so that two runs share one only if they are the same.

    Parameters
    ----------
    name
        Of the configuration, for people.
    decides
        Plain values, without folders of this machine.
    """
    if given is not None or configured is not None:
        return given or Path(configured or "")
    digest = hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:8]
    return Path("runs") / f"{name}-seed{seed}-{digest}"


def deciding(settings: RunConfig, *parts: str) -> dict[str, Any]:
    """The parts of a configuration as plain values, without where data and results lie."""
    found = {part: msgspec.to_builtins(getattr(settings, part)) for part in parts}
    if isinstance(found.get("data"), dict):
        found["data"] = {key: value for key, value in found["data"].items() if key not in ("root", "download")}
    return found
