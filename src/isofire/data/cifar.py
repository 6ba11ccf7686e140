"""CIFAR-10 and CIFAR-100 from either published layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from isofire.data.checks import check_split
from isofire.data.checksum import check_bytes
from isofire.data.cifar_pickle import open_batch
from isofire.data.cifar_specs import CIFAR10, CifarSpec
from isofire.data.image_set import ImageSet
from isofire.data.other_formats import other_format
from isofire.data.remote import RemoteFile, missing
from isofire.errors import DataError, SpecError
from isofire.files import read_file

_PIXELS = 3 * 32 * 32
_PICKLE_EXTRA = 1 << 20


class _Batch(NamedTuple):
    """One file: pixels uint8 [N, 3072] (red, green, blue plane) and labels [N]."""

    pixels: np.ndarray
    labels: np.ndarray


def load_cifar(
    root: str | os.PathLike[str], split: str, spec: CifarSpec = CIFAR10, *, coarse: bool = False, verify: bool = True
) -> ImageSet:
    """Load CIFAR-10 or CIFAR-100 from its unpacked archive.

    The binary layout is read where it exists, else the Python one; both give the same set.

    Parameters
    ----------
    root
        Folder that holds e.g. `cifar-10-batches-bin` or `cifar-10-batches-py`.
    split
        "train" or "test".
    spec
        `CIFAR10` or `CIFAR100`.
    coarse
        CIFAR-100: labels are the 20 superclasses instead of the 100 classes.
    verify
        Check each file against its published checksum. Only the binary layout can do without: its size, counts and
        labels are checked either way, while a pickle is never opened unchecked.

    Returns
    -------
    ImageSet
        Images [N, 3, 32, 32], red, green, blue.

    Raises
    ------
    DataError
        If the set is missing (the message says what to fetch), truncated or altered.
    SpecError
        If `coarse` is asked of a set without superclasses, or `verify=False` of the Python layout.
    """
    check_split(split, ("train", "test"))
    if coarse and not spec.coarse_classes:
        raise SpecError(f"coarse=True needs a set with superclasses, {spec.name} has none")
    layout = _layout(Path(root), split, spec)
    folder = layout.target(root)
    if layout is spec.binary:
        batches = [
            read_binary(folder / name, split, spec, coarse=coarse, verify=verify) for name in spec.binary_files[split]
        ]
    elif not verify:
        raise SpecError(f"verify=False is for the binary layout only, {folder} holds pickles; leave verify out")
    else:
        batches = [read_pickled(folder / name, split, spec, coarse=coarse) for name in spec.pickled_files[split]]
    pixels = torch.empty(len(batches) * spec.per_file[split], _PIXELS, dtype=torch.uint8)
    labels = np.concatenate([batch.labels for batch in batches])
    np.concatenate([batch.pixels for batch in batches], out=pixels.numpy())
    return ImageSet(
        name=f"{spec.name}-coarse" if coarse else spec.name,
        split=split,
        images=pixels.view(-1, 3, 32, 32),
        labels=torch.from_numpy(labels.astype(np.int64)),
        classes=spec.coarse_classes if coarse else spec.classes,
        mean=spec.mean,
        std=spec.std,
    )


def absent_cifar(root: Path, split: str, spec: CifarSpec) -> tuple[RemoteFile, ...]:
    """List what has to be fetched: the binary archive, or nothing if either layout is there."""
    del split  # one archive holds both
    found = any(os.path.isdir(layout.target(root)) for layout in (spec.binary, spec.pickled))
    return () if found else (spec.binary,)


def read_binary(path: Path, split: str, spec: CifarSpec, *, coarse: bool, verify: bool) -> _Batch:
    """Read one .bin file: records of one label byte (CIFAR-100: coarse, then fine) and 3,072 pixel bytes.

    Raises
    ------
    DataError
        If the file is missing or altered, or its size or a label is wrong.
    """
    label_bytes = 2 if spec.coarse_classes else 1
    record = label_bytes + _PIXELS
    count = spec.per_file[split]
    data = _read(path, spec.binary, most=count * record)
    if len(data) != count * record:
        if (told := other_format(data[:512], f"{spec.binary.name}'s .bin files")) is not None:
            raise DataError(f"{path} is another format, {told}")
        raise DataError(
            f"{path.name} must hold {count} records of {record} bytes = {count * record} bytes, got {len(data)} "
            f"({path}); the file is truncated or altered, unpack {spec.binary.name} again"
        )
    if verify:
        check_bytes(data, _checksum(path, spec), str(path), f"unpack {spec.binary.name} again")
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    labels = records[:, 0 if coarse else label_bytes - 1]
    _check_range(labels, spec, coarse, path)
    return _Batch(records[:, label_bytes:], labels)


def read_pickled(path: Path, split: str, spec: CifarSpec, *, coarse: bool) -> _Batch:
    """Read one Python batch, after checking its checksum; see `cifar_pickle.open_batch`.

    Raises
    ------
    DataError
        If the file is missing or altered, or holds anything but a CIFAR batch.
    """
    data = _read(path, spec.pickled, most=spec.per_file[split] * 2 * _PIXELS + _PICKLE_EXTRA)
    check_bytes(data, _checksum(path, spec), str(path), f"it is not opened; unpack {spec.pickled.name} again")
    batch = open_batch(data, str(path))
    key = b"labels" if not spec.coarse_classes else b"coarse_labels" if coarse else b"fine_labels"
    pixels, labels = batch.get(b"data"), batch.get(key)
    count = spec.per_file[split]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (count, _PIXELS):
        raise DataError(f"'data' must be a uint8 array of shape ({count}, {_PIXELS}) ({path})")
    if not isinstance(labels, list) or len(labels) != count or not all(type(label) is int for label in labels):
        raise DataError(f"{key.decode()!r} must be a list of {count} whole numbers ({path})")
    array = np.array(labels)
    _check_range(array, spec, coarse, path)
    return _Batch(pixels, array)


def _layout(root: Path, split: str, spec: CifarSpec) -> RemoteFile:
    if wanted := absent_cifar(root, split, spec):
        raise missing(f"{spec.name} ({split})", wanted, root)
    return spec.binary if os.path.isdir(spec.binary.target(root)) else spec.pickled


def _read(path: Path, archive: RemoteFile, most: int) -> bytes:
    try:
        return read_file(path, most)
    except OSError as error:
        again = f"unpack {archive.name} again (md5 {archive.md5}, {archive.url})"
        raise DataError(f"cannot read {path}: {error.strerror or error}; {again}") from error


def _checksum(path: Path, spec: CifarSpec) -> str:
    expected = spec.checksums.get(path.name)
    if expected is None:
        raise DataError(f"no checksum is known for {path.name} of {spec.name}, so it is not read ({path})")
    return expected


def _check_range(labels: np.ndarray, spec: CifarSpec, coarse: bool, path: Path) -> None:
    bound = len(spec.coarse_classes if coarse else spec.classes)
    low, high = labels.min(initial=0), labels.max(initial=0)
    if low < 0 or high >= bound:
        raise DataError(f"labels must lie in 0..{bound - 1}, got {low if low < 0 else high} ({path}); it is altered")
