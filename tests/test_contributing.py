"""CONTRIBUTING.md followed to the letter: its files, in a package of one's own and in isofire, do what it promises."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = {
    "weights": "quantizers/methods",
    "membrane": "quantizers/methods",
    "measure": "firing/measures",
    "loss": "training/losses",
    "neuron": "neurons/kinds",
    "framework": "adapters/libraries",
}

TRAIN = """
[model]
builder = "sew_resnet8"
width = 0.125
T = 2
in_channels = 1
neuron = "quadratic_if"

[data]
name = "digits"
train_images = 200

[train]
epochs = 2
lr = 0.1
losses = { quiet = 0.5 }
"""

SWEEP = """
name = "guide"
data = { name = "digits" }
test_images = 50
calibration_images = 64
baselines = [{ name = "quadratic", file = "fp/model.safetensors" }]

[[cells]]
mode = ["ptq"]
weights = { method = "ternary" }

[[cells]]
mode = ["ptq"]
membrane = { method = "thirds", bits = 3 }
"""

QUANT = """
[data]
name = "digits"

[quant]
weights = { method = "ternary" }
membrane = { method = "thirds", bits = 2 }
"""

COMMANDS = """
import sys
from isofire.cli import main

def run(*arguments, code=0):
    found = main([*arguments, "--device", "cpu"] if arguments[0] != "report" else [*arguments])
    assert found == code, (arguments, found)

run("train", "-c", "train.toml", "-o", "fp")
run("sweep", "sweep.toml", "-o", "swept", "--workers", "1")
run("report", "swept")
run("quantize", "fp/model.safetensors", "-c", "quant.toml", "-o", "q")
run("compare", "fp/model.safetensors", "q/model.safetensors", "--data", "digits", "--n", "50")
run("check", "fp/model.safetensors", "q/model.safetensors", "--data", "digits", "--n", "50",
    "--max", "largest=1")
"""

LIBRARY = """
import torch, tinysnn, isofire
from torch import nn
from isofire.adapters import OverTime, find_neurons
from isofire.models import load_model
from isofire.neurons import LIF, PerStep, Repeat

model, _ = load_model("q/model.safetensors")
kinds = {type(module).__name__ for module in model.modules() if isinstance(module, isofire.neurons.Neuron)}
assert kinds == {"QuadraticIF"}, kinds
values = [m.weight[0].unique().numel() for m in model.modules() if isinstance(m, nn.Conv2d)]
assert 3 in values and max(values) > 3, values  # the first layer stays as it is

torch.manual_seed(0)
first, last = nn.Linear(64, 20), nn.Linear(20, 10)
theirs = OverTime(nn.Sequential(nn.Flatten(), first, tinysnn.Cell(0.5), last), steps=4)
own = nn.Sequential(Repeat(4), PerStep(nn.Flatten(), first), LIF(2.0, decay_input=False, v_reset=None), PerStep(last))
assert len(find_neurons(theirs)) == 1
x = torch.rand(30, 1, 8, 8) * 3
spec = isofire.QuantSpec(membrane={"method": "thirds", "bits": 3})
a, b = (isofire.quantize_(net, spec)(x) for net in (theirs, own))
assert torch.equal(a, b) and a.std() > 0
"""


def files() -> dict[str, str]:
    """Path -> text of every file that the guide shows."""
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", GUIDE, re.DOTALL)
    return dict(blocks)


def write(folder: Path) -> Path:
    """The guide's package, written as it stands there."""
    for path, text in files().items():
        place = folder / path if path == "pyproject.toml" else folder / "src" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def run(script: str, path: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "160"}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_kind_is_shown() -> None:
    shown = files()
    assert set(shown) == {"pyproject.toml", *(f"my_package/{name}.py" for name in FOLDERS)}
    for name, folder in FOLDERS.items():
        assert f"`src/isofire/{folder}/NAME.py`" in GUIDE
        assert (ROOT / "src" / "isofire" / folder).is_dir(), name
    groups = tomllib.loads(shown["pyproject.toml"])["project"]["entry-points"]
    assert len(groups) == len(FOLDERS)


@pytest.mark.parametrize("place", ["package", "isofire"])
def test_what_the_guide_shows_does_what_it_promises(
    place: str, install: Callable[[Path, Path], str], tmp_path: Path
) -> None:
    project, found = write(tmp_path / "project"), tmp_path / "found"
    found.mkdir()
    if place == "package":
        path = install(project, found)
    else:
        # isofire itself, with nothing but the new files added
        package = Path(install(project, found).split(os.pathsep)[-1]) / "isofire"
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, tmp_path / "tree" / "isofire", copy_function=os.symlink, ignore=skipped)
        for name, folder in FOLDERS.items():
            source = project / "src" / "my_package" / f"{name}.py"
            shutil.copy(source, tmp_path / "tree" / "isofire" / folder / f"my_{name}.py")
        path = str(tmp_path / "tree")
    for name, text in {"train": TRAIN, "sweep": SWEEP, "quant": QUANT}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    shown = run(COMMANDS, path, tmp_path)
    assert "largest" in shown
    rows = list(csv.DictReader((tmp_path / "swept" / "results.csv").open()))
    assert {row["method"] for row in rows if row["target"] != "none"} == {"ternary", "thirds"}
    assert all(0 < float(row["largest"]) <= 1 for row in rows if row["target"] != "none")
    assert "largest rate change of a neuron" in (tmp_path / "swept" / "report.html").read_text()
    history = json.loads((tmp_path / "fp" / "history.json").read_text())["history"]
    assert all(0 < epoch["losses"]["quiet"] < 1 for epoch in history)
    run(LIBRARY, os.pathsep.join((path, str(ROOT / "tests" / "plugin" / "src"))), tmp_path)
