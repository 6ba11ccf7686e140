"""Finished parts: whole or not there, checked to the last byte, never deleted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from isofire.errors import OutputError
from isofire.files import write_text
from isofire.sweep import manifest
from isofire.sweep import store as module
from isofire.sweep.manifest import FILES, Kind
from isofire.sweep.store import Store, Superseded


def writer(kind: Kind, *, text: str = "some text", without: str = ""):
    """Writes all files that a part has."""

    def write(part: Path) -> None:
        for name in FILES[kind] - {without}:
            write_text(part / name, text)

    return write


CELL = writer("cells")


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    store.publish("cells", "a", CELL)
    return store


def test_a_part_appears_whole(store) -> None:
    assert store.exists("cells", "a")
    assert store.check("cells", "a")
    assert {path.name for path in store.path("cells", "a").iterdir()} == FILES["cells"] | {"manifest.json"}
    assert not list((store.root / "parts").iterdir())
    assert not store.check("cells", "b")
    assert not store.check("baselines", "a")


def test_a_part_that_cannot_be_finished_leaves_nothing(store) -> None:
    def fail(part) -> None:
        write_text(part / "row.json", "x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"No space left.*finished cells are kept"):
        store.publish("cells", "b", fail)
    assert not list((store.root / "parts").iterdir())
    assert not store.path("cells", "b").exists()


def _flip(folder) -> None:
    data = bytearray((folder / "row.json").read_bytes())
    data[3] ^= 1
    (folder / "row.json").write_bytes(data)


def _forget(folder, name: str) -> None:
    """As if the manifest had been written while a file was missing."""
    (folder / name).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "seen_by_size"),
    [
        (_flip, False),
        (lambda folder: (folder / "history.json").unlink(), True),
        (lambda folder: (folder / "history.json").write_text("y"), True),
        (lambda folder: (folder / "manifest.json").unlink(), True),
        (lambda folder: (folder / "manifest.json").write_text('{"version": 1, "ke'), True),
        (lambda folder: (folder / "manifest.json").write_text("[]"), True),
        (lambda folder: _forget(folder, "row.json"), True),
        (lambda folder: [path.unlink() for path in folder.iterdir()], True),
    ],
)
def test_a_damaged_part_is_set_aside_and_can_be_made_again(store, damage, seen_by_size: bool) -> None:
    folder = store.path("cells", "a")
    damage(folder)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert store.exists("cells", "a") is not seen_by_size
    assert not store.check("cells", "a")
    (aside,) = (store.root / "damaged").iterdir()
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == kept
    assert not folder.exists()
    assert json.loads((store.root / "journal.jsonl").read_text().splitlines()[-1])["event"] == "damaged"
    store.publish("cells", "a", CELL)
    assert store.check("cells", "a")


def test_a_part_under_the_name_of_another_is_damaged(store) -> None:
    shutil.copytree(store.path("cells", "a"), store.path("cells", "b"))
    assert not store.check("cells", "b")
    assert store.check("cells", "a")


def test_publishing_over_a_whole_part_keeps_it_and_over_a_damaged_one_replaces_it(store) -> None:
    row, later = store.path("cells", "a") / "row.json", writer("cells", text="later")
    store.publish("cells", "a", later)
    assert row.read_text() == "some text"
    row.unlink()
    store.publish("cells", "a", later)
    assert row.read_text() == "later"
    assert len(list((store.root / "damaged").iterdir())) == 1


@pytest.mark.parametrize("kind", ["cells", "baselines"])
@pytest.mark.parametrize("left_over", [True, False])
def test_who_lost_the_claim_publishes_nothing(tmp_path, kind: Kind, left_over: bool) -> None:
    """Another owner clears what the first is writing, whose next file then makes a folder of its own."""
    store, last = Store(tmp_path), sorted(FILES[kind])[-1]

    def write(part: Path) -> None:
        writer(kind, without=last)(part)
        store.clear("b")
        if left_over:
            write_text(part / last, "some text")

    for is_ours in (lambda: True, lambda: False) if left_over else (lambda: False,):
        with pytest.raises(Superseded):
            store.publish(kind, "b", write, is_ours)
        assert not store.path(kind, "b").exists()
        assert not list((tmp_path / "parts").iterdir())
    with pytest.raises(Superseded):
        store.publish(kind, "b", writer(kind), lambda: False)
    assert not store.path(kind, "b").exists()
    store.publish(kind, "b", writer(kind))
    assert store.check(kind, "b")


@pytest.mark.parametrize("kind", ["cells", "baselines"])
def test_every_file_of_a_part_is_needed(tmp_path, kind: Kind) -> None:
    store = Store(tmp_path)
    for name in FILES[kind]:
        with pytest.raises(Superseded):
            store.publish(kind, name, writer(kind, without=name))
        assert not store.exists(kind, name)


def test_what_a_killed_owner_left_is_removed(store) -> None:
    for name in ("a.1", "a.2", "b.1"):
        (store.root / "parts" / name).mkdir()
    store.clear("a")
    assert [path.name for path in (store.root / "parts").iterdir()] == ["b.1"]


def test_failures_count_their_attempts(store) -> None:
    assert store.failure("a") is None
    told = {"title": "a cell", "type": "ModelError"}
    store.fail("a", {**told, "reason": "first"})
    store.fail("a", {**told, "reason": "second"})
    assert (store.failure("a")["reason"], store.failure("a")["attempts"]) == ("second", 2)
    whole = (store.root / "failed" / "a.json").read_text()
    for text in (
        "{",
        "[]",
        "3",
        '{"key": "a"}',
        whole.replace('"second"', "[1]"),
        whole.replace(": 2", ": -2"),
        "[" * 9000,
    ):
        (store.root / "failed" / "a.json").write_text(text)
        assert store.failure("a")["type"] == "unreadable", text[:99]
        assert "is damaged" in store.failure("a")["reason"]
        store.fail("b", {**told, "reason": "new"})
        store.fail("a", {**told, "reason": "new"})
        assert (store.failure("a")["reason"], store.failure("a")["attempts"]) == ("new", 1)
    store.forgive("a")
    assert store.failure("a") is None


def test_old_temporary_files_are_removed_and_young_ones_are_not(store) -> None:
    (store.root / "claims").mkdir()
    names = (".plan.json.a.part", ".probe.a", ".clock.a", "claims/.a.b")
    for name in names:
        (store.root / name).write_text("")
    store.tidy()
    assert all((store.root / name).exists() for name in names)
    for name in names:
        os.utime(store.root / name, (0, 0))
    store.tidy()
    assert not list(store.root.glob(".*")) + list((store.root / "claims").iterdir())


def test_old_is_told_by_the_clock_of_the_file_system(store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's file is not old because this machine's clock is ahead."""
    (store.root / ".probe.a").write_text("")
    monkeypatch.setattr(time, "time", lambda: 1e12)
    store.tidy()
    assert (store.root / ".probe.a").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_is_not_called_damaged(store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fails(*_: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(manifest, "_digest", fails)
    with pytest.raises(OutputError, match="nothing was changed"):
        store.check("cells", "a")
    monkeypatch.undo()
    assert store.check("cells", "a")
    assert not (store.root / "damaged").exists()


def test_what_appears_while_we_look_is_not_set_aside(store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.is_intact

    def slow(folder: Path, *rest: object, **more: object) -> bool:
        found = real(folder, *rest, **more)
        if not folder.exists():
            shutil.copytree(store.path("cells", "a"), folder)
        return found

    monkeypatch.setattr(module, "is_intact", slow)
    store.check("cells", "b")
    assert not (store.root / "damaged").exists()


def test_what_owners_left_of_finished_parts_is_removed_unless_somebody_is_at_it(store) -> None:
    for key in ("a", "b"):
        store.training(key).mkdir(parents=True)
        (store.root / "parts" / f"{key}.1").mkdir()
        store.fail(key, {"title": key, "type": "ModelError", "reason": "earlier"})
    store.settle(["a"])
    assert not store.training("a").exists()
    assert store.failure("a") is None
    assert store.training("b").exists()
    assert store.failure("b") is not None
    assert [path.name for path in (store.root / "parts").iterdir()] == ["b.1"]
    with store.claim("b"):
        store.settle(["b"])
        assert store.training("b").exists()
    store.settle(["b"])
    assert not store.training("b").exists()
    assert list((store.root / "claims").iterdir()) == []


def test_values_are_read_only_as_they_were_written(store) -> None:
    folder = store.path("cells", "b")
    store.publish("cells", "b", writer("cells", text='{"a": 1}'))
    assert store.read("cells", "b", "row.json") == {"a": 1}
    assert store.read("cells", "b", "history.json") == {"a": 1}
    # of the same size, which is all that `exists` looks at
    (folder / "row.json").write_text('{"a": 2}')
    assert store.exists("cells", "b")
    assert store.read("cells", "b", "row.json") is None
    for text in ("[]", "{}", '{"files": []}', '{"files": {"row.json": 3}}', "{"):
        (folder / "manifest.json").write_text(text)
        assert store.read("cells", "b", "row.json") is None
    assert store.read("cells", "c", "row.json") is None
    # what is no JSON was not written by a sweep
    assert store.read("cells", "a", "row.json") is None
