"""Tables as text that can be searched, and as HTML."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import isofire
from isofire import QuantSpec, compare, text_table
from isofire.firing import observe
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import explain
from isofire.text_table import TableShown, TextTable, shortened

TABLE = TextTable(["layer", "n"], [["stages.0.0.sn1", "16,384"], ["all", "86,016"]], rules=frozenset({1}))


def test_a_table_by_hand() -> None:
    assert TABLE.text(30).splitlines() == [
        "layer               n",
        "---------------------",
        "stages.0.0.sn1 16,384",
        "---------------------",
        "all            86,016",
    ]


def test_texts_lose_their_middle_and_numbers_nothing() -> None:
    lines = TABLE.text(16).splitlines()
    assert lines[2] == "stag….sn1 16,384"
    # narrower than that texts keep six characters, and the line is as long as it is
    assert TABLE.text(3).splitlines()[2] == "st…sn1 16,384"
    assert TABLE.text(3).splitlines()[4] == "all    86,016"


@given(st.text(min_size=1, max_size=40), st.integers(2, 60))
def test_a_shortened_name_fits_and_keeps_both_ends(name: str, width: int) -> None:
    found = shortened(name, width)
    assert len(found) == min(len(name), width)
    assert found == name or (found[-1] == name[-1] and "…" in found)


def test_the_screen_decides_unless_it_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = TextTable(["name"], [["x" * 150]])
    monkeypatch.setenv("COLUMNS", "40")
    assert len(wide.text().splitlines()[2]) == 100
    monkeypatch.setattr(text_table.sys.stdout, "isatty", lambda: True, raising=False)
    assert len(wide.text().splitlines()[2]) == 40


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def test_html_holds_the_cells_as_they_are() -> None:
    parser = Cells()
    parser.feed(TextTable(["a<b", "n"], [["<script>", "1 & 2"]]).html())
    assert parser.found == ["a<b", "n", "<script>", "1 & 2"]


def test_objects_show_themselves_shortly_and_in_notebooks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 4)), LIF(),
                          PerStep(nn.Linear(4, 2)))  # fmt: skip
    images = 3 * torch.randn(60, 3)
    data = images, observe(model, (images, torch.zeros(60, dtype=torch.int64))).predictions
    other = copy.deepcopy(model)
    other[1][0].weight.data *= 1.3
    found = compare(model, other, data, run=2)
    verdict = check(model, other, data, Limits(accuracy_drop=0.99), run=2)
    plan = explain(model, QuantSpec(weights={"method": "lsq", "bits": 4}))
    for item, short, cells in (
        (found, "Comparison(accuracy ", ("all neurons", f"{found.layers[0].emd:.5f}", "EMD and its noise")),
        (verdict, "Verdict(keeps: accuracy_drop keeps; 60 images)", ("accuracy_drop", "≤ 0.99", "keeps")),
        (plan, "QuantPlan(1 of 5 modules are quantized)", ("first_layer = 'float'", "membrane")),
    ):
        assert repr(item).startswith(short)
        assert len(repr(item)) < 120
        parser = Cells()
        parser.feed(item._repr_html_())
        assert set(cells) <= set(parser.found)


def test_what_has_a_table_shows_it_in_notebooks():
    kinds = {
        kind
        for module in pkgutil.walk_packages(isofire.__path__, "isofire.")
        if module.name.split(".")[1] in ("firing", "integer", "quantization", "study")
        and module.name != "isofire.study.parquet"
        for kind in vars(importlib.import_module(module.name)).values()
        if inspect.isclass(kind) and kind.__module__ == module.name and "table" in vars(kind)
    }
    assert len(kinds) >= 10
    for kind in kinds:
        assert hasattr(kind, "_repr_html_"), f"{kind.__name__} has a table that notebooks do not show"


def test_a_table_in_a_notebook_is_escaped():
    class Shown(TableShown):
        def table(self):
            return "a < b"

    assert Shown()._repr_html_() == "<pre>a &lt; b</pre>"
