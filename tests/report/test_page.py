from __future__ import annotations

import csv
import json
import math
import re
import sys
from html.parser import HTMLParser

import pytest

from isofire.errors import OutputError, SpecError
from isofire.report import write_report
from isofire.report.entries import reference_name
from isofire.report.html import embedded_json
from isofire.report.markdown import escaped
from isofire.report.page import sweep_page
from isofire.report.study import Study

VOID = {"meta", "link", "br", "input", "img", "hr"}
HOSTILE = "</script><script>alert(1)</script><!-- \"&' -->"


class Elements(HTMLParser):
    """Every element with its attributes; fails on an element that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.found


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture(scope="module")
def page(folders, sweep) -> str:
    return sweep_page(Study.of(folders.FolderView(sweep)))


def test_elements_are_closed_and_ids_used_once(page):
    ids = [attributes["id"] for _, attributes in elements(page) if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched(page):
    for tag, attributes in elements(page):
        assert tag not in ("img", "iframe", "object", "embed")
        for name in ("src", "href", "action", "data", "srcset"):
            assert attributes.get(name, "data:,") == "data:,"
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_every_figure_has_a_title_and_a_description(page):
    figures = re.findall(r'<svg[^>]*role="img".*?</svg>', page, re.DOTALL)
    assert len(figures) > 20
    for figure in figures:
        assert re.search(r"<title[^>]*>[^<]", figure) or "data-b" in figure
        assert "<desc" in figure
    # all others repeat what stands beside them
    for svg in re.findall(r"<svg[^>]*>", page):
        assert 'role="img"' in svg or 'aria-hidden="true"' in svg


def test_one_mark_a_cell_and_one_line_a_setting(page, folders, sweep):
    cells = len(folders.CELLS)
    assert len(re.findall(r'class="mark ', page)) == 2 * cells
    table = page[page.index('id="table"') :]
    assert len(re.findall(r"<tr data-entry", table[: table.index("</table>")])) == cells
    assert set(data_of(page)["cells"]) == {row["cell"] for row in folders.FolderView(sweep).rows}


def test_n_seeds_and_units_are_stated(page, folders, sweep):
    reference = reference_name(Study.of(folders.FolderView(sweep)).entries)
    for text in ("n = 120 test images, T = 3, 2 seeds (0, 1)", "spikes per neuron per step", "accuracy (%)", "32 of 34",
                 f"× {reference}", "1 failed, 1 not run", "ran out of memory", "width=0.25"):  # fmt: skip
        assert text in page


def test_a_cell_in_detail_has_all_its_layers_and_shares_its_baseline(page, folders, sweep):
    data = data_of(page)
    assert len(data["baselines"]) == 2
    for key, cell in data["cells"].items():
        assert len(cell["layers"]) == len(data["baselines"][cell["base"]]) == 9
        assert cell["base"] == int(key[1])
        for layer in cell["layers"]:
            # every layer beside its image floor, on the axis of the bars
            place, bar = float(layer["t"][1:].partition(",")[0]), sum(map(float, layer["b"]))
            assert max(place, bar) <= 120.1
            assert bar / place == pytest.approx(float(layer["g"].strip(">×")), rel=0.06)
    values = [cell["values"] for cell in data["cells"].values()]
    assert any(panel["t"] for panels in values for panel in panels)
    assert [len(v) for v in values].count(0) == 4  # the controls


def test_texts_from_files_are_escaped(folders, sweep):
    view = folders.FolderView(sweep, rename={"stem_sn": HOSTILE, "stages.0.0.conv1": HOSTILE})
    view.plan["name"] = HOSTILE
    view.plan["config"] = {"note": HOSTILE}
    view.plan["environment"] = {"cpu": HOSTILE}
    view.rows = [row | {"model": HOSTILE, "options": HOSTILE} for row in view.rows]
    view.failed[0]["reason"] = HOSTILE
    page = sweep_page(Study.of(view))
    kinds = [attributes.get("type") for tag, attributes in elements(page) if tag == "script"]
    assert kinds == ["application/json", None]
    assert "<script>alert" not in page
    assert "<!-- " not in page
    layers = next(iter(data_of(page)["cells"].values()))["layers"]
    assert layers[0]["m"] == HOSTILE


@pytest.mark.parametrize("text", ["</script>", "<!--", "<script>", "]]>", "a & b", "\u2028\u2029", '"\\'])
def test_embedded_json_reads_back_and_cannot_end_its_element(text):
    written = str(embedded_json({text: [text]}))
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028\u2029") & set(written)


def test_embedded_json_takes_no_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json({"a": float("nan")})


def test_a_hundred_cells_of_nine_layers_stay_below_two_megabytes(folders):
    rows = [folders.row(f"cell{i:03d}", spec=str(i), bits=2 + i % 7, seed=i // 50) for i in range(100)]
    page = sweep_page(Study.of(folders.MadeView(rows, layers=9, neurons=2000, bits=6)))
    assert 400_000 < len(page.encode()) < 2_000_000


def test_sweep_without_a_finished_cell(folders):
    page = sweep_page(Study.of(folders.MadeView([])))
    elements(page)
    assert "No quantized setting has finished yet." in page


def test_values_that_do_not_exist(folders):
    """A silent network has no rank correlation; stored as JSON it is null."""
    view = folders.MadeView([folders.row(spearman=None), folders.control(emd_layer_mean=0.0)])
    of_layers = view.layers
    view.layers = lambda key: [layer | {"spearman": math.nan, "emd_floor": None} for layer in of_layers(key)]
    page = sweep_page(Study.of(view))
    for cell in data_of(page)["cells"].values():
        assert {(layer["s"], layer["g"], layer["t"]) for layer in cell["layers"]} == {("–", "–", "")}
    assert "nan" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL).lower().split()


def test_files_beside_each_other(folders, sweep, tmp_path):
    files = write_report(folders.FolderView(sweep), tmp_path / "deep" / "r.html")
    assert [file.name for file in files] == ["r.html", "r.md", "r.csv"]
    text = files[1].read_text()
    assert "## Best per bits" in text
    assert "weights lqnet 4 bit" in text
    # every table is rectangular: a heading, a rule and lines of as many cells
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) >= 3
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert len([line for line in tables[1] if line.startswith("| sew8")]) == len(folders.CELLS)
    rows = list(csv.DictReader(files[2].open()))
    assert len(rows) == len(folders.CELLS)
    first = folders.FolderView(sweep).rows
    same = [row["accuracy"] for row in first if row["spec"] == rows[1]["spec"]]
    assert float(rows[1]["accuracy_mean"]) == pytest.approx(sum(same) / len(same))
    assert rows[1]["n_seeds"] == "2"


def test_the_same_results_give_the_same_page(folders, sweep, page):
    assert sweep_page(Study.of(folders.FolderView(sweep))) == page


def test_markdown_cannot_be_broken_out_of():
    assert escaped("a|b <script>\n`x` [y](z)") == "a\\|b \\<script\\> \\`x\\` \\[y\\](z)"


def test_out_must_be_a_page(folders, tmp_path):
    with pytest.raises(SpecError, match=r"ends in \.html"):
        write_report(folders.MadeView([]), tmp_path / "report.pdf")


def test_without_jinja2(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(OutputError, match=r"isofire\[report\]"):
        write_report(folders.MadeView([]), tmp_path / "report.html")
