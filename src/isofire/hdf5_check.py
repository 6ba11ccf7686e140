"""Looking into an HDF5 file before it is read: in a process that can be stopped, with little memory, for what is due.

HDF5 can refer to other files, hold itself, claim more data than there is, and send its reader in circles. None of that
belongs into a network.
"""

from __future__ import annotations

import os
import subprocess
import sys

from isofire.errors import CheckpointError
from isofire.files import check_file
from isofire.formats import told_no_hdf5

SECONDS = 60
"""Most time that looking into a file may take."""
BYTES, TIMES = 2**28, 32
"""Data of a file may take so many bytes, and so many times its own size on top: repeated numbers compress well."""
OBJECTS, DEPTH = 100_000, 32
"""Most groups and data sets, and most groups in each other."""
MEMORY = 2**32
"""Most memory of the process that looks."""


def check_hdf5(path: str | os.PathLike[str], what: str = "a NIR graph") -> None:
    """Refuse a file that is no plain HDF5 tree of data of a size that its own allows.

    Parameters
    ----------
    what
        It should be, in words of an error.

    Raises
    ------
    CheckpointError
        If it is missing, no HDF5 file, refers to other files or to itself, unpacks to far more than it holds, or takes
        more than `SECONDS` to look into.
    """
    try:
        check_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as {what}: {error.strerror or error}") from error
    if (told := told_no_hdf5(path)) is not None:
        raise CheckpointError(f"{path} is not {what}, it looks like {told}")
    numbers = map(str, (MEMORY, OBJECTS, DEPTH, BYTES + TIMES * os.stat(path).st_size))
    # nothing of the folder, or of the user's start-up files, is imported there but what is found here too
    command = [sys.executable, "-P", "-c", _LOOK, os.path.abspath(path), *numbers]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HDF5_PLUGIN_PRELOAD": "::"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, env=environment, stdin=subprocess.DEVNULL, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(
            path, what, f"it takes more than {SECONDS} seconds to look into, as no sound file does"
        ) from error
    if done.returncode == 3:
        raise _refused(path, what, done.stdout.strip())
    if done.returncode:
        told = (done.stderr.strip().splitlines() or [f"the process that looked into it ended with {done.returncode}"])[
            -1
        ]
        raise _refused(path, what, told)


def _refused(path: str | os.PathLike[str], what: str, why: str) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read as {what}: {why}")


_LOOK = """
import sys
path, memory, objects, depth, most = sys.argv[1], *map(int, sys.argv[2:])
import h5py
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
except (ImportError, ValueError, OSError):
    pass

def refuse(why):
    print(why)
    sys.exit(3)

with h5py.File(path, "r") as file:
    waiting, seen, found, size = [("", file["/"], 0)], set(), 0, 0
    while waiting:
        place, group, level = waiting.pop()
        if level > depth:
            refuse(f"its groups are nested more than {depth} deep at {place}")
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            refuse(f"its group {place!r} is part of itself or stands twice; groups must form a tree")
        seen.add(address)
        for name in group:
            found += 1
            if found > objects:
                refuse(f"it holds more than {objects:,} objects")
            where = f"{place}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
                refuse(f"{where} is a link to {kind}; a graph must hold its data itself")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((where, item, level + 1))
                continue
            if not isinstance(item, h5py.Dataset):
                continue
            if item.external or item.is_virtual:
                refuse(f"the data of {where} lie in other files; a graph must hold its data itself")
            size += max(item.dtype.itemsize, 1) * max(item.size or 0, 1)
            if size > most:
                refuse(f"its data would take more than {most:,} bytes, {where} of {item.shape} among them")
            item[()]
"""
