"""`isofire export`: a NIR file that gives the network back, or none."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from isofire import QuantSpec, data, nir, quantize_
from isofire.models import build, open_model, save_model

TEST = data.load("digits", "test").first(64)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Networks of chance weights that fire: full precision, quantized, and one whose blocks multiply."""
    folder = tmp_path_factory.mktemp("files")
    images, labels = next(iter(data.load("digits", "train").batches(128)))
    found = {}
    for connect in ("add", "iand"):
        torch.manual_seed(0)
        model = build({"builder": "sew_resnet8", "width": 0.25, "T": 3, "in_channels": 1, "connect": connect})
        for _ in range(20):
            model.train()(images)
        found[connect] = save_model(folder / f"{connect}.safetensors", model.eval())
        if connect == "add":
            membrane = {"bits": 4, "range": [-1, 1], "placement": "post_reset"}
            spec = QuantSpec(weights={"method": "lsq", "bits": 3}, membrane=membrane, reestimate_bn="never")
            quantized = quantize_(copy.deepcopy(model), spec, (images, labels))
            found["quantized"] = save_model(folder / "quantized.safetensors", quantized)
    return found


@pytest.mark.parametrize("name", ["add", "quantized"])
def test_what_is_read_back_computes_the_same(run, files, name: str) -> None:
    done = run("export", files[name], "--data", "digits", "--out", "net.nir", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["quantized"] is (name == "quantized")
    assert document["bytes"] == Path("net.nir").stat().st_size
    model, again = open_model(files[name])[0], nir.read("net.nir")
    inputs, _ = next(iter(TEST.batches(64)))
    # batch norm and neuron in one kernel round otherwise than one after the other, but for ties that flips no spike
    with torch.no_grad():
        before, after = model(inputs), again(inputs)
    assert before.abs().max() > 0
    assert (before - after).abs().gt(1e-4).flatten(2).any(2).any(0).float().mean() <= 1 / 64


@pytest.mark.parametrize("to", ["nir", "onnx"])
@pytest.mark.parametrize("option", ["--weight-bits", "--input-bits"])
def test_bits_that_a_format_would_leave_aside_are_refused(run, files, to: str, option: str) -> None:
    done = run("export", files["add"], "--data", "digits", "--to", to, option, "8", "--out", "net.out")
    assert (done.code, f"{option} 8 is of --to bundle and c, and --to {to} writes" in done.err) == (2, True), done.err
    assert not Path("net.out").exists()


def test_a_network_that_nir_has_no_words_for_leaves_no_file(run, files) -> None:
    done = run("export", files["iand"], "--data", "digits", "--out", "net.nir")
    assert (done.code, "NIR only adds" in done.err) == (2, True), done.err
    assert not Path("net.nir").exists()


def test_other_images_than_the_network_takes_are_told(run, files) -> None:
    Path("wrong.py").write_text(
        "import torch\nfrom torch import nn\nfrom isofire.neurons import LIF, PerStep, Repeat\n"
        "def build():\n    return nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.Linear(9, 10)), LIF())\n"
        "def load(split):\n    return torch.rand(8, 3, 8, 8), torch.zeros(8, dtype=torch.long)\n"
    )
    done = run("export", files["add"], "--data", "wrong:load", "--out", "net.nir")
    assert (done.code, "images of 1 channels" in done.err) == (2, True), done.err
    done = run("export", "--model", "wrong:build", "--data", "wrong:load", "--out", "net.nir")
    assert (done.code, "does not take inputs of shape (2, 3, 8, 8)" in done.err) == (2, True), done.err
    assert not Path("net.nir").exists()


def test_the_network_itself_is_not_overwritten(run, files) -> None:
    before = files["add"].read_bytes()
    done = run("export", files["add"], "--data", "digits", "--out", files["add"])
    assert (done.code, "which would be replaced" in done.err) == (2, True)
    assert files["add"].read_bytes() == before


def test_without_the_package_nir_its_extra_is_named(run, files, monkeypatch) -> None:
    import builtins

    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "isofire" and "nir" in (rest[2] if len(rest) > 2 else more.get("fromlist") or ()):
            raise ImportError("No module named 'nir'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    done = run("export", files["add"], "--data", "digits", "--out", "net.nir")
    assert (done.code, "isofire[nir]" in done.err) == (2, True)


def test_a_network_of_the_users_own_code(run) -> None:
    Path("nets.py").write_text(
        "import torch\nfrom torch import nn\nfrom isofire.neurons import LIF, PerStep, Repeat\n"
        "def build():\n    return nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.Linear(64, 10)), LIF())\n"
        "def strange():\n    return nn.Sequential(nn.Flatten(), nn.Softmax(-1))\n"
        "def load(split):\n    return torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)\n"
    )
    done = run("export", "--model", "nets:build", "--data", "nets:load", "--out", "own.nir")
    assert done.code == 0, done.err
    assert nir.read("own.nir")(torch.rand(3, 1, 8, 8)).shape == (2, 3, 10)
    done = run("export", "--model", "nets:strange", "--data", "nets:load", "--out", "strange.nir")
    assert (done.code, Path("strange.nir").exists()) == (2, False), done.err


@pytest.mark.parametrize("to", ["bundle", "c"])
def test_integers_are_written_with_what_differs(run, files, to: str) -> None:
    done = run("export", files["quantized"], "--to", to, "--data", "digits", "--out", "net", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["format"], document["images"], document["layers"]) == (to, 16, 9)
    assert sum(document["differing"].values()) <= 5
    assert {path.name for path in Path("net").iterdir()} >= (
        {"manifest.json"} if to == "bundle" else {"network.c", "network.h", "network_test.c"}
    )
    again = run("export", files["quantized"], "--to", to, "--data", "digits", "--out", "net")
    assert ("./check" in run("export", files["quantized"], "--to", to, "--data", "digits", "--out", "b").out) is (
        to == "c"
    )
    assert (again.code, "is there already" in again.err) == (2, True), again.err


def test_a_bundle_becomes_the_c_program_that_its_network_becomes(run, files) -> None:
    given = ("--data", "digits")
    for to, out in (("bundle", "codes"), ("c", "net")):
        assert run("export", files["quantized"], "--to", to, *given, "--out", out).code == 0
    for out, options in (("again", ()), ("of-data", given)):
        done = run("export", "codes", "--to", "c", *options, "--out", out)
        assert (done.code, "./check" in done.out) == (0, True), done.err
        for name in ("network.h", "network.c", "network_test.c"):
            assert (Path(out) / name).read_bytes() == (Path("net") / name).read_bytes()
    assert run("export", "codes", "--to", "c", "--data", "none", "--out", "other").code == 2
    for options in (("--to", "nir"), ("--to", "onnx"), ("--to", "bundle"), ("--to", "c", "--weight-bits", "4")):
        done = run("export", "codes", *options, *given, "--out", "other")
        assert done.code == 2
        assert "codes is a bundle of integers" in done.err
        assert "name the network that it was lowered from" in " ".join(done.err.split())
        assert not Path("other").exists()


def test_a_network_without_integers_leaves_no_folder(run, files) -> None:
    done = run("export", files["iand"], "--to", "c", "--data", "digits", "--out", "net")
    assert (done.code, "joins by 'iand'" in done.err) == (2, True), done.err
    assert not Path("net").exists()


def test_an_onnx_file_is_run_and_compared(run, files) -> None:
    pytest.importorskip("onnxruntime")
    done = run("export", files["quantized"], "--to", "onnx", "--data", "digits", "--out", "net.onnx", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["bytes"] == Path("net.onnx").stat().st_size
    assert (document["images"], sum(document["differing"].values())) == (16, 0)
    assert document["logits_error"] <= 1e-5
    assert "int4" in document["codes"].values()
