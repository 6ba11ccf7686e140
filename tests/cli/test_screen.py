from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest

from isofire.cli import screen
from isofire.cli.screen import Log, open_folder
from isofire.errors import OutputError
from isofire.files import write_atomic


def test_processes_that_try_a_folder_at_the_same_time_do_not_meet(tmp_path, monkeypatch):
    # every one has written before any goes on to remove
    barrier, failures, names = Barrier(4), [], []

    def write(path: Path, fill) -> Path:
        names.append(path.name)
        done = write_atomic(path, fill)
        barrier.wait(20)
        return done

    def attempt() -> None:
        try:
            assert open_folder(tmp_path / "new") == tmp_path / "new"
        except Exception as error:
            failures.append(error)

    monkeypatch.setattr(screen, "write_atomic", write)
    threads = [Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(names)) == 4
    assert list((tmp_path / "new").iterdir()) == []


def test_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        open_folder(tmp_path / "file" / "x")


@pytest.mark.parametrize(("rank", "text"), [("0", "a line\n"), ("1", None)])
def test_the_first_process_alone_writes_the_log(tmp_path, monkeypatch, capsys, rank, text):
    monkeypatch.setenv("RANK", rank)
    Log(tmp_path)("a line")
    assert capsys.readouterr().err == (text or "")
    assert (tmp_path / "log.txt").exists() == (text is not None)
    assert text is None or (tmp_path / "log.txt").read_text() == text
