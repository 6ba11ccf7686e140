"""N-MNIST: MNIST digits seen by an event camera (Orchard, Jayawant, Cohen and Thakor 2015)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from isofire.data.checks import check_split
from isofire.data.event_set import Events, EventSet
from isofire.data.other_formats import EVENTS, check_format, other_format, other_recordings
from isofire.data.remote import RemoteFile, missing
from isofire.data.tar import read_tar
from isofire.errors import DataError
from isofire.files import read_file

SIDE = 34
"""Sensor height and width in pixels."""

CLASSES = tuple("0123456789")

_SITE = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
NMNIST_FILES = {
    "train": RemoteFile(
        "Train.zip",
        _SITE + "39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
        "20959b8e626244a1b502305a9e6e2031",
        folder="n-mnist",
        unpacks_to="Train",
    ),
    "test": RemoteFile(
        "Test.zip",
        _SITE + "05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
        "69ca8762b2fe404d9b9bad1103e97832",
        folder="n-mnist",
        unpacks_to="Test",
    ),
}
"""The full set as published, one archive a split."""

NMNIST_COUNTS = {"train": 60_000, "test": 10_000}
SMALL_COUNTS = {"train": 1_000, "test": 100}
SMALL_LISTS = {"train": "train1K.txt", "test": "test100.txt"}

MOST_EVENT_BYTES = 16 << 20
"""Of one recording; N-MNIST's have some fifty thousand at most, N-Caltech101's, of the same form, two million."""

MOST_SMALL = 256 << 20
"""Bytes of the archive of the extract, which has 23 million."""

Recordings = tuple[Sequence[Events], Sequence[int]]


def read_events(path: str | os.PathLike[str], height: int = SIDE, width: int = SIDE) -> Events:
    """Read one recording, a .bin file of N-MNIST or a .bs2 file with the same bytes.

    An event takes five bytes: x, y, then a big-endian 24-bit word whose top bit is the polarity (1: ON) and whose low
    23 bits are the time in microseconds.

    Raises
    ------
    DataError
        If the file cannot be read, is of another format or empty, its size is not a multiple of five, an event lies
        outside the sensor, or time runs backwards. ATIS overflow markers (y = 240), which N-MNIST does not need, count
        as outside.
    """
    return parse_events(_read(Path(path), MOST_EVENT_BYTES), str(path), height, width)


def parse_events(data: bytes, place: str, height: int = SIDE, width: int = SIDE) -> Events:
    """Decode the bytes of one recording; see `read_events`.

    Examples
    --------
    >>> [values.tolist() for values in parse_events(bytes([3, 5, 0x80, 0x01, 0x00]), "one event")]
    [[3], [5], [1], [256]]
    """
    check_format(data, place)
    if not data:
        raise DataError(f"a recording must hold events, {place} is empty; copy it again, or leave it out of the set")
    if len(data) % 5:
        raise _unread(data, place, f"a recording's size must be a multiple of 5 bytes, got {len(data)} ({place})")
    raw = np.frombuffer(data, np.uint8).reshape(-1, 5)
    x, y = raw[:, 0].copy(), raw[:, 1].copy()
    word = raw[:, 2:].astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    t_us = word & 0x7FFFFF
    for axis, values, bound in (("x", x, width), ("y", y, height)):
        if (values >= bound).any():
            at = int((values >= bound).argmax())
            raise _unread(data, place, f"{axis} must lie in 0..{bound - 1}, got {values[at]} (event {at}, {place})")
    if (np.diff(t_us) < 0).any():
        at = int((np.diff(t_us) < 0).argmax()) + 1
        step = f"{t_us[at]} us after {t_us[at - 1]} us"
        raise _unread(data, place, f"time must not run backwards, got {step} (event {at}, {place})")
    polarity = (word >> 23).astype(np.uint8)
    return Events(*(torch.from_numpy(values) for values in (x, y, polarity, t_us)))


def _unread(data: bytes, place: str, rule: str) -> DataError:
    told = other_format(data[:512], EVENTS, guess=True)
    if told is not None:
        return DataError(f"{place} is another format, {told} ({rule})")
    return DataError(f"{rule}; it is cut off or altered, of another format than {EVENTS}, or of a larger sensor")


def read_class_folders(folder: Path) -> Recordings:
    """Read `folder/<class>/<sample>.bin`, N-MNIST's own layout, in order of sample number.

    Raises
    ------
    DataError
        If a name is not a number, a class is unknown, or a recording is bad.
    """
    paths = sorted(folder.glob("*/*.bin"), key=lambda path: (_number(path.stem, path), _number(path.parent.name, path)))
    return [read_events(path) for path in paths], [_number(path.parent.name, path) for path in paths]


def read_listed(source: Path, list_name: str, count: int | None = None) -> Recordings:
    """Read the recordings that a list names, from a folder or a tar archive.

    Parameters
    ----------
    source
        A folder, or a tar archive of one, that holds `<sample>.bs2` files and the list.
    list_name
        A text file of two columns, sample number and class, whose comment lines start with `#`.
    count
        Recordings that it must name; None: any number.

    Raises
    ------
    DataError
        If the list or a recording is missing or bad.
    """
    read = _folder_reader(source) if os.path.isdir(source) else _tar_reader(source)
    place = f"{source}, {list_name}"
    rows = [_row(line, place) for line in read(list_name).decode("ascii", "replace").splitlines() if _holds_data(line)]
    if count is not None:
        _check_count(len(rows), count, place)
    recordings = [parse_events(read(f"{sample}.bs2"), f"{source}, {sample}.bs2") for sample, _ in rows]
    return recordings, [label for _, label in rows]


def make_event_set(name: str, split: str, recordings: Recordings, steps: int, step_us: int) -> EventSet:
    """Join recordings and labels into an `EventSet` of N-MNIST's sensor and classes."""
    events, labels = recordings
    if not events:
        raise DataError(f"{name} ({split}) holds no recordings; unpack the archive again")
    lengths = torch.tensor([0, *(len(recording.x) for recording in events)])
    joined = Events(*(torch.cat(parts) for parts in zip(*events, strict=True)))
    return EventSet(
        name=name,
        split=split,
        events=joined,
        offsets=lengths.cumsum(0),
        labels=torch.tensor(labels, dtype=torch.int64),
        classes=CLASSES,
        height=SIDE,
        width=SIDE,
        steps=steps,
        step_us=step_us,
    )


def absent_nmnist(root: Path, split: str) -> tuple[RemoteFile, ...]:
    """List what has to be fetched for a split: its archive, or nothing."""
    remote = NMNIST_FILES[split]
    return () if os.path.isdir(remote.target(root)) else (remote,)


def load_nmnist(
    root: str | os.PathLike[str],
    split: str,
    *,
    steps: int = 300,
    step_us: int = 1000,
    counts: Mapping[str, int] = NMNIST_COUNTS,
) -> EventSet:
    """Load the full set from `root/n-mnist/Train` and `root/n-mnist/Test`.

    Parameters
    ----------
    root
        Data root.
    split
        "train" or "test".
    steps, step_us
        Time steps and microseconds a step; recordings last about 300 ms.
    counts
        Recordings a split must hold.

    Raises
    ------
    DataError
        If the set is missing (the message says what to fetch), incomplete or altered.
    """
    check_split(split, ("train", "test"))
    if wanted := absent_nmnist(Path(root), split):
        raise missing(f"nmnist ({split})", wanted, Path(root))
    folder = NMNIST_FILES[split].target(root)
    recordings = read_class_folders(folder)
    if not recordings[1] and (other := other_recordings(folder)):
        raise DataError(f"nmnist ({split}) has no .bin files in {folder}{other}")
    _check_count(len(recordings[1]), counts[split], str(folder))
    return make_event_set("nmnist", split, recordings, steps, step_us)


def small_source(root: str | os.PathLike[str]) -> Path | None:
    """The folder or archive of the extract; None if neither is there."""
    places = (Path(root) / "n-mnist" / name for name in ("nmnist-small", "nmnist-small.tar"))
    return next((place for place in places if os.path.exists(place)), None)


def load_nmnist_small(root: str | os.PathLike[str], split: str, *, steps: int = 300, step_us: int = 1000) -> EventSet:
    """Load the extract of 1,000 train and 100 test recordings kept in SLAYER's test files.

    Read from `root/n-mnist/nmnist-small.tar`, or from the same files unpacked in `root/n-mnist/nmnist-small`.

    Raises
    ------
    DataError
        If neither is there, or a recording or list is missing or bad.
    """
    check_split(split, ("train", "test"))
    source = small_source(root)
    if source is None:
        raise DataError(
            f"nmnist-small ({split}) is not at {Path(root) / 'n-mnist' / 'nmnist-small.tar'}; pack "
            f"{SMALL_LISTS['train']}, {SMALL_LISTS['test']} and their .bs2 files from "
            "bamsumit/slayerPytorch on GitHub into that tar, or load 'nmnist', the full set"
        )
    recordings = read_listed(source, SMALL_LISTS[split], SMALL_COUNTS[split])
    return make_event_set("nmnist-small", split, recordings, steps, step_us)


def _check_count(got: int, wanted: int, place: str) -> None:
    if got != wanted:
        raise DataError(f"the split must hold {wanted} recordings, got {got} ({place}); unpack the archive again")


def _number(text: str, place: Path) -> int:
    if not _is_number(text):
        raise DataError(f"files are named <class>/<sample>.bin, both numbers, got {text!r} ({place})")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _holds_data(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _row(line: str, place: str) -> tuple[int, int]:
    columns = line.split()
    if len(columns) != 2 or not all(map(_is_number, columns)):
        raise DataError(f"each line names a sample and its class, got {line.strip()[:60]!r} ({place})")
    return int(columns[0]), int(columns[1])


def _folder_reader(folder: Path) -> Callable[[str], bytes]:
    return lambda name: _read(folder / name, MOST_EVENT_BYTES)


def _read(path: Path, most: int) -> bytes:
    try:
        return read_file(path, most)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; unpack the archive again") from error


def _tar_reader(archive: Path) -> Callable[[str], bytes]:
    contents = read_tar(archive, (".bs2", ".txt"), MOST_SMALL)

    def read(name: str) -> bytes:
        if name not in contents:
            raise DataError(f"{name} is not in {archive}; the archive is incomplete")
        return contents[name]

    return read
