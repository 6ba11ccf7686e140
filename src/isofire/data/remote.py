"""Files that others publish: where they belong, how to say that they are missing, how to fetch them."""

from __future__ import annotations

import gzip
import http.client
import os
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from isofire.data.checksum import check_file
from isofire.errors import DataError, OutputError
from isofire.files import writable_folder, write_atomic

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes fetched so far, and the bytes in all where the server tells."""

_BLOCK = 1 << 18
_TIMEOUT_SECONDS = 60
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError)


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Parameters
    ----------
    name
        File name on disk.
    url
        Where it is published.
    md5
        Published md5, 32 hexadecimal digits.
    folder
        Where it belongs, relative to the data root.
    unpacks_to
        For a tar or zip archive: the one folder it unpacks to, beside it. None: used as it is.
    """

    name: str
    url: str
    md5: str
    folder: str = ""
    unpacks_to: str | None = None

    def target(self, root: str | os.PathLike[str]) -> Path:
        """Return the path that has to exist for the file to count as present."""
        return Path(root) / self.folder / (self.unpacks_to or self.name)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return `root`, or the folder named by ISOFIRE_DATA, or ~/.cache/isofire."""
    if root is not None:
        return Path(root).expanduser()
    named = os.environ.get("ISOFIRE_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "isofire"


def missing(what: str, wanted: Sequence[RemoteFile], root: Path) -> DataError:
    """Make the error that says which files to fetch, from where, and where to put them."""
    if os.path.isfile(root):
        return DataError(f"the data root must be a folder, {root} is a file; name the folder that holds it")
    lines = [f"{what} is not in {root}; fetch"]
    for remote in wanted:
        then = f", unpack it there (it makes {remote.unpacks_to}/)" if remote.unpacks_to else ""
        if os.path.isfile(root / remote.folder / remote.name):
            then += "; a file of that name is there already"
        lines.append(f"  {remote.url}\n    md5 {remote.md5}, into {root / remote.folder / remote.name}{then}")
    lines.append("or call load(..., download=True); root=... or ISOFIRE_DATA names another data folder")
    return DataError("\n".join(lines))


def obtain(wanted: Sequence[RemoteFile], root: Path, progress: Progress | None = None) -> None:
    """Download, check and unpack each file that is not yet in its place.

    A file gets its final name only once its checksum is right, an unpacked folder only once it is complete. Archives
    are kept.

    Raises
    ------
    DataError
        If a download fails, a checksum is wrong, or an archive holds an unsafe path.
    OutputError
        If the folder cannot be written.
    """
    for remote in wanted:
        if os.path.exists(remote.target(root)):
            continue
        folder = writable_folder(root / remote.folder)
        archive = folder / remote.name
        if os.path.exists(archive):
            check_file(archive, remote.md5, f"put it elsewhere, then fetch {remote.url}")
        else:
            download(remote, archive, progress)
        if remote.unpacks_to:
            unpack(archive, remote.unpacks_to)


def download(remote: RemoteFile, path: Path, progress: Progress | None = None) -> Path:
    """Fetch one file to `path` through a temporary .part file, and check its md5 before it gets its name.

    Raises
    ------
    DataError
        If the server cannot be reached, breaks off, or sends other bytes than those published.
    OutputError
        If `path` cannot be written.
    """
    try:
        response = urllib.request.urlopen(remote.url, timeout=_TIMEOUT_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(remote, path, error) from error

    def write(part: Path) -> None:
        with part.open("wb") as stream:
            _copy(remote, path, response, stream, progress)
        check_file(part, remote.md5, f"the download of {remote.url} was cut short or altered; try again")

    with response:
        return write_atomic(path, write)


def unpack(archive: Path, makes: str) -> Path:
    """Unpack a .zip or tar archive beside itself, all of it or nothing.

    Parameters
    ----------
    archive
        The archive; entries that lead outside its own folder, links among them, are refused.
    makes
        The top folder in the archive that is kept.

    Raises
    ------
    DataError
        If the archive is damaged, holds an unsafe entry, or lacks the folder.
    OutputError
        If the folder is full or cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=f".{archive.name}.", suffix=".part", dir=archive.parent) as part:
        try:
            if archive.suffix == ".zip":
                _unzip(archive, part)
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(part, filter="data")
        except _DAMAGED as error:
            raise DataError(f"cannot unpack {archive}: {error}; put it elsewhere and fetch it again") from error
        except OSError as error:
            raise OutputError(f"cannot unpack {archive}: {error.strerror}; make room there, then try again") from error
        made = Path(part) / makes
        if not made.is_dir():
            raise DataError(f"{archive} holds no folder {makes}; put it elsewhere and fetch it again")
        return made.rename(archive.parent / makes)


def _unzip(archive: Path, folder: str) -> None:
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"entry {name!r} leads outside the archive's folder")
        packed.extractall(folder)


def _copy(
    remote: RemoteFile, path: Path, response: http.client.HTTPResponse, stream: BinaryIO, progress: Progress | None
) -> None:
    length = response.headers.get("Content-Length")
    total = int(length) if length else None
    done = 0
    while block := _read(remote, path, response):
        stream.write(block)
        done += len(block)
        if progress is not None:
            progress(remote.name, done, total)


def _read(remote: RemoteFile, path: Path, response: http.client.HTTPResponse) -> bytes:
    # only the network's own failures become DataError here; a full disk keeps its OutputError from write_atomic
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(remote, path, error) from error


def _unreachable(remote: RemoteFile, path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot fetch {remote.url}: {error}; fetch it by other means (md5 {remote.md5}) and put it at {path}"
    )
