"""A measure is one record: what an outside package registers goes through everything that is made of firing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from isofire.errors import DataError, SpecError
from isofire.firing import MEASURES, Comparison, Firing, Measure, Observation, SpikeCounts, register_measure
from isofire.firing.evidence.noise_floor import control_floor, image_floor, seed_floor
from isofire.firing.limits import Limits
from isofire.firing.measures import BUILT_IN, columns, quantities, quantity
from isofire.firing.metrics import metric_of
from isofire.firing.verdict import judge
from isofire.study import known_columns, markdown_table, read_rows, text_table, write_rows


def recording(seed: int, scale: float = 1.0) -> SpikeCounts:
    """20 blocks of 10 images, T = 4, of two layers with Bernoulli neurons."""
    rng = np.random.default_rng(seed)
    layers = {}
    for number, size in enumerate((60, 30)):
        rates = 0.6 * np.random.default_rng(number).beta(0.5, 5, size)
        layers[f"l{number}"] = torch.from_numpy(rng.binomial(40, np.clip(scale * rates, 0, 1), (20, size))).int()
    return SpikeCounts(layers, torch.full((20,), 10), 4)


def compared(scale: float = 1.6) -> Comparison:
    return Comparison.of(recording(0), recording(1, scale), accuracy=0.8, accuracy_fp=0.9, agreement=0.7)


def test_a_comparison_has_the_measure_per_layer_and_over_all(ks: Measure) -> None:
    found = compared()
    gaps = {
        name: stats.ks_2samp(found.baseline.rates(name).numpy(), found.quantized.rates(name).numpy()).statistic
        for name in ("l0", "l1")
    }
    assert {layer.layer: layer.ks for layer in found.layers} == pytest.approx(gaps)
    assert found.overall["ks"] == pytest.approx(sum(gaps.values()) / 2)
    everywhere = stats.ks_2samp(found.baseline.rates().numpy(), found.quantized.rates().numpy())
    assert found.overall["ks_pooled"] == pytest.approx(everywhere.statistic)
    assert found.row()["ks"] == found.overall["ks"]
    assert found.to_dict()["layers"][0]["ks"] == pytest.approx(gaps["l0"])
    assert " KS" in found.table()


def test_it_has_intervals_and_every_floor(ks: Measure) -> None:
    found = compared()
    evidence = found.evidence
    assert evidence is not None
    interval = evidence.intervals.overall["ks"]
    assert 0 < interval.low < interval.high <= 1
    assert interval.estimate == pytest.approx(found.overall["ks"])
    assert interval.resolved
    assert evidence.intervals.layers["l1"]["ks"].estimate == pytest.approx(found.layers[1].ks)
    assert evidence.intervals.overall["ks_pooled"].estimate == pytest.approx(found.overall["ks_pooled"])
    # the same network on other images is nearer to itself than a network that fires 60 % more
    assert 0 < evidence.against("ks").floor.value < found.overall["ks"]  # type: ignore[union-attr]
    assert not compared(1.0).evidence.against("ks").interval.low > 0  # type: ignore[union-attr]
    runs = [recording(seed, 1.1) for seed in (2, 3, 4)]
    for floor in (image_floor(recording(0)), seed_floor(runs), control_floor(recording(0), runs)):
        assert floor.get("ks").value > 0  # type: ignore[union-attr]
        assert floor.get("ks", "l0").value > 0  # type: ignore[union-attr]


def test_it_is_a_column_of_rows_and_tables(ks: Measure, tmp_path: Path) -> None:
    row = compared().row(model="m", method="lsq", bits=4)
    assert list(known_columns()).index("ks") > list(known_columns()).index("spearman")
    (file, other) = write_rows(tmp_path, [row, row | {"ks": float("nan")}])
    first, second = read_rows(file)
    assert first["ks"] == row["ks"]
    assert np.isnan(second["ks"])
    assert np.isnan(read_rows(other)[1]["ks"])
    for table in (text_table([row], width=200), markdown_table([row])):
        assert f"{row['ks']:.3f}" in table
        assert "KS: largest gap between the distribution functions of the rates, mean over layers" in table.replace(
            "\n", " "
        )


def test_it_can_be_limited(ks: Measure) -> None:
    right = torch.ones(200, dtype=torch.int64)
    before, after = (Observation(counts, right, right) for counts in (recording(0), recording(1, 1.6)))

    def outcome(**limits: dict[str, float]) -> str:
        return judge(before, after, Limits(**limits), quantized=torch.nn.Identity()).outcome  # type: ignore[arg-type]

    assert outcome(most={"ks": 0.9}) == "keeps"
    assert outcome(most={"ks_pooled": 0.001}) == "fails"
    assert outcome(multiples={"ks": 100.0}) == "keeps"
    assert outcome(multiples={"ks": 0.1}) == "fails"


def test_an_installed_package_adds_it_to_the_program(plugin_path: str, tmp_path: Path) -> None:
    """A fresh process that only finds the package's entry point: check, compare, rows, the table on the screen."""
    script = """
import torch
from isofire.models import build, save_model
from isofire import data
torch.manual_seed(0)
model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
images = next(iter(data.load("digits", "train").batches(128)))[0]
for _ in range(20):
    model.train()(images)
save_model("a.safetensors", model.eval())
for parameter in model.parameters():
    parameter.data *= 0.9
save_model("b.safetensors", model)
from isofire.cli import main
both = ["a.safetensors", "b.safetensors", "--data", "digits", "--n", "100", "--device", "cpu"]
assert main(["compare", *both, "-o", "out"]) == 0
raise SystemExit(main(["check", *both, "--max", "ks=1", "--max", "ks=0.0001x", "--json"]))
"""
    environment = os.environ | {"PYTHONPATH": plugin_path, "COLUMNS": "160"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    shown, _, document = done.stdout.partition("\n{")
    assert done.returncode == 1, done.stderr
    assert " KS" in shown
    findings = json.loads("{" + document)["findings"]
    # untrained networks guess, which is a finding too
    found = [(item["name"], item["outcome"]) for item in findings if item["name"] != "baseline"]
    assert found == [("ks", "keeps"), ("ks", "fails")]
    (row,) = csv.DictReader((tmp_path / "out" / "row.csv").open())
    assert 0 < float(row["ks"]) <= 1


def made(**changes: object) -> Measure:
    fields = {"name": "mine", "title": "mine", "of": lambda *firing: 0.0}
    return Measure(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": 3}, r"networks must be one of 1, 2, got 3 \(measure 'mine'\)"),
        ({"overall": {"mine": "sum"}}, "overall must be one of 'neurons', 'layers', 'max', 'pooled', got 'sum'"),
        ({"overall": {"mine_fp": "max"}}, "without the ending _fp or _change"),
        ({"worse": "up"}, "worse must be one of"),
        ({"shown": ("page",)}, "shown must be one of"),
        ({"of": 3}, "of must be a function"),
        ({"low": 1.0, "high": 1.0}, "low must be below high"),
        ({"distance": True, "low": -1.0}, "a distance is of two networks, from 0 on"),
        ({"distance": True, "networks": 1}, "a distance is of two networks"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made(**changes)


@pytest.mark.parametrize("name", [7, None, "a b", "ä", "mine_change", "mine_fp"])
def test_a_measure_has_a_name_that_can_be_a_column(name: object) -> None:
    with pytest.raises(SpecError, match="must be an identifier"):
        made(name=name)


def test_a_function_takes_as_many_networks_as_the_measure_says() -> None:
    with pytest.raises(SpecError, match=r"of must take \(baseline, quantized\), got \(firing\) \(measure 'mine'\)"):
        made(of=lambda firing: 0.0)
    with pytest.raises(SpecError, match=r"of must take \(firing\), got \(a, b\)"):
        made(of=lambda a, b: 0.0, networks=1)
    made(of=lambda *firing: 0.0)
    made(of=max)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (lambda a, b: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda a, b: None, "must give a number, got NoneType"),
        (lambda a, b: "0.5", "must give a number, got str"),
        (lambda a, b: a.rates, "must give a number, got ndarray"),
        (lambda a, b: 1.5, "gave 1.5, but the measure says it is finite and from 0 to 1, as a distance is"),
        (lambda a, b: -0.1, "gave -0.1, but the measure says"),
        (lambda a, b: np.inf, "gave inf, but the measure says"),
    ],
)
def test_a_function_that_does_not_give_what_its_measure_says_is_named(of: Any, message: str) -> None:
    register_measure(made(of=of, distance=True, high=1.0))
    try:
        with pytest.raises(SpecError, match=f"the function of measure 'mine' of layer 'l0' {message}"):
            compared()
        metric = metric_of("mine")
        metric.update(torch.ones(2, 2, 2), torch.ones(2, 2, 2))
        with pytest.raises(SpecError, match=f"the function of measure 'mine' of all neurons {message}"):
            metric.compute()
    finally:
        MEASURES.unregister("mine")


@pytest.mark.parametrize("value", [0.0, 1, np.float32(0.5), np.array(0.25), torch.tensor(0.5), np.nan, 1 + 1e-12])
def test_every_kind_of_number_within_rounding_is_a_value(value: Any) -> None:
    found = made(of=lambda a, b: value, high=1.0).value(*[Firing(np.array([1]), 2)] * 2)
    assert type(found) is float
    assert found == pytest.approx(float(value), nan_ok=True)


def test_draws_may_leave_what_firing_can_be() -> None:
    """The world with unchanged rates moves rates of 1 beyond 1."""
    top = made(of=lambda a, b: float(b.rates.max()), high=0.5)
    assert top.layer_values(*[Firing(np.array([3]), 2)] * 2, drawn=True) == {"mine": 1.5}
    with pytest.raises(SpecError, match=r"gave 1\.5"):
        top.layer_values(*[Firing(np.array([3]), 2)] * 2)


@pytest.mark.parametrize(
    ("counts", "denominator", "message"),
    [
        (np.array([3, -1]), 4, "counts must be >= 0, got -1 at neuron 1"),
        (np.array([np.nan, 1.0]), 4, "counts must be >= 0, got nan"),
        (np.array([1]), 0, "denominator must be T \\* images >= 1, got 0"),
        (np.array([1]), -4, "got -4"),
        (np.array([]), 4, "n >= 1"),
        (np.array([[1]]), 4, "n >= 1"),
        ([1], 4, "must be an array"),
    ],
)
def test_firing_is_counts_of_some_images(counts: Any, denominator: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Firing(counts, denominator)
    assert Firing(np.array([9]), 4).rates.tolist() == [2.25]


def test_names_are_used_once() -> None:
    for name in ("mfr", "emd_max", "accuracy", "neurons"):
        with pytest.raises(SpecError, match=f"'{name}', a value of measure 'mine', is the name of a value of"):
            register_measure(made(overall={name: "neurons"}, networks=1))
    with pytest.raises(SpecError, match=r"must be an isofire\.firing\.Measure, got str"):
        register_measure("emd")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="between must name two distances, 'spearman' is none"):
        register_measure(made(distance=True, between=("shift", "spearman")))
    assert "mine" not in MEASURES


def test_every_value_of_a_measure_has_a_name() -> None:
    assert set(columns()) <= set(quantities(layer=False))
    assert {item.measure for item in quantities(layer=True).values()} == set(BUILT_IN)
    assert quantity("spearman")[1].bounds == (-1, 1)
    assert quantity("dead_05_change")[1].bounds == (-1, 1)
    assert quantity("mfr_change")[1].bounds == (-np.inf, np.inf)
    with pytest.raises(SpecError, match="unknown measure of firing 'emt'; did you mean 'emd'"):
        quantity("emt")


def test_limits_of_measures_are_refused_where_they_mean_nothing() -> None:
    for limits, message in (
        ({"most": {"spearman": 0.5}}, "a lower spearman is worse, so a limit is the least"),
        ({"least": {"emd": 0.5}}, "a higher emd_weighted is worse, so a limit is the most"),
        ({"most": {"dead_05": 2.0}}, "<= 1, a share, dead_05 is 2.0"),
        ({"most": {"mfr_fp": 0.2}}, "mfr_fp is the baseline's"),
        ({"multiples": {"spearman": 2.0}}, "spearman has no noise floor"),
        ({"most": {"nothing": 2.0}}, "unknown measure"),
        ({}, "at least one limit"),
    ):
        with pytest.raises(SpecError, match=message):
            Limits(**limits)  # type: ignore[arg-type]


def test_a_measure_of_the_rates_of_one_network_has_a_baseline_and_a_change() -> None:
    median = register_measure(
        Measure(name="median", title="median rate", of=lambda firing: float(np.median(firing.rates)), networks=1)
    )
    try:
        found = compared()
        for layer in found.layers:
            assert layer.median == np.median(found.quantized.rates(layer.layer).numpy())
            assert layer.median_fp == np.median(found.baseline.rates(layer.layer).numpy())
        evidence = found.evidence
        assert evidence is not None
        change = found.overall["median"] - found.overall["median_fp"]
        assert evidence.intervals.overall["median_change"].estimate == pytest.approx(change)
        assert evidence.against("median_change").floor is not None
        assert evidence.against("median").floor is None
    finally:
        MEASURES.unregister(median.name)


def test_a_correlation_is_limited_from_below() -> None:
    right = torch.ones(200, dtype=torch.int64)
    before, after = (Observation(counts, right, right) for counts in (recording(0), recording(1, 1.6)))
    verdict = judge(before, after, Limits(least={"spearman": 0.2}), quantized=torch.nn.Identity())
    (finding,) = verdict.findings
    assert (finding.outcome, finding.at) == ("keeps", "least")
    assert finding.low <= finding.value <= finding.high
    assert "≥ 0.2" in verdict.table()
    # the rates were scaled, so their order did not change: what keeps the correlation from 1 is noise
    assert judge(before, after, Limits(least={"spearman": 1.0}), quantized=torch.nn.Identity()).outcome == "undecided"
    counts = {name: blocks.flip(1) for name, blocks in after.counts.counts.items()}
    shuffled = Observation(SpikeCounts(counts, torch.full((20,), 10), 4), right, right)
    assert judge(before, shuffled, Limits(least={"spearman": 0.9}), quantized=torch.nn.Identity()).outcome == "fails"


def test_firing_is_counts_and_rates() -> None:
    assert Firing(np.array([0, 2, 4]), 8).rates.tolist() == [0, 0.25, 0.5]
