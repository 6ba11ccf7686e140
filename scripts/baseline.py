"""`python -m scripts.baseline [NAME RUNS]`: pages of CIFAR-10 networks that were trained longer, from the stored runs.

NAME is long (SEW-ResNet-8) or narrow (SEW-ResNet-18 of 16 channels). RUNS holds the folders t2-SEED, t4-SEED, for long
also third-SEED, fourth-SEED, again-SEED, more-SEED, crops-SEED and last-SEED, and trials/NAME of finished
`isofire train`s; what tells how each went is copied first, with DATA for the data's folder.
`--check` writes nothing and says whether the pages are what the runs give.
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

_RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = {"long": _RESULTS / "2026-11-29_long-baseline", "narrow": _RESULTS / "2026-11-29_narrow-sew18"}
STAGES = {
    "t2": "1-t2", "t4": "2-t4", "third": "3-t4", "fourth": "4-taught", "again": "4-again", "more": "5-again",
    "crops": "6-crops", "last": "7-last",
}  # fmt: skip
FILES = ("config.json", "environment.json", "history.json", "log.txt")


def store(runs: Path, folder: Path) -> None:
    """Copy what tells how each finished run went."""
    for last in sorted(runs.glob("t4-*/history.json")):
        seed = last.parent.name.split("-")[1]
        done = {name: runs / f"{stage}-{seed}" for stage, name in STAGES.items()}
        done = {name: run for name, run in done.items() if (run / "history.json").exists()}
        for name, run in done.items():
            _keep(run, folder / seed / name)
        if folder == FOLDERS["long"]:
            for weights in (folder / seed).glob("*/model.safetensors"):
                weights.unlink()
            best = max(done, key=lambda name: _read(folder / seed / name)["history"]["valid"]["accuracy"])
            shutil.copyfile(done[best] / "model.safetensors", folder / seed / best / "model.safetensors")
    for last in sorted((runs / "trials").glob("*/history.json")):
        _keep(last.parent, folder / "trials" / last.parent.name)


def _keep(run: Path, folder: Path) -> None:
    root = json.loads((run / "config.json").read_text(encoding="utf-8"))["data"]["root"]
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        write_text(folder / file, (run / file).read_text(encoding="utf-8").replace(root, "DATA"))


def stages(folder: Path) -> list[dict[str, Any]]:
    """What each stage of each seed came to."""
    folders = sorted(path for path in folder.iterdir() if path.name.isdigit())
    return [
        _read(folder / name, seed=folder.name, stage=name)
        for folder in folders
        for name in STAGES.values()
        if (folder / name).is_dir()
    ]


def trials(folder: Path) -> list[dict[str, Any]]:
    """The short runs that chose the recipe."""
    return [_read(path) for path in sorted((folder / "trials").glob("*"))]


def _read(folder: Path, **names: str) -> dict[str, Any]:
    config, about, history = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("config", "environment", "history")
    )
    return {**names, "config": config, "commit": about["git"]["commit"][:12], "history": history}


def page(name: str) -> str:
    """The folder's README."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    folder = FOLDERS[name]
    return environment.get_template(f"baseline-{name}.md.j2").render(stages=stages(folder), trials=trials(folder))


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if not word.startswith("-")]
    if given and (len(given) != 2 or given[0] not in FOLDERS):
        raise SystemExit(__doc__)
    if given and not is_asked_to_compare():
        store(Path(given[1]), FOLDERS[given[0]])
    raise SystemExit(
        max(keep(folder / "README.md", page(name), "python -m scripts.baseline") for name, folder in FOLDERS.items())
    )
