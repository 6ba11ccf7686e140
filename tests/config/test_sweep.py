"""A sweep's file: complete, checked as a whole, and errors that name the place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isofire.config import BaselineSettings
from isofire.config.cells import CellGroup, combinations
from isofire.errors import SpecError
from isofire.sweep import Sweep, read_sweep

TINY = Path(__file__).parents[1] / "sweep" / "tiny.toml"


@pytest.fixture
def write(tmp_path):
    def write(old: str = "", new: str = "") -> str:
        text = TINY.read_text()
        assert old in text
        path = tmp_path / "sweep.toml"
        path.write_text(text.replace(old, new, 1))
        return str(path)

    return write


def test_values_and_defaults(write) -> None:
    sweep = read_sweep(write(), ["data.test_images=30", "threads=2"])
    assert (sweep.name, sweep.seeds, sweep.threads, sweep.data.test_images) == ("tiny", (0, 1), 2, 30)
    assert (sweep.test_split, sweep.keep_models, len(sweep.cells)) == ("test", True, 4)
    (baseline,) = sweep.baselines
    assert baseline.model["builder"] == "sew_resnet8"
    assert baseline.train.epochs == 2


def test_a_file_lies_relative_to_the_toml_and_can_be_replaced(write, tmp_path) -> None:
    path = write('name = "small"\n', 'name = "small"\nfile = "models/m.safetensors"\n')
    text = Path(path).read_text()
    start, end = text.index("[baselines.model]"), text.index("[qat]")
    Path(path).write_text(text[:start] + text[end:])
    assert read_sweep(path).baselines[0].file == str(tmp_path / "models" / "m.safetensors")
    assert read_sweep(path, baseline="other.safetensors").baselines[0].file == os.path.abspath("other.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds =", "seed =", "seed: unknown key.*did you mean 'seeds'"),
        ("lr = 0.01", 'lr = "fast"', r"lr.*\[qat\]|qat.lr"),
        ("lr = 0.1", "lr = -1.0", r"baselines\[0\].train.lr: expected `float` > 0.0, got -1.0"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "different numbers"),
        ("seeds = [0, 1]", 'test_split = "tset"', "test_split"),
        ("seeds = [0, 1]", 'test_split = "valid"', "set data.valid"),
        ("test_images = 20", "test_images = 0", "test_images"),
        ('name = "small"', 'name = "small"\nfile = "m.safetensors"', "just one of file, pretrained, builder, or model"),
        ("[baselines.train]\nepochs = 2\nbatch_size = 16\nlr = 0.1\n", "", "needs both model and train"),
        ("sew_resnet8", "sew_resnet9", r"baselines\[0\].model.builder: must be one of"),
        ("[qat]\nepochs = 2\nbatch_size = 16\nlr = 0.01\nwarmup_epochs = 0.0\n", "", r"needs a table \[qat\]"),
        ('mode = ["ptq"]', 'mode = ["pqt"]', r"cells\[\d\]\.mode\[0\]: must be ptq or qat, got 'pqt'"),
        ('mode = ["ptq"]', 'modes = ["ptq"]', r"cells\[\d\]\.modes: unknown key.*did you mean 'mode'"),
        ("seeds = [0, 1]", "seeds = [-1]", r"seeds\[0\].*got -1"),
        ("bits = [2, 4]", 'bits = "4"', r"cells\[\d\]\.bits.*got '4'"),
        ("bits = [2, 4]", "bit = [2, 4]", "cells.*bit"),
    ],
)
def test_mistakes(write, old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_sweep(write(old, new))


def test_a_file_that_names_no_baseline_takes_one_that_is_given(write) -> None:
    path = write()
    text = Path(path).read_text()
    start, end = text.index("[[baselines]]"), text.index("[qat]")
    Path(path).write_text(text[:start] + text[end:])
    with pytest.raises(SpecError, match="--baseline FILE or --model "):
        read_sweep(path)
    (given,) = read_sweep(path, baseline="m.safetensors").baselines
    assert (given.name, given.file) == ("baseline", os.path.abspath("m.safetensors"))
    (own,) = read_sweep(path, baseline="w.safetensors", builder="nets:build").baselines
    assert (own.name, own.builder, own.file) == ("build", "nets:build", os.path.abspath("w.safetensors"))
    Path(path).write_text(text[:start] + '[[baselines]]\nname = "mine"\n' + text[end:])
    assert read_sweep(path, builder="nets:build").baselines[0].name == "mine"


def test_one_baseline_can_stand_for_one_only(write) -> None:
    second = '[[baselines]]\nname = "other"\nfile = "m.safetensors"\n\n[[baselines]]\n'
    with pytest.raises(SpecError, match="stands in for one baseline"):
        read_sweep(write("[[baselines]]\n", second), baseline="m.safetensors")
    with pytest.raises(SpecError, match="different names"):
        read_sweep(write("[[baselines]]\n", second.replace("other", "small")))


def test_the_file_shown_in_the_documents_is_valid_and_shows_every_setting(tmp_path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sweep.md").read_text(encoding="utf-8")
    shown = page.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "sweep.toml").write_text(shown)
    cells = [found for group in read_sweep(tmp_path / "sweep.toml").cells for found in combinations(group, "cells")]
    assert len(cells) == 2 + 12 + 2 + 2 + 2
    for kind in (Sweep, BaselineSettings, CellGroup):
        for name in kind.__struct_fields__:
            assert f"{name} =" in shown or f"[{name}]" in shown or f".{name}]" in shown or f"[[{name}]]" in shown, name
