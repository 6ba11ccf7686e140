from __future__ import annotations

from isofire.report.entries import entries_of
from isofire.report.page import sweep_page
from isofire.report.published import MARK, matches, published_baseline, published_table
from isofire.report.study import Study

OURS = {
    "model": "sew_resnet18",
    "data": "cifar100",
    "method": "uniform",
    "bits": 2,
    "range": "[-10, 10]",
    "mode": "qat",
}


def test_every_published_row_says_where_it_comes_from_and_how_sure_it_is():
    table = published_table()
    assert table["source"] == "arXiv 2604.14487"
    assert len({tuple(row[k] for k in ("target", "method", "bits", "range")) for row in table["rows"]}) == len(
        table["rows"]
    )
    for row in table["rows"]:
        assert row["place"]
        assert row["confidence"].startswith("secondary")
        assert 0 < row["accuracy"] < 1


def test_only_equal_settings_match(folders):
    rows = [folders.row("same", spec="1", **OURS)]
    for number, changes in enumerate(
        ({"bits": 4}, {"data": "cifar10"}, {"model": "sew_resnet18 x0.5"}, {"method": "uniform-midtread"},
         {"range": "mse"}, {"target": "membrane"}, {"T": 1})
    ):  # fmt: skip
        rows.append(folders.row(f"other {number}", spec=f"o{number}", **(OURS | changes)))
    (found,) = matches(entries_of(rows))
    assert found.entry.cells == ("same",)
    assert (found.theirs["accuracy"], found.theirs["emd"]) == (0.516, 0.1206)


def test_baseline_of_the_paper():
    assert published_baseline("sew_resnet18", "cifar100", 4)["accuracy"] == 0.752
    assert published_baseline("sew_resnet18", "cifar100", 6) is None
    assert published_baseline("sew_resnet8", "cifar100", 4) is None


def test_page_marks_what_is_copied(folders):
    page = sweep_page(Study.of(folders.MadeView([folders.row(**OURS)])))
    assert MARK in page
    assert "51.6" in page
    assert "−23.6" in page
    assert "the training behind the two columns differs" in page


def test_page_without_a_match_says_nothing_of_the_paper(folders):
    assert "2604.14487" not in sweep_page(Study.of(folders.MadeView([folders.row()])))
