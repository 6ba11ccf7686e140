"""The pages in a real browser: headless Chromium, driven by playwright; skipped where one of them is missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofire.report import write_comparison, write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, for instance Debian's package chromium")

HOSTILE = "<script>alert(1)</script>"
PHONE = {"width": 390, "height": 844}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a file; at the end fails if the page complained, asked for anything, or opened a dialog."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def opened(path: Path, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(contexts)


@pytest.fixture(scope="module")
def report(folders, sweep, tmp_path_factory) -> Path:
    return write_report(folders.FolderView(sweep), tmp_path_factory.mktemp("page") / "report.html")[0]


@pytest.fixture(scope="module")
def comparison(folders, sweep, other, tmp_path_factory) -> Path:
    views = folders.FolderView(sweep), folders.FolderView(other)
    return write_comparison(*views, tmp_path_factory.mktemp("two") / "comparison.html")[0]


def column(page: Any, key: str) -> list[str]:
    """Texts of a column of the table, of the rows that are seen, from top to bottom."""
    return page.evaluate(
        """key => {
          const table = document.getElementById("table");
          const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.dataset.key === key);
          const rows = [...table.tBodies[0].rows].filter(row => row.offsetParent !== null);
          return rows.map(row => row.cells[at].textContent.trim());
        }""",
        key,
    )


def numbers(texts: list[str]) -> list[float]:
    return [float(re.match(r"[-+]?[\d.]+", text.replace("−", "-"))[0]) for text in texts]  # type: ignore[index]


@pytest.mark.parametrize("key", ["accuracy", "emd", "rate", "bits"])
def test_sorting_by_number(report, open_page, key):
    page = open_page(report)
    before = column(page, key)
    page.click(f'th[data-key="{key}"] button')
    ascending = column(page, key)
    assert numbers(ascending) == sorted(numbers(before))
    assert page.get_attribute(f'th[data-key="{key}"]', "aria-sort") == "ascending"
    page.click(f'th[data-key="{key}"] button')
    assert numbers(column(page, key)) == sorted(numbers(before), reverse=True)
    assert numbers(before) != numbers(ascending)
    assert page.locator("th[aria-sort]").count() == 1


def test_what_has_no_value_stays_last(report, open_page):
    page = open_page(report)
    for direction in (1, -1):
        page.click('th[data-key="multiple"] button')
        texts = column(page, "multiple")
        assert texts[-2:] == ["–", "–"]
        values = [direction * float(text.strip("×†")) for text in texts[:-2]]
        assert values == sorted(values)


def test_sorting_by_text_with_the_keyboard(report, open_page):
    page = open_page(report)
    page.focus('th[data-key="method"] button')
    page.keyboard.press("Enter")
    texts = column(page, "method")
    assert [text.lower() for text in texts] == sorted(text.lower() for text in texts)


def test_filters_hide_rows_and_fade_marks(report, open_page, folders):
    page = open_page(report)
    total = len(folders.CELLS)
    assert page.text_content("form output") == f"{total} of {total} shown"
    page.select_option('select[name="bits"]', "2")
    shown = column(page, "bits")
    assert set(shown) == {"2"}
    assert 0 < len(shown) < total
    assert page.text_content("form output") == f"{len(shown)} of {total} shown"
    kept = page.locator(".scatter .mark:not(.dim)").count()
    assert kept == 2 * len(shown)
    page.fill('input[name="search"]', "LQNET ptq")
    assert column(page, "method") == ["lqnet"]
    page.fill('input[name="search"]', "nothing like it")
    assert column(page, "method") == []
    page.click('form button[type="reset"]')
    page.wait_for_function("document.querySelector('form output').textContent.startsWith('%d ')" % total)
    assert len(column(page, "method")) == total
    assert page.locator(".mark.dim").count() == 0


def test_two_filters_hold_together(report, open_page):
    page = open_page(report)
    page.select_option('select[name="target"]', "membrane")
    page.select_option('select[name="range"]', "[0, 1]")
    assert set(column(page, "target")) == {"membrane"}
    assert all(text.startswith("[0, 1]") for text in column(page, "range"))


def test_a_chosen_cell_is_shown_and_the_first_comes_back_as_it_was_written(report, open_page):
    page = open_page(report)
    parts = ("cell-title", "cell-facts", "cell-layers", "cell-rates", "cell-values", "cell-spec")

    def shown() -> dict[str, str]:
        return {
            part: page.evaluate("id => document.getElementById(id).innerHTML.replace(/>\\s+</g, '><').trim()", part)
            for part in parts
        }

    first, key = shown(), page.input_value("#choose")
    options = page.locator("#choose option").evaluate_all("list => list.map(option => option.value)")
    other = next(option for option in options if option != key and option.startswith("s1c1"))
    page.select_option("#choose", other)
    assert all(shown()[part] != first[part] for part in parts)
    assert page.locator(".scatter .mark.chosen").get_attribute("data-cell") == other
    page.select_option("#choose", key)
    # the script fills in the same texts and paths that the page was written with
    assert shown() == first


def test_marks_rows_and_fields_choose(report, open_page):
    page = open_page(report)
    page.locator(".scatter .mark.cross").first.click(force=True)
    assert page.text_content("#cell-title").startswith("control: BN re-estimated")
    assert page.locator("#cell-values-box").is_hidden()
    page.locator("#table tbody tr", has_text="post_reset").first.click()
    assert "post_reset" in page.text_content("#cell-title")
    assert page.locator("#cell-values .threshold").first.get_attribute("d").startswith("M")
    page.locator("svg.heat [data-entry]").first.click()
    assert page.text_content("#cell-title").startswith("weights uniform 2 bit")


def test_names_from_files_are_inert(folders, sweep, tmp_path, open_page):
    view = folders.FolderView(sweep, rename={"stem_sn": HOSTILE, "stages.0.0.conv1": HOSTILE})
    view.plan["name"] = HOSTILE
    path = write_report(view, tmp_path / "r.html")[0]
    page = open_page(path)
    assert page.text_content("h1") == HOSTILE
    assert page.locator("#cell-layers th").first.text_content() == HOSTILE
    for option in page.locator("#choose option").evaluate_all("list => list.slice(0, 6).map(option => option.value)"):
        page.select_option("#choose", option)
        assert page.locator("#cell-layers th").first.text_content() == HOSTILE
    assert page.locator("main script").count() == 0


def test_without_javascript_the_page_shows_all_but_the_choice(report, open_page):
    page = open_page(report, java_script_enabled=False)
    for selector in (".best", "#table", ".scatter", ".heat", "#cell-layers tr", "#cell-rates svg", "#cell-values svg"):
        assert page.locator(selector).first.is_visible()
    for part in page.locator(".needs-js").all():
        assert part.is_hidden()


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_no_sideways_scrolling_of_the_page(name, width, request, open_page):
    page = open_page(request.getfixturevalue(name), viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('pre') && "
        "!e.closest('.hidden') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


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
    page = open_page(report, color_scheme=scheme)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", back)[0]) > 128) == (scheme == "light")
    for selector in ("body", ".notes", ".verdict.yes", ".verdict.no", "th", "summary", "tr.control td"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


def test_printed_it_is_light_and_whole(report, open_page):
    page = open_page(report, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("form.filters").is_hidden()
    assert page.locator("#choose").is_hidden()
    clipped = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => getComputedStyle(e).overflowY !== 'visible').length"
    )
    assert clipped == 0
    assert page.pdf(format="A4")[:4] == b"%PDF"


def test_comparison_sorts_and_filters(comparison, open_page):
    page = open_page(comparison)
    page.click('th[data-key="accuracy_a"] button')
    values = numbers(column(page, "accuracy_a"))
    assert values == sorted(values)
    page.select_option('select[name="bits"]', "4")
    assert column(page, "bits") == ["4"]
    assert page.locator(".twin .mark:not(.dim)").count() == 2


def test_screenshots_can_be_taken(report, open_page, tmp_path):
    """Kept nowhere; pytest --basetemp=DIR leaves them to look at."""
    for name, options in {
        "light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": PHONE},
    }.items():  # fmt: skip
        page = open_page(report, **options)
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        assert (tmp_path / f"{name}.png").stat().st_size > 50_000
