"""Files: written whole or not at all, and opened only if they are files of a size that can be right."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from isofire.errors import OutputError
from isofire.files import check_file, is_same_file, open_file, read_file, writable_folder, write_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX has these kinds of files")


def test_reads_what_is_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a" / "file", "ä\n")
    assert read_file(path, 3) == read_file(str(path), 100) == "ä\n".encode()
    (tmp_path / "link").symlink_to(path)
    assert read_file(tmp_path / "link", 3) == "ä\n".encode()
    with open_file(path) as stream:
        assert stream.read() == "ä\n".encode()
    check_file(path, 3)


def test_refuses_what_is_larger_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, where 1,048,576 are the most") as caught:
        read_file(path, 1 << 20)
    assert caught.value.errno == errno.EFBIG


@posix
def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        server.bind("socket")
        os.chdir(here)
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, kind in (("pipe", "pipe"), ("link", "pipe"), ("socket", "socket"), (".", "folder")):
        with pytest.raises(OSError, match=f"it is a {kind}, not a file"):
            open_file(tmp_path / name)
    with pytest.raises(OSError, match="it is a device"):
        open_file("/dev/zero")


@posix
def test_names_that_lead_nowhere_are_told_as_the_systems_own_errors(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, number in (
        ("loop", errno.ELOOP),
        ("loop/file", errno.ELOOP),
        ("a" * 300, errno.ENAMETOOLONG),
        ("a\0b", errno.EINVAL),
        ("missing", errno.ENOENT),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            open_file(tmp_path / name)
        assert caught.value.errno == number, name
        assert caught.value.strerror
    for name in ("loop/file", "a" * 300, "a\0b"):
        with pytest.raises(OutputError, match="cannot write"):
            write_text(tmp_path / name, "text")
        with pytest.raises(OutputError, match="cannot write"):
            writable_folder(tmp_path / name / "deeper")


def test_same_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert is_same_file(tmp_path / "new", tmp_path / "folder" / ".." / "new")
    assert not is_same_file(tmp_path / "new", tmp_path / "other")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert not is_same_file(tmp_path / "loop", tmp_path / "new")
    assert not is_same_file("a\0b", tmp_path / "new")
