"""The commit of a folder, read without running anything that the folder names.

A repository's own configuration can name programs that git starts by itself: a file monitor, clean filters, hooks. So
the state is asked of an empty git directory of our own that borrows the repository's objects and index; of its
configuration only values that say how files are compared are taken over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_COMPARISON = ("autocrlf", "eol", "filemode", "ignorecase", "symlinks")
"""Settings of `core` without which unchanged files would look changed; none of them names a program."""

_SILENT = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-pager")
_SECONDS = 10


def git_state(folder: str | os.PathLike[str] = ".") -> dict[str, str | bool | None] | None:
    """Commit of the repository that `folder` lies in and whether tracked files differ from it; None outside of one.

    Returns
    -------
    dict
        `commit`, and `dirty`: True, False, or None where that could not be found out. Of a submodule only its commit
        is compared, not its files.
    """
    git = _program()
    if git is None:
        return None
    asked = ("--show-toplevel", "--git-common-dir", "--git-path", "index", "HEAD")
    found = _run([git, "-C", os.fspath(folder), *_SILENT, "rev-parse", *asked])
    lines = [] if found is None else found.splitlines()
    if len(lines) != 4:
        return None
    # --show-toplevel is absolute, the others may be relative to the folder
    root, common, index = (Path(folder).absolute() / line for line in lines[:3])
    with tempfile.TemporaryDirectory(prefix="isofire-git-") as borrowed:
        _write_directory(git, Path(borrowed), common, commit=lines[3])
        places = {"GIT_OBJECT_DIRECTORY": common / "objects", "GIT_INDEX_FILE": index, "GIT_OPTIONAL_LOCKS": 0}
        changed = _run(
            [git, f"--git-dir={borrowed}", f"--work-tree={root}", *_SILENT, "status", "--porcelain",
             "--untracked-files=no", "--ignore-submodules=dirty"],
            {key: str(value) for key, value in places.items()},
        )  # fmt: skip
    return {"commit": lines[3], "dirty": None if changed is None else bool(changed)}


def _program() -> str | None:
    """Git from an absolute folder of PATH; Windows would look in the working folder first."""
    for place in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isabs(place) and (found := shutil.which(os.path.join(place, "git"))):
            return found
    return None


def _write_directory(git: str, place: Path, common: Path, commit: str) -> None:
    wanted = f"^core\\.({'|'.join(_COMPARISON)})$"
    found = _run([git, "config", "--file", str(common / "config"), "--no-includes", "--get-regexp", wanted])
    lines = ["[core]", "repositoryformatversion = 1", "bare = false"]
    for key, _, value in (line.partition(" ") for line in (found or "").splitlines()):
        if value.isascii() and value.isalnum():
            lines.append(f"{key.removeprefix('core.')} = {value}")
    if len(commit) == 64:
        lines += ["[extensions]", "objectformat = sha256"]
    (place / "refs").mkdir()
    (place / "objects").mkdir()
    (place / "config").write_text("\n".join(lines) + "\n", encoding="ascii")
    (place / "HEAD").write_text(f"{commit}\n", encoding="ascii")


def _run(command: list[str], more: dict[str, str] | None = None) -> str | None:
    # variables such as GIT_DIR or GIT_EXTERNAL_DIFF, as git sets them for its hooks, are about another question
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        found = subprocess.run(
            command, env={**kept, **(more or {})}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS,
            check=True,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return os.fsdecode(found.stdout).strip("\n")
