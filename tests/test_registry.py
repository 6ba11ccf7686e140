"""The registry of things by name."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from isofire import registry as module
from isofire.errors import SpecError
from isofire.registry import Registry


def test_a_thing_is_found_under_its_name_in_order():
    made = Registry[int]("number", "isofire.test_none")
    made.register("one", 1)
    made.register("two", 2)
    assert dict(made) == {"one": 1, "two": 2}
    assert "one" in made
    assert "three" not in made


def test_an_unknown_name_lists_those_that_are_known():
    made = Registry[int]("number", "isofire.test_none")
    made.register("seven", 7)
    with pytest.raises(SpecError, match="unknown number 'sevn'; did you mean 'seven'\\? known: seven"):
        made["sevn"]
    with pytest.raises(SpecError, match="unknown number"):
        made[["list"]]  # type: ignore[index]


def test_a_name_belongs_to_one_thing():
    made = Registry[object]("thing", "isofire.test_none")
    first = object()
    made.register("it", first)
    made.register("it", first)
    with pytest.raises(SpecError, match="registered already"):
        made.register("it", object())
    made.unregister("it")
    with pytest.raises(SpecError, match="known: none"):
        made.unregister("it")


@pytest.mark.parametrize("name", ["", "a b", "1x", "a-b", 3, None, ["a"], "ä", "float"])
def test_a_name_is_an_identifier_of_ascii_letters(name: object):
    with pytest.raises(SpecError, match="the name of a number must"):
        Registry[int]("number", "isofire.test_none").register(name, 1)  # type: ignore[arg-type]


def test_installed_packages_add_theirs(monkeypatch: pytest.MonkeyPatch):
    points = (EntryPoint("pi", "math:pi", "isofire.test"),)
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "isofire.test" else ())
    made = Registry[float]("number", "isofire.test")
    assert made["pi"] == pytest.approx(3.14159, abs=1e-5)


Offer = Callable[..., Registry[object]]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Offer:
    """Makes a registry for which packages offer things: `offer(("package", "name = module:thing", source), ...)`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def make(*offers: tuple[str, str, str], check: Callable[[str, object], object] | None = None) -> Registry[object]:
        points = []
        for package, line, source in offers:
            name, value = line.split(" = ")
            (tmp_path / f"{value.partition(':')[0]}.py").write_text(source)
            points.append(EntryPoint(name, value, "isofire.test")._for(SimpleNamespace(name=package)))  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "entry_points", lambda group: points if group == "isofire.test" else ())
        made = Registry[object]("thing", "isofire.test", check)
        monkeypatch.setattr(sys.modules[__name__], "MADE", made, raising=False)
        made.register("own", Registry)
        return made

    yield make  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if not name.startswith("isofire"):
            del sys.modules[name]


GOOD = "class Thing: pass\n"
BROKEN = {
    "raises": ("gone = reg_raises:Thing", "1 / 0", "ZeroDivisionError: division by zero"),
    "exits": ("gone = reg_exits:Thing", "raise SystemExit(3)", "SystemExit: 3"),
    "lacks": ("gone = reg_lacks:Thing", "other = 1", "AttributeError"),
    "missing": ("gone = no_such_package_at_all.x:Thing", "", "ModuleNotFoundError"),
    "halfway": (
        "gone = reg_half:Thing",
        f"import {__name__} as t\n{GOOD}t.MADE.register('gone', Thing)\n1 / 0",
        "Zero",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("first", ["list", "own", "gone"])
def test_a_broken_package_breaks_only_what_asks_for_its_name(
    kind: str, first: str, offer: Offer, caplog: pytest.LogCaptureFixture
):
    line, source, reason = BROKEN[kind]
    made = offer(("bro-ken", line, source), ("fine", "good = reg_good:Thing", GOOD))
    told = f"the thing 'gone' of the package bro-ken cannot be imported .*{reason}.*mend or uninstall that package"
    if first == "gone":
        with pytest.raises(SpecError, match=told):
            made["gone"]
    else:
        assert made["own"] is Registry if first == "own" else list(made) == ["own", "good"]
    assert set(made) == {"own", "good"}
    assert made["good"] is import_module("reg_good").Thing
    for _ in range(2):
        with pytest.raises(SpecError, match=told):
            made["gone"]
    assert "gone" not in made
    assert set(made.broken) == {"gone"}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "everything else goes on without it" in caplog.text
    with pytest.raises(SpecError, match="the name 'gone' is taken: the package bro-ken offers a thing of that name"):
        made.register("gone", object)


def test_what_is_refused_names_its_package(offer: Offer, caplog: pytest.LogCaptureFixture):
    def check(name: str, thing: object) -> object:
        if not isinstance(thing, type):
            raise SpecError(f"{name} must be a class")
        return thing

    made = offer(("bro", "no = reg_no:value", "value = 3"), ("odd", "a-b = reg_odd:Thing", GOOD), check=check)
    assert list(made) == ["own"]
    with pytest.raises(
        SpecError, match=r"'no' of the package bro is refused \(reg_no:value\): no must be a class; mend"
    ):
        made["no"]
    with pytest.raises(SpecError, match=r"'a-b' of the package odd is refused .*must be an identifier"):
        made["a-b"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("loaded", [True, False])
def test_a_name_that_a_package_offers_cannot_be_taken_by_code(asked: bool, loaded: bool, offer: Offer):
    made = offer(("theirs", "it = reg_theirs:Thing", GOOD))
    if asked:
        assert "it" in made
    if loaded:
        import_module("reg_theirs")
    with pytest.raises(
        SpecError, match=r"'it' is (taken: the package theirs offers|registered already, by the package th)"
    ):
        made.register("it", type("Mine", (), {}))
    assert made["it"] is import_module("reg_theirs").Thing
    made.register("mine", object)
    assert list(made)[-1] == "mine" or set(made) == {"own", "it", "mine"}


@pytest.mark.parametrize("first", ["import", "read"])
def test_a_package_may_register_in_code_what_it_offers_too(first: str, offer: Offer, caplog: pytest.LogCaptureFixture):
    decorated = f"import {__name__} as t\n{GOOD}t.MADE.register('it', Thing)\nThing = Thing\n"
    made = offer(("theirs", "it = reg_both:Thing", decorated))
    if first == "import":
        import_module("reg_both")
    assert made["it"] is import_module("reg_both").Thing
    assert list(made) == ["own", "it"]
    assert not caplog.records


@pytest.mark.parametrize("swap", [False, True])
def test_a_name_that_two_packages_offer_is_nobodys(swap: bool, offer: Offer, caplog: pytest.LogCaptureFixture):
    offers = [("alpha", "it = reg_alpha:Thing", GOOD), ("beta", "it = reg_beta:Thing", GOOD)]
    made = offer(*(reversed(offers) if swap else offers), ("fine", "good = reg_good:Thing", GOOD))
    assert set(made) == {"own", "good"}
    for place in (r"the package alpha \(reg_alpha:Thing\)", r"the package beta \(reg_beta:Thing\)", "uninstall one"):
        with pytest.raises(SpecError, match=place):
            made["it"]
    assert len(caplog.records) == 1
    # neither was imported, since neither can be had
    assert not {"reg_alpha", "reg_beta"} & set(sys.modules)


def test_a_package_installed_twice_is_one(offer: Offer):
    made = offer(*[("theirs", "it = reg_theirs:Thing", GOOD)] * 2)
    assert made["it"] is import_module("reg_theirs").Thing


def test_isofires_own_names_stay_its_own(offer: Offer, caplog: pytest.LogCaptureFixture):
    made = offer(("taker", "own = reg_taker:Thing", GOOD))
    assert list(made) == ["own"]
    assert made["own"] is Registry
    assert "of the package taker (reg_taker:Thing) has the name of one of isofire itself; rename one" in caplog.text
    assert "'own' stays that of isofire itself" in caplog.text
    with pytest.raises(SpecError, match="named 'own' is registered already, by isofire itself"):
        made.register("own", object)


def test_an_unknown_name_tells_to_install_its_package():
    made = Registry[int]("number", "isofire.test_none")
    with pytest.raises(SpecError, match="no installed package offers 'pi': if it is another package's, install that"):
        made["pi"]


EVERYTHING = """
import torch, isofire
from torch import nn
from isofire.firing import compare
from isofire.firing.metrics import RateEMD
from isofire.models import load_model, save_model, sew_resnet8
from isofire.neurons import IF, PerStep, Repeat
from isofire.training import Recipe

net = nn.Sequential(Repeat(2), PerStep(nn.Linear(4, 6)), IF(), PerStep(nn.Linear(6, 3)))
x, y = torch.rand(40, 4), torch.zeros(40, dtype=torch.long)
spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4})
assert compare(net, net, (x, y)).overall["emd_weighted"] == 0
metric = RateEMD()
metric.update(torch.ones(4, 2, 3), torch.zeros(4, 2, 3))
assert float(metric.compute()) == 1
assert Recipe(epochs=1, lr=0.1, losses={"paired": 1.0}).labels()
save_model("net.safetensors", sew_resnet8(width=0.125, T=2))
load_model("net.safetensors")
asked = {
    "weights": lambda: isofire.QuantSpec(weights={"method": "boom"}),
    "membranes": lambda: isofire.QuantSpec(membrane={"method": "boom"}),
    "constants": lambda: isofire.QuantSpec(decays={"method": "boom"}),
    "losses": lambda: Recipe(epochs=1, lr=0.1, losses={"boom": 1.0}),
    "measures": lambda: isofire.firing.metrics.metric_of("boom"),
    "neurons": lambda: sew_resnet8(neuron="boom"),
    "frameworks": lambda: isofire.adapters.framework.FRAMEWORKS["boom"],
}
for kind, ask in asked.items():
    try:
        ask()
    except isofire.errors.SpecError as error:
        assert "of the package bro-ken cannot be imported (bro_ken:boom)" in str(error), error
        assert "my import" in str(error), error
    else:
        raise AssertionError(kind)
"""


def test_a_package_that_breaks_in_every_group_leaves_isofire_whole(install: Callable[..., str], tmp_path: Path):
    project, found = tmp_path / "project", tmp_path / "found"
    (project / "src").mkdir(parents=True)
    found.mkdir()
    groups = ("weights", "membranes", "constants", "losses", "measures", "neurons", "frameworks")
    tables = "".join(f'[project.entry-points."isofire.{group}"]\nboom = "bro_ken:boom"\n' for group in groups)
    (project / "pyproject.toml").write_text(f'[project]\nname = "bro-ken"\nversion = "0.1"\n{tables}')
    (project / "src" / "bro_ken.py").write_text('raise RuntimeError("my import")')
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": install(project, found)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("everything else goes on without it") == len(groups), done.stderr
