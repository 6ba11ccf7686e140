"""Every example that help shows is run, with as little work as it can be given."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from isofire.cli import main
from isofire.cli.app import _HELP, app
from isofire.models import open_named

CODE = """
import torch
from isofire.data import ImageSet
from isofire.neurons import LIF, PerStep, Repeat
from torch import nn


def build():
    torch.manual_seed(0)
    layers = (PerStep(nn.Linear(a, b, bias=False)) for a, b in ((16, 12), (12, 12), (12, 10)))
    return nn.Sequential(Repeat(2), PerStep(nn.Flatten()), *(part for layer in layers for part in (layer, LIF())))


def load(split, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(len(split))
    pixels = torch.randint(0, 256, (60, *shape), generator=generator, dtype=torch.uint8)
    ends = (0.5,) * shape[0], (0.25,) * shape[0]
    return ImageSet("noise", split, pixels, torch.arange(60) % 10, tuple("abcdefghij"), *ends)
"""
SPEC = '[quant.weights]\nmethod = "uniform"\nbits = 2\n[calibration]\nimages = 16\n'
FEW = ("data.train_images=96", "data.test_images=40", "calibration.images=64")
CELLS = "cells=[{mode=['ptq'], weights={method='uniform',range='mse'}, bits=[2, 4]}]"
DEMO = ("data.valid=100", "data.train_images=96", "data.test_images=40", "baselines.0.model.width=0.125",
        "baselines.0.train.epochs=1", "calibration_images=32", CELLS)  # fmt: skip
# what makes a command's work small: pattern of the line -> settings
SMALL = {
    r"^isofire (demo|sweep configs/demo)": DEMO,
    r"^isofire sweep start/": ("calibration_images=16", "data.test_images=40", CELLS),
    r"(quantize|blame|allocate) .*--preset": FEW,
    # a run for each layer: of the quickest kind
    r"(blame|allocate) .*--preset": ("quant={weights={method='uniform', bits=4}}",),
    r"train .*digits-demo": (*FEW[:2], "train.epochs=1", "model.width=0.125"),
    r"train .*cifar10-sew8": (
        "data.train_images=40",
        "data.valid=10",
        "train.epochs=1",
        "model.width=0.125",
        "train.batch_size=16",
    ),
    r"train -c config": ("train.epochs=1",),
    r"quantize fp.*digits-demo": (*FEW, "qat.epochs=1", "model.width=0.25", "model.T=2"),
}
# statuses that are answers: a limit that is not kept or undecided, a layer that is silent, a chip that refuses
ANSWERS = {"check": (0, 1, 3), "doctor": (0, 1), "lower": (0, 1), "allocate": (0, 1, 3)}


def examples() -> list[str]:
    """Lines of help, and those of the program's first screen in their order as one."""
    found = [app[name].help_epilogue or "" for name in app if name in app and not name.startswith("-")]
    lines = [line for text in found for line in text.splitlines() if line.startswith("isofire ")]
    return [" && ".join(line for line in _HELP.splitlines() if line.startswith("isofire ")), *lines]


def test_every_command_ends_with_examples() -> None:
    for name in app:
        if not name.startswith("-"):
            text = app[name].help_epilogue
            assert text, name
            assert f"isofire {name}" in text.splitlines()[-2], f"the last example of {name} is not of {name}"


def do(*arguments: object) -> None:
    assert main([*map(str, arguments), "--device", "cpu"]) == 0


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory, config: Path, trained: Path, quantized: Path) -> Path:
    """A folder with all that the examples name."""
    folder = tmp_path_factory.mktemp("kitchen")
    (folder / "nets.py").write_text(CODE)
    (folder / "spec.toml").write_text(SPEC)
    shutil.copy(config, folder / "config.toml")
    for source, name in ((trained, "fp"), (trained, "continued"), (quantized, "q")):
        shutil.copy(source / "model.safetensors", folder / f"{name}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        sys.modules.pop("nets", None)
        save_file(open_named("nets:build")[0].state_dict(), "weights.safetensors")
        own = ("--model", "nets:build", "--weights", "weights.safetensors", "--data", "nets:load")
        do("quantize", *own, "-c", "spec.toml", "--out", "made")
        Path("made/model.safetensors").rename("own-q.safetensors")
        assert main(["export", "q.safetensors", "--to", "bundle", "--data", "digits", "--out", "codes"]) == 0
        assert main(["init", *own, "-o", "start"]) == 0
        for name in ("which-bits", "before", "after"):
            few = (part for setting in SMALL["^isofire sweep start/"] for part in ("--set", setting))
            do("sweep", "start/sweep.toml", "--allow-code", *few, "--out", name, "--workers", "1")
        sys.modules.pop("nets", None)
    return folder


@pytest.fixture
def here(kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it to work in; CIFAR-10 is noise."""
    place = tmp_path / "kitchen"
    shutil.copytree(kitchen, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    sys.modules.pop("nets", None)
    from isofire.study import splits

    known = splits.load

    def load(name: str, split: str, **options: object):
        if name != "cifar10":
            return known(name, split, **options)
        assert options["root"] == "DIR"
        return __import__("nets").load(split, (3, 32, 32))

    monkeypatch.setattr("isofire.study.splits.load", load)
    yield place
    sys.modules.pop("nets", None)


@pytest.mark.parametrize("line", examples())
def test_the_example_runs(here: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in line.split(" && "):
        words = shlex.split(re.sub(r"--n \d+", "--n 20", part))[1:]
        if words[0] == "export" and "onnx" in words:
            pytest.importorskip("onnxruntime")
        if "--parquet" in words:
            pytest.importorskip("pyarrow")
        if words[-1].endswith(".nir"):
            pytest.importorskip("nir")
        if words[0] == "allocate":
            # nothing that was trained for two epochs keeps to a limit
            words = ["0.9" if last == "--max-accuracy-drop" else "9999" if last == "--max-floors" else word
                     for last, word in zip(["", *words], words, strict=False)]  # fmt: skip
        if words[0] == "init":
            shutil.rmtree("start", ignore_errors=True)
        if words[0] == "sweep" and "start/sweep.toml" in words:
            shutil.rmtree("which-bits", ignore_errors=True)
            words += ["--allow-code"]
        words += [
            word for pattern, few in SMALL.items() if re.search(pattern, part) for x in few for word in ("--set", x)
        ]
        if words[0] in ("sweep", "demo"):
            words += ["--workers", "1"]
        if words[0] == "bench":
            # minutes of timing on a quiet machine; benchmarks have tests of their own
            app.parse_args(words, exit_on_error=False, print_error=False)
            continue
        assert main(words) in ANSWERS.get(words[0], (0,)), part
