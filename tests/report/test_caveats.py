from __future__ import annotations

import shutil

import pytest

from isofire.report.caveats import caveats, reference_sizes
from isofire.report.compare import caveats as caveats_of_two
from isofire.report.compare import comparison_markdown, comparison_page, names_of
from isofire.report.markdown import sweep_markdown
from isofire.report.matching import match
from isofire.report.page import sweep_page
from isofire.report.study import Study


def study_of(folders, rows, classes=None, images=250):
    """A study of made-up rows; `images` fill as many blocks as there are 25 of them."""
    view = folders.MadeView(rows)
    blocks = -(-images // 25)
    base = folders.SpikeCounts(
        {name: counts.repeat(blocks, 1) for name, counts in view._base.counts.items()},
        folders.torch.tensor([25] * (blocks - 1) + [images - 25 * (blocks - 1)]),
        4,
    )
    view.baseline_counts = lambda key: base
    view.baseline = lambda key: {"name": "sew8", "seed": 3, "model": classes and {"num_classes": classes}}
    return Study.of(view)


def test_nothing_to_say_of_a_whole_sweep_of_a_good_baseline(folders):
    rows = [folders.row(emd_floor=0.002, floor="images"), folders.control(emd_floor=0.002)]
    assert caveats(study_of(folders, rows, classes=10)) == []


def test_cells_without_a_row_are_counted_by_why(folders, sweep, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    for key in ("s0c01", "s1c02"):
        file = folder / "cells" / key / "row.json"
        file.write_bytes(file.read_bytes()[:50])
    study = Study.of(folders.FolderView(folder))
    missing = study.missing
    planned = 2 * len(folders.CELLS) + 2
    assert (missing.planned, len(missing.damaged), len(missing.failed), missing.not_run) == (planned, 2, 1, 1)
    (sentence,) = missing.told
    assert sentence == f"4 of {planned} planned cells are missing: 2 damaged, 1 failed, 1 not run."
    assert caveats(study)[0] == sentence
    page, text = sweep_page(study), sweep_markdown(study)
    assert page.index(sentence) < page.index('class="lead"')
    assert text.index(sentence) < text.index("settings keep")
    for title, _ in missing.damaged:
        assert title in page[page.index('id="how"') :]
        assert title in text


@pytest.mark.parametrize(("accuracy", "classes", "at_chance"), [
    (0.098, 10, True), (0.109, 10, True), (0.15, 10, False), (0.51, 2, True), (0.02, None, False),
])  # fmt: skip
def test_a_baseline_is_at_chance_within_two_standard_errors_of_guessing(folders, accuracy, classes, at_chance):
    rows = [folders.row(accuracy=accuracy, accuracy_fp=accuracy, emd_floor=0.002, floor="images")]
    said = caveats(study_of(folders, rows, classes=classes))
    assert any("chance" in text and "seed 3" in text for text in said) == at_chance


def test_a_reference_that_is_itself_a_large_drift_is_told_with_its_size(folders):
    rows = [folders.row(emd_floor=0.002, floor="images", mfr_fp=0.1), folders.control(emd_floor=0.002)]
    assert caveats(study_of(folders, rows)) == []
    rows[1]["emd_layer_mean"] = 0.05
    study = study_of(folders, rows)
    assert reference_sizes(study.entries) == [(pytest.approx(0.5), 0.05, "control")]
    (sentence,) = caveats(study)
    assert "control" in sentence
    assert "50 %" in sentence
    assert "50.0 % of the baseline" in sweep_page(study)


def test_a_silent_baseline_has_no_share(folders):
    study = study_of(folders, [folders.row(emd_floor=0.002, floor="images", mfr_fp=0.0)])
    assert caveats(study) == []
    sweep_page(study)


@pytest.mark.parametrize(("images", "few"), [(100, True), (101, False)])
def test_too_few_images_for_a_floor_are_told(folders, images, few):
    said = caveats(study_of(folders, [folders.row(n_images=images)], images=images))
    assert ["5 blocks" in text and "100 test images fill 4" in text for text in said] == [True] * few


def test_names_and_reasons_from_files_are_escaped(folders):
    study = study_of(folders, [folders.row(baseline=folders.HOSTILE, accuracy_fp=0.1, emd_floor=0.1)], classes=10)
    study.view.plan["cells"].append({"key": "lost", "title": folders.HOSTILE, "baseline": "b", "mode": "ptq"})
    study.view.damaged["lost"] = folders.HOSTILE
    assert len(caveats(study)) == 3
    assert folders.HOSTILE not in sweep_page(study)
    assert folders.HOSTILE not in sweep_markdown(study)


def test_two_sweeps_of_one_name_are_told_apart_by_their_folders(folders, other, tmp_path):
    again = shutil.copytree(other, tmp_path / "again" / other.name)
    a, b = (Study.of(folders.FolderView(folder)) for folder in (other, again))
    first, second = names_of(a, b)
    assert first != second
    assert again.parent.name in second
    found = match(a, b)
    assert f"<title>{first} against {second}</title>" in comparison_page(a, b, found)
    b.view.plan["name"] = "another"
    assert names_of(a, b) == (a.name, "another")


def test_two_sweeps_of_other_images_or_of_missing_cells_say_so_first(folders, sweep, other):
    a, b = Study.of(folders.FolderView(sweep)), Study.of(folders.FolderView(other))
    said = caveats_of_two(a, b, match(a, b))
    assert [text.partition(":")[0] for text in said] == ["A", "B"]
    b = Study(b.view, tuple(row | {"n_images": 60} for row in b.rows), b.entries)
    found = match(a, b)
    images = caveats_of_two(a, b, found)[-1]
    assert "120 against 60" in images
    for text in (comparison_page(a, b, found), comparison_markdown(a, b, found)):
        assert text.index(images) < text.index("cells in both")


def test_spikes_in_no_rate_are_told_and_keep_nothing(folders):
    left_out = "4: MyLIF gives spikes (gt) that are in no rate (96.2% of neurons)"
    known = {"emd_floor": 0.002, "emd_floor_low": 0.0015, "emd_floor_high": 0.0025, "floor": "images"}
    rows = [folders.row(emd_layer_mean=0.001, firing_left_out=left_out, **known), folders.control(**known)]
    study = study_of(folders, rows, classes=10)
    assert caveats(study) == [f"Of baseline sew8 the rates leave out {left_out}."]
    rates = {key: value for key, value in rows[0].items() if key != "firing_left_out"}
    (before,) = (entry.kept.firing for entry in study_of(folders, [rates, rows[1]]).entries if not entry.is_control)
    (after,) = (entry.kept.firing for entry in study.entries if not entry.is_control)
    assert (before, after) == ("keeps", "undecided")
