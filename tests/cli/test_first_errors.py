"""The errors of the first minutes: each names what is wrong, where, and a cure; and the cure is tried."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import isofire
from isofire.errors import ModelError, SpecError
from isofire.models.user_code import save_named

CODE = """
import torch
from isofire.data import load as of_package
from isofire.neurons import LIF, PerStep, Repeat
from torch import nn
from torch.utils.data import TensorDataset

def build():
    torch.manual_seed(0)
    layers = PerStep(nn.Flatten(), nn.Linear(64, 8)), LIF(v_threshold=0.3), PerStep(nn.Linear(8, 10))
    return nn.Sequential(Repeat(2), *layers)

def needs(T):
    return build()

def load(split):
    data = of_package("digits", split).first(40)
    return data.normalize(data.images), data.labels

def images(split):
    return load(split)[0]

def samples(split):
    return list(TensorDataset(*load(split)))

def dataset(split):
    return TensorDataset(*load(split))

def arrays(split):
    return tuple(part.numpy() for part in load(split))

def tensors_of_arrays(split):
    inputs, labels = arrays(split)
    return torch.from_numpy(inputs), torch.from_numpy(labels).long()

def lists(split):
    return tuple(part.tolist() for part in load(split))

def onehot(split):
    inputs, labels = load(split)
    return inputs, nn.functional.one_hot(labels)

def fewer(split):
    inputs, labels = load(split)
    return inputs, labels[:-3]

def three(split):
    return (*load(split), 3)

def without():
    return load("test")
"""
MODEL = ("--model", "first_nets:build", "--weights", "w.safetensors")
DATA = ("--data", "first_nets:load")


@pytest.fixture
def here(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    (tmp_path / "first_nets.py").write_text(CODE)
    (tmp_path / "first_folder").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("first_nets", None)
    import first_nets  # pyright: ignore[reportMissingImports]

    model = first_nets.build()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    save_named(tmp_path / "named.safetensors", model, "first_nets:build", {})
    yield run
    sys.modules.pop("first_nets", None)


@pytest.mark.parametrize(("given", "message"), [
    (("cost", *MODEL, "--data", "first_nets"), "no data set is called 'first_nets'; known are digits"),
    (("cost", *MODEL, "--data", "first_nets"), "package.module:function, such as first_nets:load"),
    (("cost", *MODEL, "--data", "cifar11"), "did you mean 'cifar10'?"),
    (("cost", *MODEL), "or --data package.module:loader, a function of yours"),
    (("cost", "--model", "first_nets:bild", *DATA), "no function 'bild'; did you mean first_nets:build?"),
    (("cost", "--model", "first_nets.py:build", *DATA), "did you mean first_nets:build?"),
    (("cost", "--model", "here/first_nets.py:build", *DATA), "did you mean first_nets:build, started from the folder"),
    (("cost", "--model", "first_nets.build", *DATA), "did you mean first_nets:build?"),
    (("cost", "--model", "first_nets:needs", *DATA), "it is called without arguments: give them defaults"),
    (("cost", *MODEL, "--data", "first_nets:without"), "it is called with the split, as in def load(split)"),
    (("cost", *MODEL, "--data", "first_nets:images"), "got Tensor; give the labels too, (inputs, labels)"),
    (("cost", *MODEL, "--data", "first_nets:three"), "(inputs, labels), got (Tensor, Tensor, int); return two of them"),
    (("cost", "--model", "first_folder:build", *DATA), "first_folder, which has no __init__.py"),
    (("cost", *MODEL, "--data", "first_nets:samples"), "batch 0 of what the loader first_nets:samples gives"),
    (("cost", *MODEL, "--data", "first_nets:samples"), "that is a single sample: give them stacked"),
    (("cost", *MODEL, "--data", "first_nets:arrays"), "got (ndarray, ndarray); make tensors of arrays"),
    (("cost", *MODEL, "--data", "first_nets:lists"), "got (list, list); make it (torch.as_tensor(inputs)"),
    (("cost", *MODEL, "--data", "first_nets:onehot"), "the loader first_nets:onehot gives for 'test' must hold"),
    (("cost", *MODEL, "--data", "first_nets:onehot"), "give labels.argmax(1)"),
    (("cost", *MODEL, "--data", "first_nets:fewer"), "37 labels need as many inputs"),
    (("cost", "w.safetensors", *DATA), "name their network too: --model package.module:builder"),
    (("compare", "w.safetensors", "w.safetensors", *DATA), "name their network too: --model"),
    (("cost", "named.safetensors", *DATA), "name what builds their network, --model first_nets:build"),
    (("cost", *MODEL[:2], "--weights", "no.safetensors", *DATA), "make it with isofire train or quantize, or name"),
    (("sweep", "w.safetensors", "--out", "s"), "that is a network, which goes elsewhere"),
    (("report", "nowhere"), "there is no folder nowhere; name what isofire sweep --out wrote"),
    (("quantize", *MODEL, *DATA, "-o", "q"), "or --set alone, such as --set quant.weights.method=uniform"),
    (("quantize", *MODEL, *DATA, "-o", "q", "--set", "quant.membrane={bits=2, range='min-max'}"),
     "did you mean 'minmax'?"),
    (("quantize", *MODEL, *DATA, "-o", "q", "--set", "quant.membrane={bits=2, placement='prefire'}"),
     "did you mean 'pre_fire'?"),
])  # fmt: skip
def test_each_names_its_cure(here: Callable[..., Any], given: tuple[str, ...], message: str) -> None:
    done = here(*given)
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize("given", [
    ("cost", *MODEL, *DATA),
    ("cost", *MODEL, "--data", "first_nets:dataset"),
    ("cost", *MODEL, "--data", "first_nets:tensors_of_arrays"),
    ("cost", "w.safetensors", *MODEL[:2], *DATA),
    ("cost", "named.safetensors", *MODEL[:2], *DATA),
    ("quantize", *MODEL, *DATA, "-o", "q", "--set", "quant.weights.method=uniform", "--set", "quant.weights.bits=4",
     "--set", "quant.first_layer=quantize"),
])  # fmt: skip
def test_the_cures_work(here: Callable[..., Any], given: tuple[str, ...]) -> None:
    done = here(*given)
    assert done.code == 0, done.err


def test_a_missing_device_is_called_as_it_was_given(here: Callable[..., Any], monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    done = here("cost", *MODEL, *DATA, "--device", "cuda")
    assert "device 'cuda' (cuda:0) does not exist, torch finds no CUDA device here; leave it out" in done.err


def test_a_file_of_a_run_that_was_cut_off_is_told_as_one(here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "log.txt").write_text("quantizing\n")
    done = here("cost", "q/model.safetensors", *MODEL[:2], *DATA)
    assert "the run in that folder has not come to its end: give its command again" in " ".join(done.err.split())


def test_a_setting_of_a_sweep_is_told_with_its_file(here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        'name = "a"\n[data]\nname = "digits"\n[[baselines]]\nname = "n"\n[[cells]]\nmode = ["ptq"]\nbits = [2]\n'
        'weights = { method = "gtpq" }\n'
    )
    done = here("sweep", "grid.toml", *MODEL, *DATA, "--out", "s")
    told = " ".join(done.err.split())
    assert "unknown weight method 'gtpq'; did you mean 'gptq'?" in told
    assert "cells[0]" in told
    assert "(grid.toml)" in told


def test_steps_of_spikingjelly_are_named_where_its_layers_take_single_ones() -> None:
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from isofire.neurons import Repeat

    net = torch.nn.Sequential(Repeat(4), layer.Conv2d(1, 2, 3), neuron.LIFNode(), layer.Flatten(), layer.Linear(72, 3))
    data = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    with pytest.raises(ModelError, match=r"layer '1' takes single steps.*set_step_mode\(net, 'm'\) in the builder"):
        isofire.compare(net, net, data)
    functional.set_step_mode(net, "m")
    assert isofire.compare(net, net, data).n_images == 6


def test_a_set_of_settings_alone_is_not_enough_where_it_says_nothing_of_quantizing(here: Callable[..., Any]) -> None:
    done = here("quantize", *MODEL, *DATA, "-o", "q", "--set", "seed=3")
    assert (done.code, "--preset keep-firing" in done.err) == (2, True)
    with pytest.raises(SpecError, match="did you mean"):
        isofire.QuantSpec(membrane={"bits": 4, "range": "min-max"})
