"""Networks and data of the user's own code, by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

CODE = """
import isofire, torch
from isofire.neurons import LIF, PerStep, Repeat
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(Repeat(3), PerStep(nn.Conv2d(1, 4, 3)), LIF(v_threshold=0.3),
                         PerStep(nn.Flatten(), nn.Linear(144, 10)))

def wrong():
    raise ValueError("no such width")

def leaves():
    raise SystemExit(0)

def no_module():
    return 3

def load(split):
    return next(iter(isofire.data.load("digits", split).batches(60)))

def load_set(split):
    return isofire.data.load("digits", split).first(90)

def stream(split):
    return iter([load(split)])

def broken(split):
    raise OSError("the disk is away")
"""
SPEC = "[quant]\nfirst_layer = 'quantize'\n[quant.weights]\nmethod = 'lsq'\nbits = 3\n[quant.membrane]\nbits = 3\n"


@pytest.fixture
def nets(run: Any, tmp_path: Path) -> Iterator[Any]:
    """A folder with a module, weights and a spec, as a user has them."""
    (tmp_path / "own_nets.py").write_text(CODE)
    (tmp_path / "spec.toml").write_text(SPEC)
    paths = list(sys.path)
    sys.modules.pop("own_nets", None)
    sys.path.insert(0, str(tmp_path))
    import importlib

    nets = importlib.import_module("own_nets")
    model = nets.build()
    with torch.no_grad():
        model[1][0].weight.mul_(1.5)
    save_file(model.state_dict(), tmp_path / "fp.safetensors")
    yield nets
    sys.path[:] = paths
    sys.modules.pop("own_nets", None)


OWN = ("--model", "own_nets:build", "--weights", "fp.safetensors", "--data", "own_nets:load")


def test_quantize_compare_eval_and_explain(nets: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("quantize", *OWN, "-c", "spec.toml", "--out", "q", "--json")
    assert done.code == 0, done.err
    first = json.loads(done.out)
    assert first["row"]["bits"] == 3
    assert first["overall"]["emd_layer_mean"] > 0
    again = run("compare", "q/model.safetensors", *OWN, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["overall"] == first["overall"]
    two = run("compare", "fp.safetensors", "q/model.safetensors", *OWN[:2], *OWN[4:], "--n", "60", "--json")
    assert json.loads(two.out)["overall"] == first["overall"]
    for file, key in (("fp.safetensors", "accuracy_fp"), ("q/model.safetensors", "accuracy")):
        told = run("eval", file, *OWN[:2], *OWN[4:], "--json")
        assert json.loads(told.out)["accuracy"] == first["overall"][key]
    plan = run("explain", "q/model.safetensors", *OWN[:2])
    assert "lsq" in plan.out
    assert plan.out == run("explain", *OWN[:2], "-c", "spec.toml").out


def test_check_gives_a_verdict(nets: Any, run: Callable[..., Any]) -> None:
    first = json.loads(run("quantize", *OWN, "-c", "spec.toml", "--out", "q", "--json").out)["overall"]
    limits = ("--max-drift", "1000", "--max-state-bytes", "1")
    done = run("check", "q/model.safetensors", *OWN, *limits, "--junit", "check.xml", "--json")
    assert done.code == 1, done.err
    found = json.loads(done.out)
    assert [(item["name"], item["outcome"]) for item in found["findings"]] == [
        ("drift", "keeps"),
        ("state_bytes", "fails"),
    ]
    # 144 membranes of 3 bits
    assert found["findings"][1]["value"] == 144 * 3 / 8
    assert found["row"]["emd_layer_mean"] == first["emd_layer_mean"]
    assert Path("check.xml").is_file()
    assert run("check", "q/model.safetensors", *OWN, "--max-state-bytes", "54").code == 0
    # another network of the builder as the floor; the baseline itself leaves nothing to hold drift against
    builder = (*OWN[:2], *OWN[4:])
    pair = ("fp.safetensors", "q/model.safetensors", *builder, "--max-drift", "1000")
    control = run("check", *pair, "--control", "fp.safetensors")
    assert control.code == 3, control.err
    assert "its floor is 0" in control.out
    other = run("check", *pair, "--control", "q/model.safetensors")
    assert (other.code, "q/model.safetensors is quantized" in other.err) == (2, True)
    # without --weights the baseline is what the builder gives
    fresh = run("check", "q/model.safetensors", *builder, "--max-accuracy-drop", "0.99", "--max-state-bytes", "54")
    # nobody trained it, which leaves what it is compared with undecided
    assert (fresh.code, "baseline: not above chance" in fresh.out) == (3, True), fresh.err


@pytest.mark.parametrize("command", [("eval",), ("check", "fp.safetensors", "--max-state-bytes", "1")])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "own_nets:leaves"), "the builder own_nets:leaves failed: SystemExit: 0"),
        (("--model", "own_nets:wrong"), "the builder own_nets:wrong failed: ValueError: no such width"),
        (("--model", "own_nets:no_module"), "must return a torch.nn.Module, got int"),
        (("--model", "own_nets:absent"), "own_nets has no function 'absent'"),
        (("--model", "nowhere_at_all:build"), "cannot import nowhere_at_all"),
        (("--model", "own_nets"), "takes package.module:function, got 'own_nets'"),
        (("--weights", "fp.pt"), "no checkpoint at fp.pt"),
        (("--weights", "absent.safetensors"), "no checkpoint at absent.safetensors"),
        (("--weights", "odd.safetensors"), r"missing there: 1.0.bias; surplus there: extra; 1.0.weight is float32 [2]"),
        (("--data", "own_nets:broken"), "failed for split 'test': OSError: the disk is away"),
        (("--data", "own_nets:stream"), "of an iterator give list(...)"),
    ],
)
def test_mistakes_are_told(
    nets: Any,
    run: Callable[..., Any],
    tmp_path: Path,
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    state = nets.build().state_dict() | {"extra": torch.zeros(1), "1.0.weight": torch.zeros(2)}
    del state["1.0.bias"]
    save_file(state, tmp_path / "odd.safetensors")
    options = dict(zip(OWN[::2], OWN[1::2], strict=True)) | dict([arguments])
    done = run(*command, *(word for pair in options.items() for word in pair))
    assert done.code == 2
    assert message in " ".join(done.err.replace("\n", " ").split()), done.err


@pytest.mark.parametrize(
    "words",
    [
        ("doctor", "fp.safetensors", "--baseline", "PRETRAINED", "--data", "own_nets:load"),
        ("doctor", "PRETRAINED"),
        ("compare", "PRETRAINED", "fp.safetensors", "--data", "own_nets:load"),
        ("check", "PRETRAINED", "--data", "own_nets:load", "--max-state-bytes", "1"),
        ("check", "fp.safetensors", "--seed-model", "PRETRAINED", "--data", "own_nets:load", "--max", "emd_max=2x"),
        ("eval", "--weights", "PRETRAINED", "--data", "own_nets:load"),
        ("cost", "PRETRAINED", "--data", "own_nets:load"),
        ("quantize", "--weights", "PRETRAINED", "--data", "own_nets:load", "-c", "spec.toml", "--out", "q"),
        ("blame", "--weights", "PRETRAINED", "--data", "own_nets:load", "-c", "spec.toml"),
        ("allocate", "--weights", "PRETRAINED", "--data", "own_nets:load", "-c", "spec.toml", "--total-kib", "9"),
        ("sweep", "sweep.toml", "--weights", "PRETRAINED", "--out", "s"),
    ],
    ids=lambda words: f"{words[0]} {words[1]}",
)
def test_a_pretrained_network_is_no_weights_for_a_builder(
    nets: Any, run: Callable[..., Any], tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "sweep.toml").write_text(
        'name = "own"\n[data]\nname = "digits"\n[[baselines]]\nname = "a"\npretrained = "sew_resnet8-digits"\n'
        '[[cells]]\nbits = [2]\nweights = { method = "lsq" }\n'
    )
    given = [word.replace("PRETRAINED", "sew_resnet8-digits") for word in words]
    done = run(*given, "--model", "own_nets:build")
    assert done.code == 2
    told = (
        "sew_resnet8-digits is a pretrained network, not weights for own_nets:build, and there is no file of that name"
    )
    assert told in " ".join(done.err.split()), done.err
    assert not {"q", "s"} & {path.name for path in tmp_path.iterdir()}


def test_a_file_that_has_a_pretrained_name_is_taken(nets: Any, run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "fp.safetensors").rename(tmp_path / "sew_resnet8-digits")
    words = ("--model", "own_nets:build", "--weights", "sew_resnet8-digits", "--data", "own_nets:load")
    assert run("eval", *words).code == 0


def test_a_builder_of_another_network_than_the_quantized_one(
    nets: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    assert run("quantize", *OWN, "-c", "spec.toml", "--out", "q").code == 0
    other = CODE.replace("nn.Conv2d(1, 4, 3)", "nn.Conv2d(1, 4, 3), nn.Dropout()").replace(
        "nn.Linear(144", "nn.Linear(144"
    )
    (tmp_path / "other_nets.py").write_text(
        other.replace("PerStep(nn.Flatten()", "PerStep(nn.Identity(), nn.Flatten()")
    )
    done = run("eval", "q/model.safetensors", "--model", "other_nets:build", "--data", "own_nets:load")
    sys.modules.pop("other_nets", None)
    assert done.code == 2
    text = " ".join(done.err.split())
    assert "missing there: 3.2.bias" in text
    assert "surplus there: 3.1.bias" in text
    assert run("quantize", *OWN[:2], "--weights", "q/model.safetensors", *OWN[4:], "-c", "spec.toml").code == 2
    assert run("eval", "--weights", "fp.safetensors", "--data", "digits").code == 2


TRAINED = SPEC + "[qat]\nepochs = 1\nlr = 0.01\nbatch_size = 30\nwarmup_epochs = 0.0\n"
SET = (*OWN[:4], "--data", "own_nets:load_set")


def test_a_network_of_ones_own_is_trained_with_its_quantizers_and_taught_by_itself(
    nets: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "qat.toml").write_text(TRAINED + "[qat.losses]\npaired = 1.0\n")
    done = run("quantize", *SET, "-c", "qat.toml", "--mode", "qat", "--out", "q", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    row = json.loads(done.out)["row"]
    assert (row["mode"], row["epochs"], row["bits"]) == ("qat", 1, 3)
    assert (row["model"], row["data"]) == ("own_nets:build", "own_nets:load_set")
    assert row["options"].endswith("paired=1")
    again = run("compare", "q/model.safetensors", *SET, "--json")
    assert json.loads(again.out)["overall"] == json.loads(done.out)["overall"]
    held = run("quantize", *SET, "-c", "qat.toml", "--set", "data={name='own_nets:load_set', valid=30}",
               "--allow-code", "--split", "valid", "--out", "v", "--json", "--device", "cpu")  # fmt: skip
    assert held.code == 0, held.err
    assert json.loads(held.out)["row"]["n_images"] == 30


@pytest.mark.parametrize(("mode", "epochs"), [("ptq", 0), ("qat", 1)])
def test_the_control_of_a_network_of_ones_own(
    nets: Any, run: Callable[..., Any], tmp_path: Path, mode: str, epochs: int
) -> None:
    (tmp_path / "qat.toml").write_text("".join(TRAINED.partition("[qat]")[1:]))
    done = run("quantize", *SET, "-c", "qat.toml", "-m", mode, "--control", "--out", "c", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    row = json.loads(done.out)["row"]
    assert (row["target"], row["bits"], row["epochs"]) == ("none", 32, epochs)
    limits = ("--control", "c/model.safetensors", "--max-drift", "1000")
    if mode == "qat":
        assert row["emd_layer_mean"] > 0
        assert run("quantize", *SET, "-c", str(_spec(tmp_path)), "--out", "q").code == 0
        pair = ("fp.safetensors", "q/model.safetensors", *SET[:2], *SET[4:])
        assert "control c/model.safetensors" in run("check", *pair, *limits).out
    else:
        # without a batch norm there is nothing to re-estimate
        assert row["emd_layer_mean"] == 0


def _spec(folder: Path) -> Path:
    (folder / "spec.toml").write_text(SPEC)
    return folder / "spec.toml"


def test_a_pair_of_tensors_is_trained_on_and_an_iterator_is_not(
    nets: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "qat.toml").write_text(TRAINED)
    done = run("quantize", *OWN, "-c", "qat.toml", "--mode", "qat", "--out", "q", "--json")
    assert done.code == 0, done.err
    row = json.loads(done.out)["row"]
    assert (row["data"], row["epochs"], row["n_images"]) == ("own_nets:load", 1, 60)
    stream = run("quantize", *OWN[:4], "--data", "own_nets:stream", "-c", "qat.toml", "--mode", "qat", "--out", "s")
    assert stream.code == 2
    assert "own_nets:stream gives for 'train'" in " ".join(stream.err.split())
    assert "of an iterator give list(...)" in " ".join(stream.err.split())
    twice = run("quantize", "fp.safetensors", *OWN, "-c", "qat.toml")
    assert (twice.code, "--model takes its file by --weights" in twice.err) == (2, True)


def test_a_builder_that_draws_its_weights_is_told_as_untrained(
    nets: Any, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Not one that loads them, gives the same each time, or is meant to be fresh."""
    Path("drawn_nets.py").write_text(
        "import torch\nfrom own_nets import build as same\nfrom safetensors.torch import load_file\n"
        "def draws():\n    model = same()\n    torch.seed()\n"
        "    torch.nn.init.normal_(model[1][0].weight)\n    return model\n"
        "def loads():\n    model = draws()\n    model.load_state_dict(load_file('fp.safetensors'))\n    return model\n"
    )
    told = {}
    for builder in ("own_nets:build", "drawn_nets:draws", "drawn_nets:loads"):
        caplog.clear()
        done = run("eval", "--model", builder, *OWN[4:])
        assert done.code == 0, done.err
        told[builder] = caplog.text
    assert "draws its weights anew in each call (1.0.weight)" in told["drawn_nets:draws"]
    assert "--weights FILE.safetensors" in told["drawn_nets:draws"]
    assert {told["own_nets:build"], told["drawn_nets:loads"]} == {""}
    caplog.clear()
    filled = run("eval", "--model", "drawn_nets:draws", *OWN[2:])
    assert (filled.code, caplog.text) == (0, "")


def test_a_builder_other_than_the_one_that_a_file_names_is_told(
    nets: Any, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Layers of the same names and sizes may be called in another way."""
    assert run("quantize", *OWN, "-c", "spec.toml", "--out", "q").code == 0
    Path("same_nets.py").write_text("from own_nets import build\n")
    for builder, told in (("own_nets:build", False), ("same_nets:build", True)):
        caplog.clear()
        done = run("eval", "q/model.safetensors", "--model", builder, "--data", "own_nets:load")
        assert done.code == 0, done.err
        assert ("was written for own_nets:build and fills same_nets:build" in caplog.text) == told
    sys.modules.pop("same_nets", None)
