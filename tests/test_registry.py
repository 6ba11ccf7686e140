"""The registry of things by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

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


@pytest.mark.parametrize("name", ["", "a b", "1x", "a-b", 3])
def test_a_name_is_an_identifier(name: object):
    with pytest.raises(SpecError, match="identifier"):
        Registry[int]("number", "isofire.test_none").register(name, 1)  # type: ignore[arg-type]


def test_installed_packages_add_theirs(monkeypatch: pytest.MonkeyPatch):
    points = (EntryPoint("pi", "math:pi", "isofire.test"),)
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "isofire.test" else ())
    made = Registry[float]("number", "isofire.test")
    assert made["pi"] == pytest.approx(3.14159, abs=1e-5)


def test_a_package_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch):
    points = (EntryPoint("gone", "no_such_package_at_all:thing", "isofire.test"),)
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    made = Registry[float]("number", "isofire.test")
    for _ in range(2):
        with pytest.raises(SpecError, match="number 'gone' of an installed package cannot be imported"):
            list(made)
