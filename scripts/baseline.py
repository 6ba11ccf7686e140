"""`python -m scripts.baseline [RUNS]`: the page of the longer CIFAR-10 baseline, from the stored runs.

RUNS holds the folders t2-SEED, t4-SEED and trials/NAME of finished `isofire train`s; what tells how each went is copied
first, with DATA for the data's folder. `--check` writes nothing and says whether the page is what the runs give.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.page import is_asked_to_compare, keep

from isofire.files import write_text

FOLDER = Path(__file__).parents[1] / "results" / "2026-11-29_long-baseline"
STAGES = {"t2": "1-t2", "t4": "2-t4"}
FILES = ("config.json", "environment.json", "history.json", "log.txt")


def store(runs: Path) -> None:
    """Copy what tells how each finished run went."""
    for last in sorted(runs.glob("t4-*/history.json")):
        seed = last.parent.name.split("-")[1]
        for stage, name in STAGES.items():
            _keep(runs / f"{stage}-{seed}", FOLDER / seed / name)
        shutil.copyfile(last.with_name("model.safetensors"), FOLDER / seed / "2-t4" / "model.safetensors")
    for last in sorted((runs / "trials").glob("*/history.json")):
        _keep(last.parent, FOLDER / "trials" / last.parent.name)


def _keep(run: Path, folder: Path) -> None:
    root = json.loads((run / "config.json").read_text(encoding="utf-8"))["data"]["root"]
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        write_text(folder / file, (run / file).read_text(encoding="utf-8").replace(root, "DATA"))


def stages() -> list[dict[str, Any]]:
    """What each stage of each seed came to."""
    folders = sorted(path for path in FOLDER.iterdir() if path.name.isdigit())
    return [_read(folder / name, seed=folder.name, stage=name) for folder in folders for name in STAGES.values()]


def trials() -> list[dict[str, Any]]:
    """The short runs that chose the recipe."""
    return [_read(path) for path in sorted((FOLDER / "trials").iterdir())]


def _read(folder: Path, **names: str) -> dict[str, Any]:
    config, about, history = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("config", "environment", "history")
    )
    return {**names, "config": config, "commit": about["git"]["commit"][:12], "history": history}


def page() -> str:
    """The folder's README."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("baseline.md.j2").render(stages=stages(), trials=trials())


if __name__ == "__main__":
    if not is_asked_to_compare() and len(sys.argv) > 1:
        store(Path(sys.argv[1]))
    raise SystemExit(keep(FOLDER / "README.md", page(), "python -m scripts.baseline"))
