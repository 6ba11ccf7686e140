from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch

from isofire.study import environment
from isofire.study.environment import cpu_model, git_state, version


def test_versions_and_machine():
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["threads"] == torch.get_num_threads()
    assert (found["device"], found["gpu"]) == ("cpu", None)
    json.dumps(found, allow_nan=False)


def test_date_is_now_in_utc():
    date = datetime.fromisoformat(environment()["date"])
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - date) < timedelta(minutes=1)  # noqa: UP017


def test_no_names_of_people_and_places():
    text = json.dumps(environment())
    for secret in (platform.node(), str(Path.home()), os.getcwd()):
        assert not secret or secret not in text


def test_absent_package():
    assert version("no-such-package-by-any-means") is None


def test_cpu_has_a_name():
    assert cpu_model()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_and_dirt(tmp_path):
    assert git_state(tmp_path) is None
    (tmp_path / "file").write_text("one")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for step in (["init", "-q"], ["add", "file"], [*who, "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", tmp_path, *step], check=True, capture_output=True)
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert git_state(tmp_path) == {"commit": head.stdout.strip(), "dirty": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {"commit": head.stdout.strip(), "dirty": True}


def test_no_git_at_all(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None
