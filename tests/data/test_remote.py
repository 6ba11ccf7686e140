from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from isofire.data.remote import RemoteFile, data_root, download, missing, obtain, unpack
from isofire.errors import DataError, OutputError


class _Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.asked.append(self.path)
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(data) + (100 if self.path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as running:
        running.files, running.asked = {}, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def publish(server: _Server, name: str, data: bytes, **more: str) -> RemoteFile:
    server.files[f"/{name}"] = data
    url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
    return RemoteFile(name, url, hashlib.md5(data).hexdigest(), **more)


def make_tar(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return stream.getvalue()


def make_zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return stream.getvalue()


NOISE = make_tar({"c/one": random.Random(0).randbytes(60_000)})
# 0xff opens a deflate block of the reserved type, first in the stream and then amid the file's bytes
BROKEN = (NOISE[:10] + b"\xff" * 20 + NOISE[30:], NOISE[:20_000] + b"\xff" * 30_000 + NOISE[50_000:])


@pytest.mark.parametrize("name", ["sized", "unsized"])
def test_downloads_and_reports_progress(server: _Server, tmp_path: Path, name: str) -> None:
    data = bytes(range(256)) * 4000
    calls = []
    path = download(publish(server, name, data), tmp_path / "deep" / name, lambda *call: calls.append(call))
    assert path.read_bytes() == data
    assert [call[0] for call in calls] == [name] * len(calls)
    assert [call[1] for call in calls] == sorted({call[1] for call in calls})
    assert calls[-1] == (name, len(data), len(data) if name == "sized" else None)
    assert len(calls) > 1
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["altered", "cut"])
def test_wrong_bytes_never_get_the_name(server: _Server, tmp_path: Path, name: str) -> None:
    remote = publish(server, name, b"published")
    server.files[f"/{name}"] = b"publ1shed"
    with pytest.raises(DataError, match=r"md5 must be|cannot fetch"):
        download(remote, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_a_data_error_that_helps(server: _Server, tmp_path: Path) -> None:
    gone = RemoteFile("gone", f"http://127.0.0.1:{server.server_address[1]}/gone", "0" * 32)
    with pytest.raises(DataError, match=r"cannot fetch http.*404.*md5 0{32}.*put it at .*gone"):
        download(gone, tmp_path / "gone")
    with pytest.raises(DataError, match="cannot fetch"):
        download(RemoteFile("x", "http://127.0.0.1:1/x", "0" * 32), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        obtain([publish(server, "a", b"a", folder="file")], tmp_path)


def test_obtain_fetches_only_what_is_missing(server: _Server, tmp_path: Path) -> None:
    wanted = [
        publish(server, "a.gz", gzip.compress(b"a"), folder="set"),
        publish(server, "b.gz", gzip.compress(b"b"), folder="set"),
        publish(server, "c.tar.gz", make_tar({"c/one": b"1", "c/deep/two": b"2"}), unpacks_to="c"),
        publish(server, "Train.zip", make_zip({"Train/0/1.bin": b"3"}), folder="n", unpacks_to="Train"),
    ]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.gz").write_bytes(b"mine")
    obtain(wanted, tmp_path)
    assert server.asked == ["/b.gz", "/c.tar.gz", "/Train.zip"]
    assert (tmp_path / "set" / "a.gz").read_bytes() == b"mine"
    assert (tmp_path / "c" / "deep" / "two").read_bytes() == b"2"
    assert (tmp_path / "n" / "Train" / "0" / "1.bin").read_bytes() == b"3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "c.tar.gz", "n", "set"]
    obtain(wanted, tmp_path)
    assert len(server.asked) == 3


def test_obtain_unpacks_an_archive_that_is_there(server: _Server, tmp_path: Path) -> None:
    data = make_tar({"c/one": b"1"})
    remote = publish(server, "c.tar.gz", data, unpacks_to="c")
    (tmp_path / "c.tar.gz").write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"md5 must be .*put it elsewhere, then fetch"):
        obtain([remote], tmp_path)
    assert not (tmp_path / "c").exists()
    (tmp_path / "c.tar.gz").write_bytes(data)
    obtain([remote], tmp_path)
    assert (tmp_path / "c" / "one").read_bytes() == b"1"
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("up.tar.gz", make_tar({"c/one": b"1", "../evil": b"2"})),
        ("deep.tar.gz", make_tar({"c/one": b"1", "c/../../evil": b"2"})),
        ("link.tar.gz", make_tar({"c/one": b"1"}, {"c/evil": "/etc/passwd"})),
        ("linkup.tar.gz", make_tar({"c/one": b"1"}, {"c/evil": "../../evil"})),
        ("up.zip", make_zip({"c/one": b"1", "../evil": b"2"})),
        ("root.zip", make_zip({"c/one": b"1", "/evil": b"2"})),
        ("back.zip", make_zip({"c/one": b"1", "..\\evil": b"2"})),
        ("other.tar.gz", make_tar({"d/one": b"1"})),
        ("file.tar.gz", make_tar({"c": b"1"})),
        ("cut.tar.gz", make_tar({"c/one": bytes(range(256)) * 100})[:200]),
        ("start.tar.gz", BROKEN[0]),
        ("middle.tar.gz", BROKEN[1]),
        ("junk.zip", b"junk"),
        ("junk.tar.gz", b"junk"),
    ],
    # gzip's header holds the time, and workers of one run must agree on the names of tests
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsafe_or_damaged_archives_leave_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / name).write_bytes(data)
    with pytest.raises(DataError, match=r"cannot unpack|holds no folder c"):
        unpack(inner / name, "c")
    assert [path.name for path in inner.iterdir()] == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_the_data_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ISOFIRE_DATA", raising=False)
    assert data_root() == tmp_path / ".cache" / "isofire"
    assert data_root("~/sets") == tmp_path / "sets"
    monkeypatch.setenv("ISOFIRE_DATA", "~/elsewhere")
    assert data_root() == tmp_path / "elsewhere"
    assert data_root("here") == Path("here")
    monkeypatch.setenv("ISOFIRE_DATA", "")
    assert data_root() == tmp_path / ".cache" / "isofire"


def test_the_message_names_url_md5_and_place(tmp_path: Path) -> None:
    files = [
        RemoteFile("a.gz", "http://x/a.gz", "1" * 32, folder="set"),
        RemoteFile("b.zip", "http://x/b", "2" * 32, unpacks_to="b"),
    ]
    message = str(missing("toy (train)", files, tmp_path))
    for part in (
        "toy (train) is not in",
        "http://x/a.gz",
        "1" * 32,
        str(tmp_path / "set" / "a.gz"),
        "it makes b/",
        "download=True",
        "ISOFIRE_DATA",
    ):
        assert part in message
