from __future__ import annotations

import itertools
import math
import statistics

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.firing.evidence.kept import drop_of
from isofire.firing.evidence.outcome import Margins
from isofire.report.entries import entries_of, reference_name, title_of
from isofire.report.overview import overview
from isofire.report.palette import bits_order, bits_text
from isofire.report.provenance import baseline_lines
from isofire.report.summary import best_per_bits, default_entry, explained, of_text, pareto_front, verdict
from isofire.report.table import cells_of, places_of, records


def seeds(folders, name, accuracies, drifts, **changes):
    return [
        folders.row(f"{name}{i}", seed=i, spec=name, accuracy=a, emd_layer_mean=d, **changes)
        for i, (a, d) in enumerate(zip(accuracies, drifts, strict=True))
    ]


def test_rows_of_several_seeds_are_one_entry_with_mean_spread_and_n(folders):
    rows = seeds(folders, "x", [0.8, 0.9, 0.85], [0.01, 0.02, 0.06])
    rows += [folders.control(f"c{i}", seed=i, emd_layer_mean=value) for i, value in enumerate((0.01, 0.03, 0.02))]
    entry, reference = entries_of(rows)
    assert (entry.n, entry.cells) == (3, ("x0", "x1", "x2"))
    assert entry.mean("accuracy") == pytest.approx(0.85)
    assert entry.spread("accuracy") == pytest.approx(statistics.stdev([0.8, 0.9, 0.85]))
    assert entry.drop == pytest.approx(0.05)
    assert entry.multiple == pytest.approx(0.03 / 0.02)
    # seeds differ more than those of the control, whose degrees of freedom count too; what images change adds to it
    seeds_alone = scipy.stats.t.ppf(0.975, 2 + 2) * scipy.stats.sem([0.1, 0.0, 0.05])
    images = [drop_of(row) for row in rows[:3]]
    below = math.hypot(seeds_alone, statistics.fmean(part.estimate - part.low for part in images))
    above = math.hypot(seeds_alone, statistics.fmean(part.high - part.estimate for part in images))
    drop = 0.05 - below, 0.05 + above
    assert (entry.kept.drop.low, entry.kept.drop.high) == pytest.approx(drop)
    assert (entry.kept.accuracy, entry.kept.firing, entry.outcome) == ("undecided", "undecided", "undecided")
    assert reference.is_control
    assert reference.multiple is None
    record = records([entry])[0]
    assert (record["n_seeds"], record["seeds"], record["reference"]) == (3, "0 1 2", "control")
    assert record["drift_over_floor"] == pytest.approx(1.5)
    assert (record["kept"], record["keeps_firing"]) == ("undecided", "undecided")
    assert cells_of(entry)["accuracy"] == "85.00 ± 5.00"


def test_a_control_is_held_against_its_own_floor_alone(folders):
    (control,) = entries_of([folders.control()])
    assert records([control])[0]["keeps_firing"] is None
    assert cells_of(control)["kept"] == "? undecided firing"
    (known,) = entries_of([folders.control(emd_floor=0.005, emd_floor_low=0.004, emd_floor_high=0.006, floor="images")])
    assert records([known])[0]["keeps_firing"] == "keeps"


def test_what_an_undecided_setting_wants_is_said(folders):
    near = {"emd_layer_mean": 0.01, "emd_low": 0.009, "emd_high": 0.011, "n_images": 10_000, "images_won": 400}
    floor = {"emd_floor": 0.01, "emd_floor_low": 0.0099, "emd_floor_high": 0.0101, "floor": "images"}
    apart = [
        folders.row(
            f"s{i}", spec="s", seed=i, **{**near, **floor, "images_lost": lost, "emd_layer_mean": 0.01 + i / 1e5}
        )
        for i, lost in enumerate((380, 460))
    ]
    wide = folders.row("w", spec="w", bits=8, **{**near, **floor, "emd_low": 0.001, "emd_high": 0.04})
    unknown = folders.row("u", spec="u", bits=3, **near)
    entries = entries_of([*apart, wide, unknown])
    assert [entry.kept.open_by for entry in entries] == ["seeds", "images", "floor"]
    assert (
        "3 are undecided (1 for want of images, 1 for want of seeds, 1 for want of a noise floor)."
        in verdict(entries)[0]
    )
    assert [record["undecided_for_want_of"] for record in records(entries)] == ["seeds", "images", "floor"]


def test_one_seed_has_no_spread(folders):
    (entry,) = entries_of([folders.row()])
    assert entry.spread("accuracy") is None
    assert cells_of(entry)["multiple"] == "–"


def test_a_seed_without_control_leaves_no_multiple(folders):
    rows = [*seeds(folders, "x", [0.9, 0.9], [0.01, 0.01]), folders.control(seed=0)]
    assert entries_of(rows)[0].multiple is None


def test_best_keeps_accuracy_first_and_then_drifts_least(folders):
    rows = [
        folders.row("exact", spec="1", accuracy=0.9, emd_layer_mean=0.02),
        folders.row("near", spec="2", accuracy=0.89, emd_layer_mean=0.01),
        folders.row("calm", spec="3", accuracy=0.5, emd_layer_mean=0.001),
        folders.row("two bad", spec="4", bits=2, accuracy=0.3, emd_layer_mean=0.5),
        folders.row("two less bad", spec="5", bits=2, accuracy=0.4, emd_layer_mean=0.9),
        folders.control(),
    ]
    best = best_per_bits(entries_of(rows))
    assert [(item.bits, item.entry.cells[0], item.of) for item in best] == [("2", "two less bad", 2), ("4", "near", 3)]
    assert default_entry(entries_of(rows)).cells == ("near",)


def test_verdict_names_the_fewest_bits_that_keep_both(folders):
    rows = [
        folders.control(),
        folders.row("eight", spec="8", bits=8, emd_layer_mean=0.001),
        folders.row("four", spec="4", bits=4, emd_layer_mean=0.004),
        folders.row("two", spec="2", bits=2, emd_layer_mean=0.05),
        folders.row("one", spec="1", bits=1, accuracy=0.1, emd_layer_mean=0.001),
        folders.row("state", spec="m", target="membrane", bits=2, emd_layer_mean=0.02, placement="pre_fire"),
    ]
    first, weights, membranes = verdict(entries_of(rows))
    assert first == "2 of 5 settings keep accuracy and firing, 3 fail, none are undecided. The control is not counted."
    assert weights == (
        "Weights, fewest bits that keep both: uniform 4 bit, [-1, 1], ptq; accuracy 90.00 % (+0.00 points), "
        "EMD 0.00400 (0.8× (0.75 to 0.86) the control)."
    )
    assert membranes.startswith(
        "Membranes, closest of those that do not fail accuracy: uniform 2 bit, [-1, 1], pre_fire, ptq;"
    )


def test_what_is_kept(folders):
    rows = [
        folders.control(),
        folders.row("a", spec="a", emd_layer_mean=0.005),
        folders.row("b", spec="b", emd_layer_mean=0.05),
        folders.row("c", spec="c", accuracy=0.8, emd_layer_mean=0.001),
        folders.row("d", spec="d", accuracy=0.8, emd_layer_mean=0.1),
        folders.row("e", spec="e", emd_layer_mean=0.01),
    ]
    assert [entry.verdict for entry in entries_of(rows)[1:]] == [
        "✓ keeps", "✗ fails firing", "✗ fails accuracy", "✗ fails", "? undecided firing",
    ]  # fmt: skip
    # a margin decides the last
    assert entries_of(rows, Margins(firing=3))[-1].verdict == "✓ keeps"
    # without a reference it is not known whether firing is kept
    assert [entry.verdict for entry in entries_of(rows[1:4])] == [
        "? undecided firing", "? undecided firing", "✗ fails accuracy",
    ]  # fmt: skip


def test_overview_has_a_line_for_settings_that_differ_in_their_bits_alone(folders):
    rows = [folders.control()]
    rows += [
        folders.row(f"{span}{bits}", spec=f"{span}{bits}", bits=bits, range=span) for span in "ab" for bits in (8, 2)
    ]
    rows.append(folders.row("t", spec="t", bits=4, granularity="tensor", range="a", emd_layer_mean=0.001))
    found = overview(entries_of(rows))
    assert found["columns"] == ["2", "4", "8"]
    (group,) = found["groups"]
    assert [line["more"] for line in group["lines"]] == ["a, ptq", "b, ptq", "a, per tensor, ptq"]
    assert [field and field["word"] for field in group["lines"][0]["fields"]] == [
        "? undecided firing",
        None,
        "? undecided firing",
    ]
    assert [field and (field["kept"], field["multiple"]) for field in group["lines"][2]["fields"]] == [
        None, ("keeps", "0.2×"), None
    ]  # fmt: skip
    assert overview(entries_of(rows[:1])) is None


def test_verdict_without_reference_claims_nothing_about_firing(folders):
    assert "no control and no noise floor" in verdict(entries_of([folders.row()]))[1]
    assert "drift has no reference" in explained(entries_of([folders.row()]))[1]
    assert verdict([]) == ["No quantized setting has finished yet."]


def test_verdict_when_nothing_keeps_both(folders):
    rows = [folders.control(), folders.row("a", emd_layer_mean=0.05)]
    told = "None of 1 setting keeps accuracy and firing, 1 fails, none are undecided. The control is not counted."
    assert verdict(entries_of(rows))[0] == told
    rows[1] = folders.row("a", accuracy=0.2)
    assert verdict(entries_of(rows))[1].startswith("Weights, all fail accuracy, least lost by: uniform 4 bit")


def test_references_are_explained(folders):
    rows = [folders.control(), folders.row("a", spec="a"), folders.row("b", spec="b", emd_floor=0.02, floor="images")]
    rule, first, *kinds = explained(entries_of(rows))
    assert "accuracy lost is at most 1 point" in rule
    assert "the larger of its own and the drift of its control" in first
    assert [text.partition(":")[0] for text in kinds] == ["Control", "Image floor"]
    assert reference_name(entries_of(rows)) == "reference"
    assert reference_name(entries_of(rows[:2])) == "control"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_pareto_front_against_brute_force(folders, points):
    rows = [
        folders.row(str(i), spec=str(i), accuracy=a / 10, emd_layer_mean=d / 100) for i, (a, d) in enumerate(points)
    ]
    front = {(e.mean("accuracy"), e.mean("emd_layer_mean")) for e in pareto_front(entries_of(rows))}
    values = {(row["accuracy"], row["emd_layer_mean"]) for row in rows}
    expected = {p for p in values if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in values)}
    assert front == expected


def test_controls_are_not_on_the_front(folders):
    assert pareto_front(entries_of([folders.control(accuracy=1.0, emd_layer_mean=0.0)])) == []


def test_bits_of_every_form_have_an_order():
    shuffled = ["4 | 8", 8, 1.585, "2 | 4", 2, None]
    for order in itertools.islice(itertools.permutations(shuffled), 20):
        assert sorted(order, key=bits_order) == [1.585, 2, "2 | 4", "4 | 8", 8, None]
    assert [bits_text(bits) for bits in (1.585, 2, 2.0, "2 | 4", None)] == ["1.58", "2", "2", "2 | 4", "-"]


def test_titles(folders):
    assert title_of(folders.row()) == "weights uniform 4 bit, [-1, 1], per channel, ptq"
    assert (
        title_of(folders.row(range="learned", method="lsq", mode="qat"))
        == "weights lsq 4 bit, learned range, per channel, qat"
    )
    assert title_of(folders.control()) == "control: BN re-estimated (ptq)"


def test_settings_that_these_images_do_not_rank_are_tied(folders):
    rows = [
        folders.control(),
        folders.row("a", spec="a", emd_layer_mean=0.0040),
        folders.row("b", spec="b", emd_layer_mean=0.0042),
        folders.row("c", spec="c", emd_layer_mean=0.0060),
        folders.row("d", spec="d", emd_layer_mean=0.0041, accuracy=0.5),
    ]
    (best,) = best_per_bits(entries_of(rows))
    assert (best.entry.cells, best.of, best.tied, of_text(best)) == (("a",), 4, 1, "4, 1 tied")


def test_a_column_has_one_number_of_decimals(folders):
    rows = [folders.row(str(d), spec=str(d), emd_layer_mean=d, paired_mae=2 * d) for d in (0.35, 0.0041, 0.00048)]
    entries = entries_of(rows)
    places = places_of(entries)
    assert [cells_of(entry, places)["emd"] for entry in entries] == ["0.35000", "0.00410", "0.00048"]
    assert [cells_of(entry, places)["paired_mae"] for entry in entries] == ["0.70000", "0.00820", "0.00096"]
    assert cells_of(entries[0])["emd"] == "0.350"


def test_a_network_of_ones_own_is_named_as_the_sweeps_file_names_it():
    planned = {"key": "k", "name": "network", "seed": None}
    config = {"baselines": [{"name": "network", "builder": "nets:build", "file": "w.safetensors", "pretrained": None}]}
    known = {"model": None, "data": {"name": "nets:load"}, "accuracy": {"test": {"accuracy": 0.9, "n": 10}}}
    for found in (known, None):
        (line,) = baseline_lines([(planned, found)], config)
        assert (line["seed"], line["model"]) == ("–", "nets:build, w.safetensors")
    (line,) = baseline_lines([({**planned, "seed": 3}, known)], None)
    assert (line["seed"], line["model"]) == ("3", "–")
