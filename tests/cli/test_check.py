"""`isofire check`: exit status, JSON and JUnit."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml

from isofire import QuantSpec, data, quantize_
from isofire.models import build, load_model, save_model
from isofire.training import Recipe, train


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A network that was trained a little, and its quantized form."""
    train_set = data.load("digits", "train")
    images, labels = next(iter(train_set.batches(128)))
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
    train(model, train_set, None, Recipe(epochs=2, lr=0.1, batch_size=32, warmup_epochs=0))
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
    kept = run("check", *files, *images, "--max-state-bytes", 1e9, "--max-accuracy-drop", 0.99)
    assert (kept.code, kept.out.startswith("keeps, n = 200 images")) == (0, True), kept.err
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


def test_a_check_without_a_verdict_leaves_no_old_one(run, files, tmp_path):
    images, report = ("--data", "digits", "--n", "50", "--device", "cpu"), tmp_path / "check.xml"
    assert run("check", *files, *images, "--max-state-bytes", 1e9, "--junit", report).code == 0
    assert ElementTree.parse(report).getroot().get("errors") == "0"
    assert run("check", files[0], tmp_path / "nowhere", *images, "--max-drift", 1, "--junit", report).code == 2
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("errors"), suite.find("testcase/error").get("message")) == ("1", "none")
    assert run("check", *files, *images, "--max-state-bytes", 1e9, "--junit", report).code == 0
    assert run("check", *files, *images, "--junit", report).code == 2
    assert ElementTree.parse(report).getroot().get("errors") == "1"
    control = save_model(tmp_path / "control.safetensors", load_model(files[0])[0])
    for wrong in (tmp_path, files[0], files[0].parent / ".." / files[0].parent.name / files[0].name, control):
        asked = ("--max-drift", 1, "--control", control, "--junit", wrong)
        assert run("check", *files, *images, *asked).code == 2
    assert load_model(control)[0] is not None
    assert load_model(files[0])[0] is not None


def test_mistakes_exit_with_2(run, files):
    file = files[0]
    none = run("check", file, file, "--data", "digits", "--n", "50")
    assert (none.code, "at least one limit, of --max-accuracy-drop 0.01" in " ".join(none.err.split())) == (2, True)
    assert run("check", file, Path("nowhere"), "--data", "digits", "--max-drift", 1).code == 2


def test_the_workflow_of_the_documents_runs(run, files, tmp_path):
    """Its own command line in a shell as GitHub starts it, on data that need no download."""
    page = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    steps = yaml.safe_load(found[1])["jobs"]["check"]["steps"]
    (command,) = (step["run"] for step in steps if "isofire check" in step.get("run", ""))
    command = command.replace("cifar10 --download --n 2000", "digits --n 200")
    assert "digits" in command
    (tmp_path / "models").mkdir()
    for name, file in (("fp", files[0]), ("w4m4", files[1])):
        shutil.copy(file, tmp_path / "models" / f"{name}.safetensors")
    control, _ = load_model(files[0])
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.mul_(1.05)
    save_model(tmp_path / "models" / "continued.safetensors", control)

    def shell(line: str) -> int:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        (tmp_path / "firing.xml").unlink(missing_ok=True)
        done = subprocess.run(["bash", "-e", "-c", line], cwd=tmp_path, env={**os.environ, "PATH": path}, check=False)
        assert (tmp_path / "firing.xml").exists()
        return done.returncode

    paths = (tmp_path / "models" / f"{name}.safetensors" for name in ("fp", "w4m4", "continued"))
    first, second, beside = map(str, paths)
    asked = ("--data", "digits", "--n", "200", "--max-drift", "1", "--control", beside, "--json")
    (drift,) = json.loads(run("check", first, second, *asked).out)["findings"]
    loose = command.replace("--max-accuracy-drop 0.01", "--max-accuracy-drop 0.99").replace("--max-synops 1.1", "")
    loose = loose.replace("--max-drift 10", f"--max-drift {2 * drift['high']}")
    assert shell(loose) == 0
    assert shell(loose.replace("200000", "1")) == 1
    # its own drift as the limit is undecided, which the documents show how to let pass
    undecided = loose.replace(f"--max-drift {2 * drift['high']}", f"--max-drift {drift['value']}")
    assert shell(undecided) == 3
    assert "|| test $? -eq 3" in page
    assert shell(f"{undecided.strip()} || test $? -eq 3") == 0
    assert shell(f"{loose.replace('200000', '1').strip()} || test $? -eq 3") == 1


def test_networks_in_the_wrong_order_are_refused(run, files):
    """Everything measured would have the wrong sign, so that a quantized network would pass."""
    images = ("--data", "digits", "--n", "50", "--device", "cpu")
    for command in (("check", "--max-accuracy-drop", 0.99), ("compare",)):
        swapped = run(command[0], files[1], files[0], *images, *command[1:])
        assert (swapped.code, swapped.out) == (2, "")
        assert f"{files[1]} is quantized" in " ".join(swapped.err.split()).replace("- ", "-")
        assert "swap the two" in " ".join(swapped.err.split())


def test_each_network_is_named_by_its_own_file(run, tmp_path):
    """With --weights the baseline is that file, and the one beside it the quantized network."""
    torch.manual_seed(0)
    (tmp_path / "swapped_nets.py").write_text(
        "from torch import nn\nfrom isofire.neurons import IF, PerStep, Repeat\n"
        "def build():\n"
        "    layers = PerStep(nn.Flatten(), nn.Linear(64, 8)), IF(), PerStep(nn.Linear(8, 10))\n"
        "    return nn.Sequential(Repeat(2), *layers)\n"
        "def lazy():\n"
        "    return nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.LazyLinear(8)), IF())\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import swapped_nets

        from isofire.models.user_code import save_named

        model = swapped_nets.build()
        spec = QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize")
        save_named(tmp_path / "fp.safetensors", model, "swapped_nets:build", {})
        save_named(tmp_path / "q.safetensors", quantize_(model, spec), "swapped_nets:build", {})
        images = ("--model", "swapped_nets:build", "--data", "digits", "--n", "50", "--device", "cpu")
        for command, limit in (("check", ("--max-accuracy-drop", 0.99)), ("compare", ()), ("cost", ())):
            swapped = run(command, "fp.safetensors", "--weights", "q.safetensors", *images, *limit)
            assert swapped.code == 2, swapped.out
            assert "q.safetensors is quantized and fp.safetensors is in full precision" in " ".join(swapped.err.split())
        lazy = run("cost", "--model", "swapped_nets:lazy", "--weights", "fp.safetensors", *images[2:])
        assert lazy.code == 2, lazy.err
        told = " ".join(lazy.err.split())
        assert "'1.1.weight' of Sequential gets its own from the first batch; run one batch through" in told
    finally:
        sys.path.remove(str(tmp_path))


def test_a_reader_that_leaves_does_not_change_the_outcome(files, tmp_path):
    """`isofire check ... | head -0` under pipefail: the status is that of the check."""
    images = ["--data", "digits", "--n", "50", "--device", "cpu"]
    for limit, status in (("1", 1), ("1e9", 0)):
        command = [sys.executable, "-m", "isofire", "check", *map(str, files), *images, "--max-state-bytes", limit]
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        os.close(writer)
        assert (done.returncode, done.stderr) == (status, "")


def test_a_measure_is_named_with_its_limit(run, files):
    images = ("--data", "digits", "--n", "50", "--device", "cpu")
    found = run("check", *files, *images, "--max", "emd_max=1", "--max", "dead_00=1", "--min", "spearman=-1", "--json")
    assert [item["name"] for item in json.loads(found.out)["findings"]] == ["emd_max", "dead_00", "spearman"]
    assert found.code == 0
    for wrong, said in (
        (("--max", "emd"), "--max takes NAME=LIMIT"),
        (("--max", "emt=1"), "did you mean 'emd'"),
        (("--max", "spearman=0.5"), "a limit is the least"),
    ):
        refused = run("check", *files, *images, *wrong)
        assert refused.code == 2
        assert said in " ".join(refused.err.split())


@pytest.mark.parametrize(("command", "option"), [("check", "--max-accuracy-drop"), ("compare", "--margin-accuracy")])
@pytest.mark.parametrize(("value", "cure"), [("1", "1 point: 0.01"), ("2.5", "2.5 points: 0.025"), ("-1", "0.01")])
def test_points_are_not_taken_for_a_share(run, files, command, option, value, cure):
    wrong = run(command, *files, "--data", "digits", "--n", "50", f"{option}={value}")
    told = " ".join(wrong.err.split())
    assert (wrong.code, wrong.out) == (2, "")
    assert f"{option} is a share of images, from 0 to below 1, got {value}" in told
    assert cure in told


def test_nothing_is_kept_of_a_network_that_guesses(run, files, tmp_path):
    """The same weights in another order know nothing of the classes; the trained network beside them wins a lot."""
    guesses, _ = load_model(files[0])
    with torch.no_grad():
        guesses.fc.weight.copy_(guesses.fc.weight.mean(0).expand_as(guesses.fc.weight))
        guesses.fc.bias.zero_()[3] = 1.0
    save_model(tmp_path / "guesses.safetensors", guesses)
    limits = ("--max-accuracy-drop", 0.01, "--max-state-bytes", 1e9, "--data", "digits", "--n", "200")
    found = run("check", tmp_path / "guesses.safetensors", files[0], *limits, "--junit", "c.xml", "--json")
    document = json.loads(found.out)
    outcomes = {item["name"]: item["outcome"] for item in document["findings"]}
    assert (found.code, document["outcome"]) == (3, "undecided")
    assert outcomes == {"accuracy_drop": "keeps", "state_bytes": "keeps", "baseline": "undecided"}
    assert "not above chance: right on" in document["findings"][-1]["about"]
    assert ElementTree.parse("c.xml").getroot().get("errors") == "1"
    # its size is the same whoever guesses; and beside a network that knows its classes nothing is said
    assert run("check", tmp_path / "guesses.safetensors", files[0], *limits[2:]).code == 0
    assert run("check", files[0], files[0], "--max-accuracy-drop", 0.05, *limits[2:]).code == 0
    shown = run("compare", tmp_path / "guesses.safetensors", files[0], "--data", "digits", "--n", "200")
    assert shown.out.startswith("! baseline not above chance: right on")
    assert "? accuracy undecided: gained " in shown.out
    assert ", allowed loss 1\n" in shown.out
