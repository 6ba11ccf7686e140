"""Options that several commands share."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from cyclopts import Group, Parameter
from cyclopts.validators import Number

from isofire.cli.config import RunConfig, read_config, require
from isofire.errors import SpecError
from isofire.limits import MOST_THREADS
from isofire.models import NamedData, is_named, load_named
from isofire.study import AnySet, DataSettings, load_split
from isofire.training.distributed import pick_device

_DATA = Group("Data")
_MACHINE = Group("Machine")
_OUTPUT = Group("Output")

ConfigFile = Annotated[Path, Parameter(name=["--config", "-c"], help="TOML file; configs/ holds some that run as is.")]
_SET = "Change one setting, e.g. train.epochs=2; may be repeated."
Settings = Annotated[tuple[str, ...], Parameter(name="--set", help=_SET, negative=(), show_default=False)]
_CODE = "Let the configuration name code of yours, package.module:function, which is then imported and run."
AllowCode = Annotated[bool, Parameter(name="--allow-code", negative=(), show_default=False, help=_CODE)]
Seed = Annotated[int | None, Parameter(name="--seed", help="Replaces the configuration's seed.")]
_BATCH = "Images at once."
BatchSize = Annotated[int, Parameter(help=_BATCH, validator=Number(gte=1, lte=2**31 - 1))]
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
    threads: Annotated[int | None, Parameter(group=_MACHINE)] = None

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
class DataChoice:
    """Which images.

    Parameters
    ----------
    config
        TOML file whose [data] table to use.
    set
        Change one setting of the file, e.g. data.root=DIR; may be repeated.
    data
        Instead of a file: digits, cifar10, cifar100, fashion-mnist, mnist, nmnist or nmnist-small; or
        package.module:loader, a function of yours that takes a split's name and gives pairs of inputs and labels.
    root
        Data folder; by default the one that ISOFIRE_DATA names, else ~/.cache/isofire.
    download
        Fetch what is missing of --data.
    split
        test, or valid as the file's [data] table cuts it.
    n
        How many images; by default all.
    allow_code
        Let the file name code of yours, package.module:loader, which is then imported and run.
    """

    config: Annotated[Path | None, Parameter(name=["--config", "-c"], group=_DATA)] = None
    set: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, group=_DATA)] = ()
    data: Annotated[str | None, Parameter(group=_DATA)] = None
    root: Annotated[str | None, Parameter(group=_DATA)] = None
    download: Annotated[bool, Parameter(negative=(), show_default=False, group=_DATA)] = False
    split: Annotated[Literal["test", "valid"], Parameter(group=_DATA)] = "test"
    n: Annotated[int | None, Parameter(group=_DATA)] = None
    allow_code: Annotated[bool, Parameter(negative=(), show_default=False, group=_DATA)] = False

    def load(self) -> AnySet | NamedData:
        """The first `n` images of the split.

        Raises
        ------
        SpecError
            Unless just one of `config` and `data` is given, or if a setting does not fit the data.
        DataError
            If the data are missing or damaged.
        """
        if self.split == "valid" and self.config is None:
            raise SpecError("--split valid needs --config FILE, whose [data] table says how it is cut")
        if self.config is None and self.data is not None and is_named(self.data):
            if self.n is not None and self.n < 1:
                raise SpecError(f"--n must be at least 1, got {self.n}")
            named = load_named(self.data, "test")
            return named if self.n is None else named.first(self.n)
        found = load_split(self.settings(), self.split)
        if self.n is None:
            return found
        if not 1 <= self.n <= len(found):
            raise SpecError(f"--n must lie in 1..{len(found)}, the size of {found.name} ({found.split}), got {self.n}")
        return found.first(self.n)

    def settings(self) -> DataSettings:
        """The data settings of the file or of the options."""
        if (self.config is None) == (self.data is None):
            raise SpecError("name the data by --config FILE or by --data NAME, one of the two")
        if self.config is None:
            assert self.data is not None
            if self.set:
                raise SpecError("--set changes a configuration; give --config FILE, or --root for the folder")
            return DataSettings(name=self.data, root=self.root, download=self.download)
        if self.root is not None or self.download:
            raise SpecError("--root and --download go with --data; with --config use --set data.root=DIR")
        config = read_config(self.config, self.set, allow_code=self.allow_code)
        require(config, "data")
        assert config.data is not None
        return config.data


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
