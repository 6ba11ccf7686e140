"""Files of event cameras that are not N-MNIST's, told by how they begin."""

from __future__ import annotations

from pathlib import Path

from isofire.errors import DataError

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"#!AER-DAT4", "AEDAT 4"),
    (b"#!AER-DAT3", "AEDAT 3"),
    (b"#!AER-DAT2", "AEDAT 2"),
    (b"#!AER-DAT", "AEDAT"),
    (b"%", "a .dat or .raw file of ATIS or Prophesee"),
    (b"MATLAB ", "a MATLAB .mat file"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip or .npz archive"),
    (b"Event Stream", "an .es event stream"),
    (b"#ROSBAG", "a ROS bag"),
    (b"RIFF", "a RIFF file"),
)
_SUFFIXES = (".aedat", ".aedat4", ".dat", ".raw", ".mat", ".h5", ".hdf5", ".npy", ".npz", ".es", ".bag")
_CURE = "this reads N-MNIST's .bin; convert it, or give your own events by --data package.module:loader"


def check_format(data: bytes, place: str) -> None:
    """Raise `DataError` if these bytes are those of another format than N-MNIST's, which has no header.

    The texts that other formats begin with would be events outside of N-MNIST's sensor.
    """
    for start, name in _STARTS:
        if data.startswith(start) and (len(start) > 1 or data[1:2] in (b" ", b"\t")):
            raise DataError(f"{place} is another format, {name}; {_CURE}")
    # version 4 of .mat has no magic: five words that give type, sizes and the length of a name
    if Path(place).suffix.lower() in _SUFFIXES:
        raise DataError(f"{place} is another format by its name; {_CURE}")


def other_recordings(folder: Path) -> str:
    """What to say of a folder without .bin files that holds recordings of another kind; empty if there are none."""
    for path in sorted(folder.glob("*/*"))[:1000]:
        if path.suffix.lower() in _SUFFIXES:
            return f"; {path.name} there is another format: {_CURE}"
    return ""
