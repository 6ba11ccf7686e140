"""A NIR file that would read others, fill the memory or never end is refused, and quickly."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("nir", reason="nir is not installed")

import h5py
import numpy as np

import isofire.nir
from isofire import hdf5_check
from isofire.errors import CheckpointError, ModelError
from isofire.neurons import IF, PerStep


@pytest.fixture
def file(tmp_path: Path) -> Path:
    net = nn.Sequential(PerStep(nn.Linear(3, 4)), IF())
    return isofire.nir.write(tmp_path / "net.nir", net, torch.zeros(2, 2, 3))


def external_link(group: Any) -> None:
    del group["weight"]
    group["weight"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(group: Any) -> None:
    group["again"] = h5py.SoftLink("/node")


def external_data(group: Any) -> None:
    del group["bias"]
    group.create_dataset("bias", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])


def virtual_data(group: Any) -> None:
    del group["bias"]
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "bias", (4,))
    group.create_virtual_dataset("bias", layout)


def circle(group: Any) -> None:
    group["inside"] = group.parent


def bomb(group: Any) -> None:
    del group["weight"]
    group.create_dataset("weight", shape=(2**16, 2**15), dtype="f4", chunks=(2**10, 2**10), compression="gzip")


def nested(group: Any) -> None:
    for _ in range(40):
        group = group.create_group("g")


def too_many(group: Any) -> None:
    inside = group.create_group("many")
    for number in range(200):
        inside.create_group(str(number))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (external_link, "weight is a link to another file"),
        (soft_link, "again is a link to another place"),
        (external_data, "bias lie in other files"),
        (virtual_data, "bias lie in other files"),
        (circle, "is part of itself or stands twice"),
        (bomb, r"its data would take more than [\d,]+ bytes, .*weight of \(65536, 32768\)"),
        (nested, "nested more than 32 deep"),
        (too_many, "more than 100 objects"),
    ],
)
def test_what_no_graph_needs_is_refused(file: Path, spoil: Callable[[Any], None], told: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(hdf5_check, "OBJECTS", 100)
    with h5py.File(file, "r+") as opened:
        spoil(opened["node/nodes/0_0"])
    size, started = file.stat().st_size, time.perf_counter()
    with pytest.raises(CheckpointError, match=told):
        isofire.nir.read(file)
    assert time.perf_counter() - started < 30
    assert size < 10**6


def test_a_reader_that_never_ends_is_stopped(file: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(hdf5_check, "_LOOK", "while True: pass")
    monkeypatch.setattr(hdf5_check, "SECONDS", 1)
    with pytest.raises(CheckpointError, match="takes more than 1 seconds to look into"):
        isofire.nir.read(file)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, b"PK\x03\x04", b"{}"])
def test_what_is_no_hdf5_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.nir"
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=r"other.nir (cannot be read as a NIR graph: |is not a NIR graph, it looks like a damaged zip)",
    ):
        isofire.nir.read(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        isofire.nir.read(tmp_path / "none.nir")
    with pytest.raises(CheckpointError, match="folder"):
        isofire.nir.read(tmp_path)


def test_a_sound_file_is_read_wherever_one_stands(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "h5py.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert isofire.nir.read("net.nir")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys, signal, torch, isofire.nir\n"
        "from isofire.neurons import IF, PerStep\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "net = torch.nn.Sequential(PerStep(torch.nn.Linear(300, 400)), IF())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "from isofire.errors import OutputError\n"
        "try:\n"
        "    isofire.nir.write(sys.argv[1], net, torch.zeros(2, 2, 300))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "net.nir"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_nan_is_not_written(tmp_path: Path) -> None:
    net = nn.Sequential(PerStep(nn.Linear(3, 4)), IF())
    net[0][0].weight.data[0, 0] = np.nan
    with pytest.raises(ModelError, match="weights must be finite"):
        isofire.nir.write(tmp_path / "net.nir", net, torch.zeros(2, 2, 3))


def test_another_format_by_that_name_is_told(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), path := tmp_path / "net.nir")
    with pytest.raises(
        CheckpointError, match=r"is not a NIR graph, it looks like a pickle of PyTorch's. isofire opens no"
    ):
        isofire.nir.read(path)
