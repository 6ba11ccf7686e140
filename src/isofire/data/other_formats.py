"""Data files of another format than the one that is read: what they are, by how they begin, and the way in."""

from __future__ import annotations

from pathlib import Path

from isofire.errors import DataError
from isofire.formats import packed_by

EVENTS = "N-MNIST's .bin"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"#!AER-DAT4", "AEDAT 4"),
    (b"#!AER-DAT3", "AEDAT 3"),
    (b"#!AER-DAT2", "AEDAT 2"),
    (b"#!AER-DAT", "AEDAT"),
    (b"% ", "a .dat or .raw file of ATIS or Prophesee"),
    (b"%\t", "a .dat or .raw file of ATIS or Prophesee"),
    (b"MATLAB ", "a MATLAB .mat file"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip or .npz archive"),
    (b"Event Stream", "an .es event stream"),
    (b"#ROSBAG", "a ROS bag"),
    (b"RIFF", "a RIFF file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PAR1", "a Parquet table"),
)
_SUFFIXES = (".aedat", ".aedat4", ".dat", ".raw", ".mat", ".h5", ".hdf5", ".npy", ".npz", ".es", ".bag")
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".7z", ".zip")
_IDX_TYPES = {8: "unsigned bytes", 9: "signed bytes", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}
_UNPACK = "unpack it first"


def other_format(start: bytes, wanted: str, *, guess: bool = False) -> str | None:
    """What a file is, and the way in: two parts of a sentence. None if it does not tell.

    Parameters
    ----------
    start
        Its first bytes, 512 or so.
    wanted
        What is read here.
    guess
        Also what a file of the wanted format could begin with by chance: for files that turned out to be none.

    Examples
    --------
    >>> other_format(b"%  no text", "idx files"), other_format(b"x,y,t", "idx files") is None
    (..., True)
    """
    if packer := packed_by(start):
        return f"compressed by {packer}; {_UNPACK}"
    found = next((name for begin, name in _STARTS if start.startswith(begin)), None)
    if found is None and guess:
        found = _guessed(start)
    return None if found is None else f"{found}; {_way_in(wanted)}"


def check_format(data: bytes, place: str) -> None:
    """Raise `DataError` if these bytes are those of another format than N-MNIST's, which has no header.

    The texts that other formats begin with would be events outside of N-MNIST's sensor.
    """
    if (told := other_format(data[:512], EVENTS)) is not None:
        raise DataError(f"{place} is another format, {told}")
    # version 4 of .mat has no magic: five words that give type, sizes and the length of a name
    if Path(place).suffix.lower() in _SUFFIXES:
        raise DataError(f"{place} is another format by its name; {_way_in(EVENTS)}")


def other_recordings(folder: Path) -> str:
    """What to say of a folder without .bin files that holds recordings of another kind; empty if there are none."""
    for path in sorted(folder.glob("*/*"))[:1000]:
        if path.suffix.lower() in _PACKED_SUFFIXES:
            return f"; {path.name} there is compressed: {_UNPACK}"
        if path.suffix.lower() in _SUFFIXES:
            return f"; {path.name} there is another format: {_way_in(EVENTS)}"
    return ""


def _guessed(start: bytes) -> str | None:
    if start[:2] == b"\0\0" and start[2:3] and start[2] in _IDX_TYPES and 1 <= start[3] <= 8:
        return f"an idx file of {_IDX_TYPES[start[2]]} with {start[3]} ax{'is' if start[3] == 1 else 'es'}"
    # tab, line feed and carriage return, and what is printed
    if start and all(byte in (9, 10, 13) or 32 <= byte < 127 for byte in start):
        return "a text file"
    return None


def _way_in(wanted: str) -> str:
    return f"this reads {wanted}; convert it, or give data of your own by --data package.module:loader"
