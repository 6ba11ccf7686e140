"""The pages in a real browser: headless Chromium; skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofire.report import write_comparison, write_report


def _load_driver() -> Any:
    # pytest's importlib mode leaves a test's folder off the path
    spec = importlib.util.spec_from_file_location("report_chromium", Path(__file__).with_name("chromium.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


driver = _load_driver()
CHROMIUM = driver.find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, for instance Debian's package chromium")

HOSTILE = "<script>alert(1)</script>"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    found = driver.Chromium(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a file; at the end fails if a page complained, asked for anything, or opened a dialog."""
    pages = []

    def opened(path: Path, **options: Any) -> Any:
        page = browser.open(path, **options)
        pages.append((path, page))
        return page

    yield opened
    browser.listen(0.05)
    for path, page in pages:
        page.close()
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.fixture(scope="module")
def report(folders, sweep, tmp_path_factory) -> Path:
    return write_report(folders.FolderView(sweep), tmp_path_factory.mktemp("page") / "report.html")[0]


@pytest.fixture(scope="module")
def comparison(folders, sweep, other, tmp_path_factory) -> Path:
    views = folders.FolderView(sweep), folders.FolderView(other)
    return write_comparison(*views, tmp_path_factory.mktemp("two") / "comparison.html")[0]


def column(page: Any, key: str, table: str = "#table") -> list[str]:
    """Texts of a column of a table, of the rows that are seen, from top to bottom."""
    return page.run(
        """(key, selector) => {
          const table = document.querySelector(selector);
          const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.dataset.key === key);
          const rows = [...table.tBodies[0].rows].filter(row => row.offsetParent !== null);
          return rows.map(row => row.cells[at].textContent.trim());
        }""",
        key,
        table,
    )


def numbers(texts: list[str]) -> list[float]:
    return [float(re.match(r"[-+]?[\d.]+", text.replace("−", "-"))[0]) for text in texts]  # type: ignore[index]


def test_a_page_that_complains_is_noticed(browser, tmp_path):
    """The driver hears what the other tests rely on not to hear."""
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('x'); alert(2); fetch('https://example.invalid/'); nothing();</script>")
    context = browser.open(page, wait=False)
    browser.wait_until(lambda: context.dialog)
    context.send("Page.handleJavaScriptDialog", accept=True)
    browser.wait_until(lambda: len(context.complaints) >= 3 and len(context.requests) >= 2)
    context.close()
    heard = " ".join(context.complaints)
    assert "console.error" in heard
    assert "dialog: 2" in heard
    assert "nothing is not defined" in heard
    assert "https://example.invalid/" in context.requests


@pytest.mark.parametrize("table", ["#table", ".best"])
def test_sorting_by_number(report, open_page, table):
    page = open_page(report)
    for key in ("accuracy", "emd", "bits"):
        before, head = column(page, key, table), f'{table} th[data-key="{key}"]'
        page.click(f"{head} button")
        ascending = column(page, key, table)
        assert numbers(ascending) == sorted(numbers(before))
        assert page.attribute(head, "aria-sort") == "ascending"
        page.click(f"{head} button")
        descending = column(page, key, table)
        assert numbers(descending) == sorted(numbers(before), reverse=True)
        assert descending != ascending
        assert page.count(f"{table} th[aria-sort]") == 1


def test_what_has_no_value_stays_last(report, open_page):
    page = open_page(report)
    for direction in (1, -1):
        page.click('#table th[data-key="multiple"] button')
        # a control has a floor of its own, and every cell of this sweep has one
        texts = column(page, "multiple")
        values = [direction * float(text.strip(">×†")) for text in texts]
        assert values == sorted(values)


def test_sorting_by_text_with_the_keyboard(report, open_page):
    page = open_page(report)
    page.run("() => document.querySelector('#table th[data-key=method] button').focus()")
    page.press("Enter", 13, "\r")
    texts = [text.lower() for text in column(page, "method")]
    assert texts == sorted(texts)


def test_filters_hide_rows_and_fade_marks(report, open_page, folders):
    page, total = open_page(report), len(folders.CELLS)
    assert page.texts("form output") == [f"{total} of {total} shown"]
    page.choose('select[name="bits"]', "2")
    shown = column(page, "bits")
    assert set(shown) == {"2"}
    assert 0 < len(shown) < total
    assert page.texts("form output") == [f"{len(shown)} of {total} shown"]
    assert page.count(".scatter .mark:not(.dim)") == 2 * len(shown)
    assert page.count(".map td[data-entry]:not(.dim)") == len(shown)
    page.type('input[name="search"]', "LQNET ptq")
    assert column(page, "method") == ["lqnet"]
    page.type('input[name="search"]', "nothing like it")
    assert column(page, "method") == []
    page.click('form button[type="reset"]')
    page.run("() => new Promise(done => setTimeout(done, 20))")
    assert len(column(page, "method")) == total
    assert page.count(".dim") == 0
    # several filters hold together
    page.choose('select[name="target"]', "membrane")
    page.choose('select[name="range"]', "[0, 1]")
    assert set(column(page, "target")) == {"membrane"}
    assert {text.partition("]")[0] for text in column(page, "range")} == {"[0, 1"}


def test_filter_by_what_is_kept(report, open_page, folders, sweep):
    page = open_page(report)
    (kept,) = page.run("() => [[...document.querySelectorAll('select[name=kept] option')].map(o => o.value)]")
    for word in kept[1:]:
        page.choose('select[name="kept"]', word)
        assert set(column(page, "kept")) == {word}


def test_a_chosen_cell_is_shown_and_the_first_comes_back_as_it_was_written(report, open_page):
    page = open_page(report)
    parts = ("cell-title", "cell-facts", "cell-layers", "cell-rates", "cell-values", "cell-spec")

    def shown() -> dict[str, str]:
        script = "id => document.getElementById(id).innerHTML.replace(/>\\s+</g, '><').trim()"
        return {part: page.run(script, part) for part in parts}

    first, key = shown(), page.run("() => document.getElementById('choose').value")
    options = page.run("() => [...document.querySelectorAll('#choose option')].map(option => option.value)")
    other = next(option for option in options if option != key and option.startswith("s1c1"))
    page.choose("#choose", other)
    assert all(shown()[part] != first[part] for part in parts)
    assert page.attribute(".scatter .mark.chosen", "data-cell") == other
    page.choose("#choose", key)
    # the script fills in the same texts and paths that the page was written with
    assert shown() == first


def test_marks_rows_and_fields_choose(report, open_page):
    page = open_page(report)
    page.click("#table tbody tr:first-child")
    assert page.texts("#cell-title")[0].startswith("control: BN re-estimated")
    assert not page.visible("#cell-values-box")
    row = [text.rpartition(" ")[2] for text in column(page, "range")].index("post_reset")
    page.click(f"#table tbody tr:nth-child({row + 1})")
    assert "post_reset" in page.texts("#cell-title")[0]
    assert page.attribute("#cell-values .threshold", "d").startswith("M")
    page.click("svg.heat [data-entry]")
    assert page.texts("#cell-title")[0].startswith("weights uniform 2 bit")
    page.click(".map tbody:nth-of-type(2) td[data-entry]")
    assert page.texts("#cell-title")[0].startswith("membrane")
    farthest = """() => [...document.querySelectorAll(".scatter .mark")].map(e => [e.getBoundingClientRect().left, e])
      .sort((a, b) => b[0] - a[0])[0][1].dataset.cell"""
    cell = page.run(farthest)
    page.click(f'.scatter .mark[data-cell="{cell}"]')
    assert page.run("() => document.getElementById('choose').value") == cell


def test_names_from_files_are_inert(folders, sweep, tmp_path, open_page):
    view = folders.FolderView(sweep, rename={"stem_sn": HOSTILE, "stages.0.0.conv1": HOSTILE})
    view.plan["name"] = HOSTILE
    page = open_page(write_report(view, tmp_path / "r.html")[0])
    assert page.texts("h1") == [HOSTILE]
    assert page.texts("#cell-layers th")[0] == HOSTILE
    for option in page.run("() => [...document.querySelectorAll('#choose option')].slice(0, 6).map(o => o.value)"):
        page.choose("#choose", option)
        assert page.texts("#cell-layers th")[0] == HOSTILE
    assert page.count("main script") == 0


def test_without_javascript_the_page_shows_all_but_the_choice(report, open_page):
    page = open_page(report, javascript=False)
    for selector in (".map", ".best", "#table", ".scatter", ".heat", "#cell-layers tr", "#cell-rates svg",
                     "#cell-values svg"):  # fmt: skip
        assert page.visible(selector)
    script = "() => [...document.querySelectorAll('.needs-js')].map(part => part.getClientRects().length)"
    assert set(page.run(script)) == {0}


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_no_sideways_scrolling_and_nothing_cut_off(name, request, open_page):
    page = open_page(request.getfixturevalue(name))
    for width in (390, 820, 1280):
        page.size(width, 844)
        assert page.run("() => document.documentElement.scrollWidth") == width
        wide = page.run(
            """() => [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, .hidden")
              && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
        )
        assert wide == []


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize(("media", "width"), [("screen", 1280), ("print", 688)])
def test_every_table_is_whole_on_a_wide_screen_and_on_paper(name, media, width, request, open_page):
    """A4 less its margins is 688 pixels wide."""
    page = open_page(request.getfixturevalue(name), width=width, media=media)
    cut = page.run(
        """() => [...document.querySelectorAll("main .scroll td, main .scroll th")].filter(e =>
          e.getBoundingClientRect().right > e.closest(".scroll").getBoundingClientRect().right + 1)
          .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert cut == []


def test_a_field_without_a_cell_has_no_colour_and_leads_nowhere(report, open_page):
    page = open_page(report)
    drawn = page.count("svg.heat .heat-fill")
    assert drawn == page.count("svg.heat [data-entry]") == page.count("svg.heat rect.paper")
    fields = page.run(
        """() => [...document.querySelectorAll("svg.heat")].map(svg => {
          const ticks = [...svg.querySelectorAll(".tick")].map(t => t.textContent);
          const [across, empty] = [ticks.filter(t => t.endsWith(" bit")).length, ticks.filter(t => t === "–").length];
          return across * (ticks.length - across - empty) - empty;
        }).reduce((a, b) => a + b)"""
    )
    assert fields == drawn


def test_nothing_in_a_figure_overlaps(report, open_page):
    """Texts of every figure that is seen lie within it, and none lies on another."""
    page = open_page(report)
    found = page.run(
        """() => [...document.querySelectorAll("main svg[role=img]")].flatMap(svg => {
          const frame = svg.getBoundingClientRect();
          const texts = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim());
          const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
          const leaves = b => b.left < frame.left - 6 || b.right > frame.right + 6
            || b.top < frame.top - 3 || b.bottom > frame.bottom + 3;
          const hit = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 2 && b.top < a.bottom - 2;
          const out = boxes.filter(([, b]) => leaves(b)).map(([t]) => `outside: ${t}`);
          const on = boxes.flatMap(([t, a], i) =>
            boxes.slice(i + 1).filter(([, b]) => hit(a, b)).map(([u]) => `${t} on ${u}`));
          return [...out, ...on].map(text => `${svg.querySelector("title").textContent}: ${text}`);
        })"""
    )
    assert found == []


CONTRAST = """selector => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = light(getComputedStyle(document.body).backgroundColor);
  const front = light(getComputedStyle(document.querySelector(selector)).color);
  return (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(report, open_page, scheme):
    page = open_page(report, scheme=scheme)
    back = page.run("() => getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", back)[0]) > 128) == (scheme == "light")
    for selector in ("body", ".notes", ".verdict", ".map td b", ".map td small", "th", "summary", "tr.control td"):
        assert page.run(CONTRAST, selector) >= 4.5, selector


def test_printed_it_is_light_and_whole(report, open_page):
    page = open_page(report, scheme="dark", media="print")
    assert page.run("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.visible("form.filters")
    assert not page.visible("#choose")
    assert not page.visible("details")
    boxes = "() => [...document.querySelectorAll('.scroll')].map(e => getComputedStyle(e).overflowY)"
    assert set(page.run(boxes)) == {"visible"}
    assert page.pdf()[:4] == b"%PDF"


def test_comparison_sorts_and_filters(comparison, open_page):
    page = open_page(comparison)
    page.click('th[data-key="accuracy_a"] button')
    values = numbers(column(page, "accuracy_a"))
    assert values == sorted(values)
    page.choose('select[name="bits"]', "4")
    assert column(page, "bits") == ["4"]
    assert page.count(".twin .mark:not(.dim)") == 2


def test_screenshots_can_be_taken(report, open_page, tmp_path):
    """Kept nowhere; pytest --basetemp=DIR leaves them to look at."""
    for name, options in {"light": {}, "dark": {"scheme": "dark"}, "phone": {"width": 390, "height": 844}}.items():
        open_page(report, **options).screenshot(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 50_000
