"""Loading a data set by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, overload

import msgspec

from isofire.conversion import convert
from isofire.data.checks import check_split
from isofire.data.cifar import absent_cifar, load_cifar
from isofire.data.cifar_specs import CIFAR10, CIFAR100
from isofire.data.digits import load_digits
from isofire.data.event_set import EventSet
from isofire.data.image_set import ImageSet
from isofire.data.mnist import FASHION_MNIST, MNIST, absent_idx, load_idx
from isofire.data.nmnist import absent_nmnist, load_nmnist, load_nmnist_small, small_source
from isofire.data.remote import Progress, RemoteFile, data_root, obtain
from isofire.errors import SpecError


@dataclass(frozen=True)
class _Entry:
    """How a set is loaded, what is missing of it, and which options it takes."""

    load: Callable[..., ImageSet | EventSet]
    absent: Callable[[Path, str], tuple[RemoteFile, ...]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def _load_digits(root: Path, split: str) -> ImageSet:
    del root  # part of the package
    return load_digits(split)


def _nothing_absent(root: Path, split: str) -> tuple[RemoteFile, ...]:
    del root, split
    return ()


_EVENTS = {
    "steps": Annotated[int, msgspec.Meta(ge=1, le=65_536)],
    "step_us": Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)],
}

_SETS = {
    "digits": _Entry(_load_digits, _nothing_absent),
    "cifar10": _Entry(partial(load_cifar, spec=CIFAR10), partial(absent_cifar, spec=CIFAR10), {"verify": bool}),
    "cifar100": _Entry(
        partial(load_cifar, spec=CIFAR100), partial(absent_cifar, spec=CIFAR100), {"coarse": bool, "verify": bool}
    ),
    "fashion-mnist": _Entry(
        partial(load_idx, spec=FASHION_MNIST), partial(absent_idx, spec=FASHION_MNIST), {"verify": bool}
    ),
    "mnist": _Entry(partial(load_idx, spec=MNIST), partial(absent_idx, spec=MNIST), {"verify": bool}),
    "nmnist": _Entry(load_nmnist, absent_nmnist, _EVENTS),
    "nmnist-small": _Entry(load_nmnist_small, None, _EVENTS),
}

NAMES = tuple(_SETS)
"""The sets that `load` knows."""


@overload
def load(
    name: Literal["digits", "cifar10", "cifar100", "fashion-mnist", "mnist"],
    split: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ImageSet: ...


@overload
def load(
    name: Literal["nmnist", "nmnist-small"],
    split: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> EventSet: ...


@overload
def load(
    name: str,
    split: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ImageSet | EventSet: ...


def load(
    name: str,
    split: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ImageSet | EventSet:
    """Load one split of a data set.

    Parameters
    ----------
    name
        "digits", "cifar10", "cifar100", "fashion-mnist", "mnist", "nmnist" or "nmnist-small".
    split
        "train" or "test"; `hold_out` cuts a validation split off "train".
    root
        Data folder. None: the folder named by ISOFIRE_DATA, else ~/.cache/isofire.
    download
        Fetch what is missing, check its md5 and unpack it. Without it nothing is fetched.
    progress
        Called during a download with the file's name, the bytes so far, and the bytes in all (None if unknown).
    **options
        `verify=False` (binary CIFAR and the MNISTs: skip the checksum), `coarse=True` (cifar100: 20 superclasses),
        `steps` and `step_us` (N-MNIST: time steps and microseconds a step).

    Returns
    -------
    ImageSet | EventSet
        An `EventSet` for N-MNIST, else an `ImageSet`.

    Raises
    ------
    SpecError
        If the name, the split or an option is unknown, or the set cannot be downloaded.
    DataError
        If the set is missing (the message says which files to fetch, their md5, and where to put them), cannot be
        fetched, or is truncated or altered.

    Examples
    --------
    >>> train = load("digits", "train")
    >>> len(train), train.classes[:3]
    (1297, ('0', '1', '2'))
    """
    check_options(name, options)
    entry = _SETS[name]
    check_split(split, ("train", "test"))
    place = data_root(root)
    if download:
        if entry.absent is None:
            raise SpecError(f"{name!r} has no published archive to download; put it in {place} by hand")
        obtain(entry.absent(place, split), place, progress)
    return entry.load(place, split, **options)


def is_there(name: str, root: Path) -> bool:
    """Whether both splits of a set are in a data folder, by the names of their files."""
    absent = _SETS[name].absent
    if absent is None:
        return small_source(root) is not None
    return not any(absent(root, split) for split in ("train", "test"))


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a data set that is not known, and options that it does not take.

    Raises
    ------
    SpecError
        Names the set or the option, and what it may be.
    """
    entry = _SETS.get(name) if isinstance(name, str) else None
    if entry is None:
        raise SpecError(f"no data set is called {name!r}; known are {', '.join(NAMES)}")
    for option, value in options.items():
        if option not in entry.options:
            takes = ", ".join(entry.options) or "none"
            raise SpecError(f"unknown option {option!r} for data set {name!r}; it takes: {takes}")
        convert(value, entry.options[option], f"option {option} of data set {name!r}")
