"""Whatever is wrong with what was asked ends with status 2 and a sentence, not as a fault of isofire."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isofire.models import save_model, sew_resnet8

CONFIG = """
seed = 0
[model]
builder = "sew_resnet8"
width = 0.125
in_channels = 1
T = 1
[data]
name = "digits"
train_images = 32
test_images = 20
[train]
epochs = 1
lr = 0.1
batch_size = 16
warmup_epochs = 0.0
[quant.weights]
method = "uniform"
bits = 4
"""
LARGE = 2**64
SETTINGS = (
    "data.options={download=true}", "data.options={root='x'}", "data.options={split='test'}", "data.options=[]",
    "data.name=[]", 'data.name="a\\u0000b"', 'data.root="a\\u0000b"', 'out="a\\u0000b"', f"data.seed={LARGE}",
    f"data.valid={LARGE}", "data.train_images=9223372036854775807",
    "model.builder=[1]", "model.builder={}", "model.width=1e400", "model.width='a'", "model.T=9223372036854775807",
    "model.neuron=[1]", "model.neuron_options={v_threshold=1e39}", "model.neuron_options={v_threshold=[1]}",
    "model.neuron_options=3", "model.surrogate={}", "model.connect=[1]", "model.alpha='x'",
    "quant.weights.method={}", "quant.weights.method=[1]", "quant.weights.range=[-1e39, 1e39]",
    "quant.weights.range=[1e400, 2]", "quant.weights.bits=1e39", "quant.membrane={bits=4, range=[-1e39, 1e39]}",
    "quant.membrane={bits=4, method=[1]}", "quant.rules=[{match=3}]", "quant.rules=[{match='re:('}]",
    f"quant.version={LARGE}", f"seed={LARGE}", f"seed={2**63}", "seed=1" + "0" * 5000, "seed=" + "[" * 2000,
    "calibration.images=9223372036854775807", "seed=2026-11-28", "data." + "a." * 100 + "b=1",
)  # fmt: skip
TRAINING = (
    "train.lr=1e39", "train.lr=1e400", "train.momentum=nan", "train.weight_decay=1e39", "train.clip_norm=1e39",
    "train.batch_size=9223372036854775807", f"train.eval_batch_size={10**21}", "train.pad=9223372036854775807",
    "train.pad=100000", "train.cutout=9223372036854775807", "train.epochs=9223372036854775807",
    "train.optimizer=[1]", "train.loss=[1]", "train.schedule={}",
)  # fmt: skip
SWEEPS = (
    f"seeds=[{LARGE}]", f"seeds=[{2**63}]", "threads=1000000000", "batch_size=9223372036854775807",
    "cells=[{weights={method={}}}]", "cells=[{axes={'weights.method'=[[1]]}}]", "cells=[{bits=[1e39]}]",
    "cells=[{mode=[[1]]}]", "baselines=[{name='a', pretrained=[1]}]", 'baselines=[{name="a", file="a\\u0000b"}]',
    "baselines=[{name='a', file='loop'}]", "data.options={download=true}", "exclude=[3]",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model("m.safetensors", sew_resnet8(width=0.125, in_channels=1, T=1))
    Path("c.toml").write_text(CONFIG)
    Path("s.toml").write_text(Path(__file__).parents[1].joinpath("sweep", "tiny.toml").read_text())
    Path("deep.toml").write_text("a = " + "[" * 2000)
    Path("digits.toml").write_text("seed = 1" + "0" * 5000)
    if sys.platform != "win32":
        for name in ("loop", "loop.toml"):
            os.symlink(name, name)
    return tmp_path


def refused(run: Callable[..., Any], *words: str) -> str:
    done = run(*words)
    assert done.code == 2, (words, done.code, done.err)
    assert done.err.startswith("error: ") or "\nerror: " in done.err, done.err
    assert len(done.err) < 2000, done.err
    return done.err


@pytest.mark.parametrize("setting", SETTINGS, ids=[text[:40] for text in SETTINGS])
def test_settings(here: Path, run: Callable[..., Any], setting: str) -> None:
    refused(run, "quantize", "m.safetensors", "-c", "c.toml", "-o", "q", "--set", setting)
    assert not (here / "q" / "model.safetensors").exists()


@pytest.mark.parametrize("setting", TRAINING)
def test_settings_of_training(here: Path, run: Callable[..., Any], setting: str) -> None:
    refused(run, "train", "-c", "c.toml", "-o", "t", "--set", setting)


@pytest.mark.parametrize("setting", SWEEPS)
def test_settings_of_sweeps(here: Path, run: Callable[..., Any], setting: str) -> None:
    refused(run, "sweep", "s.toml", "-o", "s", "--dry-run", "--set", setting)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--device", ("mps", "meta", "xla", "cuda:99", "cuda:-1", "cpu:5", "", "privateuseone", f"cuda:{10**20}")),
        ("--threads", ("0", "-1", "1000000", str(10**11), str(2**63 - 1), str(10**23))),
        ("--batch-size", ("0", "-1", str(2**63), str(10**23))),
        ("--n", ("0", "-1", str(2**63), str(10**23))),
    ],
)
def test_options(here: Path, run: Callable[..., Any], option: str, values: tuple[str, ...]) -> None:
    for value in values:
        refused(run, "eval", "m.safetensors", "--data", "digits", option, value)
    if option == "--threads":
        refused(run, "sweep", "s.toml", "-o", "s", "--dry-run", "--workers", str(10**9))


def test_text_that_is_no_utf8(here: Path, run: Callable[..., Any]) -> None:
    quantize = ("quantize", "m.safetensors", "-c", "c.toml", "-o", "q")
    for words in (
        (*quantize, "--set", "data.name=\udcff"),
        (*quantize, "--set", "\udcff=1"),
        ("eval", "\udcff.safetensors", "--data", "digits"),
        ("eval", "m.safetensors", "--data", "\udcff"),
        ("eval", "m.safetensors", "--data", "digits", "--root", "\udcff"),
        ("eval", "m.safetensors", "--data", "digits", "--device", "\udcff"),
    ):
        assert "UTF-8" in refused(run, *words)


@pytest.mark.parametrize("name", ["deep.toml", "digits.toml", "loop.toml", "a" * 300, ".", os.devnull])
def test_configurations_that_are_none(here: Path, run: Callable[..., Any], name: str) -> None:
    refused(run, "explain", "-c", name)
    refused(run, "sweep", name, "-o", "s")


@pytest.mark.skipif(sys.platform == "win32", reason="there are links of this kind on POSIX")
@pytest.mark.parametrize("name", ["loop", "a" * 300])
def test_names_that_lead_nowhere(here: Path, run: Callable[..., Any], name: str) -> None:
    for words in (
        ("eval", name, "--data", "digits"),
        ("eval", "m.safetensors", "--data", "mnist", "--root", name),
        ("eval", "m.safetensors", "--data", "nmnist-small", "--root", name),
        ("quantize", name, "-c", "c.toml", "-o", "q"),
        ("quantize", "m.safetensors", "-c", "c.toml", "-o", name),
        ("compare", "m.safetensors", "m.safetensors", "--data", "digits", "-o", name),
        ("check", name, "m.safetensors", "--data", "digits", "--max-drift", "1", "--junit", "j.xml"),
        ("sweep", "s.toml", "-o", name),
        ("status", name),
        ("report", name),
    ):
        refused(run, *words)


def test_memory_that_is_not_to_be_had(here: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def grows(*_: object, **__: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("isofire.cli.evaluate.measure", grows)
    assert "not enough memory" in refused(run, "eval", "m.safetensors", "--data", "digits")


def test_a_file_for_another_command(here: Path, run: Callable[..., Any]) -> None:
    text = " ".join(refused(run, "sweep", "c.toml", "-o", "s").split())
    assert "c.toml is a configuration for isofire train or quantize, with [model], [train], [quant]" in text
    assert "s.toml is a sweep's file, with [[baselines]], [[cells]]" in refused(run, "explain", "-c", "s.toml")
