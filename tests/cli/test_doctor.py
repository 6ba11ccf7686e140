from __future__ import annotations

import json

import pytest
import torch

from isofire.cli import doctor as module
from isofire.cli.doctor import examine, self_test
from isofire.config import DataSettings
from isofire.data import NAMES
from isofire.lookup import native as lookup
from isofire.neurons import LIF, native


def states(checks) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_this_installation_is_well(run):
    result = run("doctor")
    assert result.code == 0
    assert "all is well" in result.out
    for name in ("python", "torch", "isofire", "kernels", "look-ups", "threads", "cuda", "report", "data", "self-test"):
        assert name in result.out


def test_json(run):
    found = json.loads(run("doctor", "--json").out)
    assert found["healthy"] is True
    assert {"name", "state", "found", "cure"} == set(found["checks"][0])


def test_missing_kernels_are_worth_a_note_only(run, monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    result = run("doctor")
    assert result.code == 0
    assert "install a C++ compiler" in result.out
    assert "torch, reference agree" in result.out


def test_kernels_of_another_version_are_broken(run, monkeypatch):
    def library():
        raise ImportError("built from another version of isofire")

    monkeypatch.setattr(native, "library", library)
    result = run("doctor")
    assert result.code == 1
    assert "another version" in result.out
    assert "reinstall" in result.out
    assert "Traceback" not in result.err


def test_missing_look_ups_are_worth_a_note_only(run, monkeypatch):
    monkeypatch.setattr(lookup, "best", lambda: None)
    result = run("doctor")
    assert result.code == 0
    assert "isofire.fast sums by torch" in result.out


@pytest.mark.parametrize(
    ("number", "known", "words"),
    [
        (0, ("portable",), "no AVX2 or NEON"),
        (1, ("portable", "avx2"), "avx2, the best"),
        (2, ("portable", "avx2", "avx512"), "avx512, the best"),
        (3, ("portable", "neon"), "neon, the best"),
    ],
)
def test_look_ups_say_which_and_why(monkeypatch, number, known, words):
    class Elsewhere:
        @staticmethod
        def isofire_lookup_isa() -> int:
            return number

    monkeypatch.setattr(lookup, "library", lambda: Elsewhere)
    check = {found.name: found for found in examine()}["look-ups"]
    assert words in f"{check.found} {check.cure}"
    assert lookup.known() == known


def test_kernels_without_the_thread_pool(monkeypatch):
    class Alone:
        @staticmethod
        def isofire_parallel() -> int:
            return 0

    monkeypatch.setattr(native, "library", lambda: Alone)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    check = {found.name: found for found in examine()}["threads"]
    assert check.state == "note"
    assert "1 in the kernels" in check.found


@pytest.mark.parametrize("placement", [None, "pre_fire", "post_reset"])
@pytest.mark.parametrize("part", ["spikes", "gradient"])
def test_self_test_finds_a_path_that_differs(monkeypatch, placement, part):
    honest = LIF.forward

    def off(self, x, *arguments, **options):
        if self.backend == "torch" and part == "gradient":
            x.register_hook(lambda gradient: gradient + 1)
        spikes = honest(self, x, *arguments, **options)
        if self.backend == "torch" and part == "spikes":
            spikes = spikes.clone()
            spikes[0, 0, 0, 0, 0] += 1
        return spikes

    assert self_test(placement).state == "ok"
    monkeypatch.setattr(LIF, "forward", off)
    found = self_test(placement)
    assert found.state == "broken"
    assert "torch differs" in found.found


def test_self_test_sees_spikes_and_runs_every_path(monkeypatch):
    used = []
    forward = LIF.forward

    def watched(self, *arguments, **options):
        used.append(self.backend)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(LIF, "forward", watched)
    assert self_test(None).state == "ok"
    assert set(used) >= {"torch", "reference"}
    assert ("native" in used) == (native.library() is not None)


def test_missing_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    found = {check.name: check for check in examine()}
    assert found["report"].state == "note"
    assert found["report"].cure == "pip install 'isofire[report]'"


def test_old_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.4.1+cpu")
    assert states(examine())["torch"] == "broken"


def test_data_found_where_the_variable_says(monkeypatch, tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "n-mnist" / "nmnist-small").mkdir(parents=True)
    monkeypatch.setenv("ISOFIRE_DATA", str(tmp_path))
    check = next(check for check in examine() if check.name == "data")
    assert check.found.startswith("digits, cifar10, nmnist-small (")


def wanted(result) -> dict:
    return next(check for check in json.loads(result.out)["checks"] if check["name"] == "data wanted")


def test_data_of_a_configuration(run, config, tmp_path):
    assert wanted(run("doctor", "-c", config, "--json"))["state"] == "ok"
    common = ("doctor", "--json", "-c", config, "--set", "data.name=cifar10", "--set", f"data.root={tmp_path}")
    result = run(*common)
    found = wanted(result)
    assert result.code == 1
    assert (found["state"], found["found"]) == ("broken", f"cifar10 is not in {tmp_path}")
    assert "data.root=DIR" in found["cure"]
    result = run(*common, "--set", "data.download=true")
    assert (result.code, wanted(result)["state"]) == (0, "note")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    result = run(*common)
    assert (result.code, wanted(result)["found"]) == (0, f"cifar10 is in {tmp_path}")
    listed = next(check for check in json.loads(result.out)["checks"] if check["name"] == "data")
    assert listed["found"] == f"digits, cifar10 (in {tmp_path})"


def test_data_by_settings_alone(run, tmp_path):
    settings = ("--set", "data.name=nmnist-small", "--set", f"data.root={tmp_path}")
    assert run("doctor", *settings).code == 1
    (tmp_path / "n-mnist").mkdir()
    (tmp_path / "n-mnist" / "nmnist-small.tar").write_bytes(b"")
    assert run("doctor", *settings).code == 0


def test_every_data_set_can_be_looked_for(tmp_path):
    for name in NAMES:
        found = {check.name: check for check in examine(DataSettings(name=name, root=str(tmp_path)))}
        assert found["data wanted"].state == ("ok" if name == "digits" else "broken"), name
        assert found["data"].found.startswith("digits (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "no.toml"), "cannot read no.toml"),
        (("--set", "data.rot=x", "--set", "data.name=mnist"), "did you mean 'root'"),
        (("--set", "data.root=x"), "needs the key `name`"),
        (("--set", "seed=1"), "needs a [data] table"),
        (("--set", "data.name=imagenet"), "no data set is called 'imagenet'"),
    ],
)
def test_mistakes(run, arguments, message):
    result = run("doctor", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""
