"""`isofire check`: exit status, JSON and JUnit."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from isofire import QuantSpec, data, quantize_
from isofire.models import build, save_model


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A network of chance weights that fires, and its quantized form."""
    torch.manual_seed(0)
    images, labels = next(iter(data.load("digits", "train").batches(128)))
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
    for _ in range(20):
        model.train()(images)
    spec = QuantSpec(
        weights={"method": "lsq", "bits": 3}, membrane={"bits": 3, "range": [-1, 1]}, reestimate_bn="never"
    )
    quantized = quantize_(copy.deepcopy(model), spec, (images, labels))
    folder = tmp_path_factory.mktemp("files")
    first, second = folder / "fp.safetensors", folder / "q.safetensors"
    save_model(first, model.eval())
    save_model(second, quantized)
    return first, second


def test_it_guards_a_pipeline(run, files):
    images = ("--data", "digits", "--n", "200", "--device", "cpu")
    holds = run("check", *files, *images, "--max-state-bytes", 1e9, "--max-accuracy-drop", 1)
    assert (holds.code, holds.out.startswith("holds, n = 200 images")) == (0, True), holds.err
    fails = run("check", *files, *images, "--max-state-bytes", 1, "--junit", "check.xml", "--json")
    document = json.loads(fails.out)
    assert (fails.code, document["outcome"], document["findings"][0]["name"]) == (1, "fails", "state_bytes")
    suite = ElementTree.parse("check.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    assert "at most 1" in suite.find("testcase/failure").get("message")
    # its own accuracy drop as the limit lies within any interval
    drop = document["row"]["accuracy_fp"] - document["row"]["accuracy"]
    undecided = run("check", *files, *images, "--max-accuracy-drop", drop, "--junit", "u.xml")
    assert undecided.code == 3, undecided.out
    assert ElementTree.parse("u.xml").getroot().get("errors") == "1"
    # a network against itself drifts by nothing
    same = run("check", files[0], files[0], *images, "--max-drift", 1, "--max-synops", 1)
    assert same.code == 0, same.out


def test_mistakes_exit_with_2(run, files):
    file = files[0]
    none = run("check", file, file, "--data", "digits", "--n", "50")
    assert (none.code, "at least one limit" in none.err) == (2, True)
    assert run("check", file, Path("nowhere"), "--data", "digits", "--max-drift", 1).code == 2
