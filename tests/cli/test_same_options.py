"""The same options name the network and the data on every command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from isofire.cli.options import SetChoice
from isofire.config import lay_data
from isofire.config.source import merge_settings
from isofire.data import ImageSet
from isofire.errors import SpecError
from isofire.models import open_named
from isofire.sweep import read_sweep

CODE = """
import torch
from isofire.data import ImageSet
from isofire.models import sew_resnet8

def build():
    torch.manual_seed(3)
    return sew_resnet8(width=0.125, T=2)

def images(split):
    generator = torch.Generator().manual_seed(len(split))
    pixels = torch.randint(0, 256, (24, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ImageSet("noise", split, pixels, torch.arange(24) % 10, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3)

def batches(split):
    return [next(iter(images(split).batches(24)))]
"""
SPEC = '[quant.weights]\nmethod = "uniform"\nbits = 2\n[calibration]\nimages = 16\n'
NETWORKS = {
    "builder": ("--model", "same_nets:build", "--weights", "own.safetensors"),
    "pretrained": ("sew_resnet8-cifar10",),
    "nir": ("own.nir",),
}
DATA = {
    "set": ("--data", "same_nets:images"),
    "batches": ("--data", "same_nets:batches"),
    "root": ("--data", "cifar10", "--root", "there"),
}
COMMANDS = {
    "eval": ("--n", "10"),
    "cost": ("--n", "10"),
    "doctor": ("--n", "10"),
    "blame": ("-c", "spec.toml", "--n", "10", "--set", "quant.rules=[{match='re:stages.*', weights='float'}]",
              "--set", "quant.first_layer='quantize'"),
    "allocate": ("-c", "spec.toml", "--n", "10", "--bits", "2", "--total-kib", "500",
                 "--set", "quant.rules=[{match='re:stages.*', weights='float'}]",
                 "--set", "quant.first_layer='quantize'"),
    "quantize": ("-c", "spec.toml", "-o", "q"),
    "export": ("-o", "out.nir"),
}  # fmt: skip


@pytest.fixture
def here(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """A folder as a user has it; and what was loaded of isofire's own sets, whose files stand aside."""
    (tmp_path / "same_nets.py").write_text(CODE)
    (tmp_path / "spec.toml").write_text(SPEC)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("same_nets", None)
    model = open_named("same_nets:build")[0]
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    if find_spec("nir") is not None:
        from isofire import nir

        nir.write(tmp_path / "own.nir", model, torch.zeros(1, 3, 32, 32))
    seen: list[tuple[Any, ...]] = []

    def load(name: str, split: str, *, root: str | None, download: bool, **options: Any) -> ImageSet:
        seen.append((name, split, root, download, options))
        return sys.modules["same_nets"].images(split)

    monkeypatch.setattr("isofire.study.splits.load", load)
    yield seen
    sys.modules.pop("same_nets", None)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_network_with_all_data(here: Any, run: Callable[..., Any], command: str, network: str, data: str) -> None:
    if network == "nir" or command == "export":
        pytest.importorskip("nir")
    if network == "pretrained" and (data != "root" or command == "allocate"):
        pytest.skip("the slow network once a command is enough")
    done = run(command, *NETWORKS[network], *DATA[data], *COMMANDS[command], "--json")
    # a network that nobody trained may have silent layers, which is not for this test
    assert done.code == 0 or (command, done.code) == ("doctor", 1), done.err
    found = json.loads(done.out)
    if command == "doctor":
        assert found["n_images"] == 10
    if command == "quantize":
        assert found["row"]["data"] == (DATA[data][1] if data != "root" else "noise")
        assert found["row"]["n_images"] == 24
        again = run("compare", *_pair(network), *DATA[data], "--json", "--device", "cpu")
        assert json.loads(again.out)["overall"] == found["overall"], again.err
        kept = run("check", *_pair(network), *DATA[data], "--max-accuracy-drop", "0.99", "--device", "cpu")
        # a network that nobody trained keeps nothing
        assert (kept.code, "baseline: not above chance" in kept.out) == (3, True), kept.err
    if command == "eval":
        assert found["n"] == 10
    if data == "root":
        assert {(name, root) for name, _, root, _, _ in here} == {("cifar10", "there")}


def _pair(network: str) -> tuple[str, ...]:
    if network == "builder":
        return ("own.safetensors", "q/model.safetensors", "--model", "same_nets:build")
    return (*NETWORKS[network], "q/model.safetensors")


@pytest.mark.parametrize("network", NETWORKS)
def test_explain_takes_each_network(here: Any, run: Callable[..., Any], network: str) -> None:
    if network == "nir":
        pytest.importorskip("nir")
    for words in (("-c", "spec.toml"), ("--preset", "keep-firing")):
        done = run("explain", *NETWORKS[network], *words)
        assert done.code == 0, done.err
        assert ("gptq" in done.out) == (words[0] == "--preset")
    plain = run("explain", *NETWORKS[network])
    assert (plain.code, "--preset keep-firing" in plain.err) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("quantize", "own.safetensors", "--model", "same_nets:build", "-c", "spec.toml", "--data", "digits"),
        ("eval", "own.nir", "--model", "same_nets:build", "--data", "digits"),
        ("quantize", "sew_resnet8-cifar10", "-c", "spec.toml"),
        ("blame", "sew_resnet8-cifar10", "-c", "spec.toml", "--root", "there"),
        ("allocate", "sew_resnet8-cifar10", "--data", "cifar10", "--total-kib", "9"),
        ("blame", "-c", "spec.toml", "--data", "digits"),
        ("eval", "sew_resnet8-cifar10"),
        ("eval", "sew_resnet8-cifar10", "--data", "same_nets:images", "--root", "there"),
        ("doctor", "--data", "same_nets:images"),
        ("train", "-c", "spec.toml", "--data", "digits"),
    ],
)
def test_wrong_input_has_a_cure(here: Any, run: Callable[..., Any], words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.code == 2, done.out
    cures = ("--weights", "leave one out", "--data NAME", "--preset keep-firing", "--model package.module:builder",
             "leave them out", "isofire eval --n 1", "[model] builder")  # fmt: skip
    assert any(cure in done.err for cure in cures), done.err


# -- the option and the file -------------------------------------------------------------------------------------------


def _laid(table: dict[str, Any], *, settings: tuple[str, ...] = (), allow_code: bool = False, **given: Any) -> Any:
    merged, places = merge_settings({"data": table} if table else {}, settings, "run.toml", allow_code)
    lay_data(merged, SetChoice(**given).given(), places)
    return merged.get("data")


def test_the_option_wins_the_cut_stays_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    table = {"name": "nmnist", "root": "old", "valid": 5, "test_images": 9, "options": {"steps": 3}}
    assert _laid(table, data="cifar10", root="new") == {
        "name": "cifar10",
        "root": "new",
        "valid": 5,
        "test_images": 9,
    }
    assert [record.getMessage() for record in caplog.records] == [
        "--data cifar10 is used in place of data.name = 'nmnist' (run.toml)",
        "--root new is used in place of data.root = 'old' (run.toml)",
    ]
    caplog.clear()
    assert _laid(table, data="nets:load") == {"name": "nets:load", "valid": 5, "test_images": 9}
    assert _laid(table, settings=("data.name=mnist",), data="digits")["name"] == "digits"
    assert "(--set data.name)" in caplog.records[-1].getMessage()
    caplog.clear()
    # nothing is replaced where both say the same, or one says nothing
    assert _laid(table, data="nmnist", download=True) == {**table, "download": True}
    assert _laid({"name": "mnist"}, root="there") == {"name": "mnist", "root": "there"}
    assert _laid(table) == table
    assert not caplog.records
    with pytest.raises(SpecError, match="give --data NAME too"):
        _laid({}, root="there")


@pytest.mark.parametrize("command", ["eval", "quantize", "blame", "allocate", "train"])
def test_the_option_wins_on_every_command(
    here: Any, run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    more = '[model]\nbuilder = "sew_resnet8"\nwidth = 0.125\nT = 1\n[train]\nepochs = 1\nlr = 0.1\nbatch_size = 8\n'
    (tmp_path / "spec.toml").write_text(f'[data]\nname = "digits"\ntest_images = 6\nvalid = 4\n{SPEC}{more}')
    network = ("--model", "same_nets:build")
    words = {
        "eval": network,
        "quantize": (*network, "-o", "q"),
        "blame": (*network, "--set", "quant.rules=[{match='re:stages.*', weights='float'}]", "--set",
                  "quant.first_layer='quantize'"),
        "allocate": (*network, "--bits", "2", "--weight-kib", "99"),
        "train": ("-o", "t"),
    }  # fmt: skip
    named = ("--data", "cifar10", "--root", "there", "--device", "cpu")
    done = run(command, "-c", "spec.toml", *words[command], *named)
    assert done.code == 0, done.err
    assert "--data cifar10 is used in place of data.name = 'digits' (spec.toml)" in caplog.text
    assert {(name, root) for name, _, root, _, _ in here} == {("cifar10", "there")}


def test_a_sweep_takes_the_same_options(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        'name = "g"\n[data]\nname = "digits"\ntest_images = 6\n[[baselines]]\nname = "b"\npretrained = '
        '"sew_resnet8-cifar10"\n[[cells]]\nweights = {method = "lsq"}\nbits = [2]\nmode = ["ptq"]\n'
    )
    found = read_sweep(tmp_path / "grid.toml", data={"name": "cifar10", "root": "there"}).data
    assert (found.name, found.root, found.test_images) == ("cifar10", "there", 6)
    (given,) = read_sweep(tmp_path / "grid.toml", baseline="sew_resnet8-cifar10").baselines
    assert (given.pretrained, given.file) == ("sew_resnet8-cifar10", None)
    with pytest.raises(SpecError, match=r"that returns isofire\.nir\.read"):
        read_sweep(tmp_path / "grid.toml", baseline="own.nir")


def test_code_that_a_file_names_is_not_run_where_an_option_stands_in(
    here: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "spec.toml").write_text(f'[data]\nname = "nowhere_at_all:load"\n{SPEC}')
    words = ("quantize", "--model", "same_nets:build", "-c", "spec.toml", "-o", "q", "--device", "cpu")
    assert "--allow-code" in run(*words).err
    assert run(*words, "--data", "same_nets:images").code == 0


def test_keep_firing_without_a_configuration_file(run: Callable[..., Any], cifar10_root: Path, tmp_path: Path) -> None:
    few = ("--set", "data.test_images=40", "--set", "calibration.images=16", "--set", "quant.weights.sweeps=0")
    done = run(
        "quantize", "sew_resnet8-cifar10", "--preset", "keep-firing", "--data", "cifar10", "--root", cifar10_root,
        *few, "-o", "q", "--json", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    row = json.loads(done.out)["row"]
    assert (row["data"], row["bits"], row["n_images"]) == ("cifar10", "4 | 2", 40)
    told = run("eval", "q/model.safetensors", "--data", "cifar10", "--root", cifar10_root, "--n", 40, "--json")
    assert json.loads(told.out)["accuracy"] == row["accuracy"]
