"""The commit of a folder: right, and read without running what the folder's own configuration names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isofire.study.git_state import git_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
WHO = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", folder, *WHO, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "file").write_text("one\n")
    (folder / "within").mkdir()
    (folder / "within" / "other").write_text("same\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "m")
    return folder


def test_commit_and_dirt(repository: Path, tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    head = git(repository, "rev-parse", "HEAD")
    assert git_state(repository) == git_state(repository / "within") == {"commit": head, "dirty": False}
    (repository / "new").write_text("not tracked")
    os.utime(repository / "file", (1, 1))
    assert git_state(repository) == {"commit": head, "dirty": False}
    (repository / "file").write_text("two\n")
    assert git_state(repository) == {"commit": head, "dirty": True}
    git(repository, "add", "file")
    assert git_state(repository) == {"commit": head, "dirty": True}
    git(repository, "commit", "-qm", "second")
    assert git_state(repository) == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}


def test_a_linked_worktree_has_its_own_state(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side" / "file").write_text("changed\n")
    assert git_state(tmp_path / "side")["dirty"] is True
    assert git_state(repository)["dirty"] is False


@pytest.mark.skipif(sys.platform == "win32", reason="files have no mode there")
def test_settings_that_say_how_files_are_compared_are_kept(repository: Path) -> None:
    git(repository, "config", "core.fileMode", "false")
    (repository / "file").chmod(0o755)
    assert git(repository, "status", "--porcelain") == ""
    assert git_state(repository)["dirty"] is False
    git(repository, "config", "core.fileMode", "true")
    assert git_state(repository)["dirty"] is True


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None


def test_no_git_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(repository) is None


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
def test_no_program_that_a_folder_names_is_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, program, hooks = tmp_path / "traces", tmp_path / "program", tmp_path / "hooks"
    program.write_text(f'#!/bin/sh\necho "$0 $@" >> {traces}\ncat\n')
    program.chmod(0o755)
    hooks.mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction", "post-checkout"):
        shutil.copy(program, hooks / hook)
    inner = repository / "module"
    inner.mkdir()
    git(inner, "init", "-q")
    git(inner, "commit", "-qm", "m", "--allow-empty")
    git(repository, "add", "module")
    git(repository, "commit", "-qm", "with a module")
    for key in (
        "core.fsmonitor", "filter.x.clean", "filter.x.smudge", "diff.external", "diff.x.command", "diff.x.textconv",
        "core.pager", "pager.status", "core.sshCommand", "core.askPass", "core.editor", "core.alternateRefsCommand",
        "gpg.program", "credential.helper",
    ):  # fmt: skip
        git(repository, "config", key, str(program))
    git(inner, "config", "core.fsmonitor", str(program))
    git(repository, "config", "core.hooksPath", str(hooks))
    for alias in ("status", "rev-parse", "config"):
        git(repository, "config", f"alias.{alias}", f"!{program}")
    git(repository, "config", "status.submoduleSummary", "true")
    for attributes in (repository / ".gitattributes", repository / ".git" / "info" / "attributes"):
        attributes.write_text("* filter=x diff=x\n")
    traces.unlink(missing_ok=True)
    # what only looks changed has to be read, which is where filters come in
    os.utime(repository / "file", (1, 1))
    head = git(repository, "rev-parse", "HEAD")
    # the two ways in which results are made: from the folder, and with git's own variables around
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert git_state(repository) == {"commit": head, "dirty": False}
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.chdir(repository)
    assert git_state() == {"commit": head, "dirty": False}
    assert not traces.exists(), traces.read_text()
    # the trap works: git by itself runs them
    git(repository, "status", "--porcelain")
    assert len(traces.read_text().splitlines()) >= 2
