"""A sweep for a paper: LaTeX that LaTeX takes, numbers as on the page, figures of column width."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from isofire.report.figures import COLUMN, write_figures
from isofire.report.latex import escaped
from isofire.report.methods import BIBLIOGRAPHY, methods
from isofire.report.paper import latex, latex_table
from isofire.report.scope import listed, scope
from isofire.report.study import Study

COST = {"weight_kib": 10.0, "state_kib": 4.0, "weight_kib_fp": 80.0, "state_kib_fp": 4.0, "synops_p50": 110_400.0,
        "synops_p50_fp": 109_862.0, "energy_uj": 0.194, "energy_uj_fp": 1.351}  # fmt: skip
SPEC = {"weights": {"method": "uniform"}, "first_layer": "float", "last_layer": "float", "reestimate_bn": "weights",
        "rules": []}  # fmt: skip


@pytest.fixture
def study(folders):
    rows = [
        folders.control(**COST),
        folders.row("a", spec="a", emd_layer_mean=0.004, **COST),
        folders.row("b_1", spec="b", bits=2, emd_layer_mean=0.9, accuracy=0.2, **COST),
        folders.row("s", spec="s", target="membrane", method="firing", bits=2, placement="post_reset", **COST),
        folders.row("o", spec="o", target="both", method="gptq | firing", bits="4 | 2", options="a_b=<1>", **COST),
        folders.row("q", spec="q", bits=3, mode="qat", **COST),
    ]
    return Study.of(folders.MadeView(rows))


def body(table):
    lines = table.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    return [line for line in lines if "&" in line]


def test_the_baseline_has_a_line_and_every_setting_after_it(study):
    table = latex_table(study)
    first, *settings = body(table)
    heads = table.split(r"\toprule")[1].split(r"\midrule")[0]
    assert {line.count("&") for line in (first, *settings, heads)} == {8}
    row = study.rows[0]
    assert [part.strip(" \\") for part in first.split("&")] == [
        "full precision", "32", f"{100 * row['accuracy_fp']:.2f}", "--", "--", "84.0", "110", "1.35", "--",
    ]  # fmt: skip
    assert len(settings) == len(study.entries)
    assert [line.split(" &")[0] for line in settings] == [
        "control, ptq",
        "uniform",
        "uniform",
        "uniform, qat",
        "firing",
        "gptq + firing",
    ]
    assert re.search(r"\$\\checkmark\$|\$\\times\$ (acc\.|firing|both)|\? ", settings[1])
    assert r"\label{tab:" in table


def test_no_number_has_an_exponent_and_no_character_another_meaning(study):
    text = latex(study)
    said = text.split("% @inproceedings")[0]
    assert not re.search(r"\de[+-]\d", said)
    assert not re.search(r"(?<!\\)[#_]", said)
    assert not set("|<>µ±×÷✓✗–∞") & set(said)
    assert escaped("a|b <c> µ 5 %") == r"a\textbar{}b \textless{}c\textgreater{} $\mu$ 5~\%"


def test_cited_is_what_the_bibliography_has(study):
    cited = set(re.findall(r"\\cite\{(\w+)\}", methods(study)))
    assert cited == set(re.findall(r"^@\w+\{(\w+),", BIBLIOGRAPHY, re.MULTILINE))


def test_methods_tell_what_was_run(study):
    text = methods(study)
    assert "qat: trained with the quantizers in place" in latex_table(study)
    row = study.rows[0]
    assert f"is right on {100 * row['accuracy_fp']:.2f}~\\% of 4,000 test images" in text
    assert "at most 1 point, and firing if that of drift over floor is at most 2" in text
    assert "not a measurement" in text
    assert "weights by uniform (2 and 4 bits" in text
    assert re.search(r"weights by uniform \(3 bits; [^;]*with training", text)


def test_calibration_and_batch_norm_are_told_as_they_were(folders):
    def told(spec, **changes):
        rows = [folders.row("a", spec="a", calibration_images=256, **changes)]
        view = folders.MadeView(rows)
        view.plan["cells"][0]["spec"] = spec
        return methods(Study.of(view))

    assert "calibrated on 256 training images" in told(SPEC)
    assert "measured anew on these images where weights were quantized" in told(SPEC)
    assert "left as they were" in told(SPEC | {"reestimate_bn": "never"})
    assert "left as they were" in told(SPEC | {"weights": None})
    assert re.search(r"on these images\.$", told(SPEC | {"reestimate_bn": "always"}), re.MULTILINE)
    assert "Batch-norm" not in told(SPEC, mode="qat")


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("float", "float", "the first and the last layer with weights stay in full precision"),
        ("quantize", "float", "the last layer with weights stays in full precision"),
        ("quantize", "quantize", "the first and the last layer among them"),
    ],
)
def test_what_stays_in_full_precision_is_said(folders, first, last, said):
    view = folders.MadeView([folders.row("a", spec="a")])
    view.plan["cells"][0]["spec"] = SPEC | {"first_layer": first, "last_layer": last}
    assert said in " ".join(scope(Study.of(view)))
    view.plan["cells"][0]["spec"] = SPEC | {"weights": None}
    assert scope(Study.of(view)) == []
    assert listed([1, 2, 3]) == "1, 2 and 3"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("options", ["", "[10pt,twocolumn]"])
@pytest.mark.parametrize("long", [False, True])
def test_latex_takes_it_and_it_fits(study, folders, tmp_path, options, long):
    if long:
        more = [
            folders.row(p, spec=p, placement=p, granularity=g, options="correct=bias", seed=seed, **COST)
            for p, g in (("pre_fire", "channel"), ("post_reset", "layer")) for seed in (0, 1)
        ]  # fmt: skip
        study = Study.of(folders.MadeView([*study.rows, *more]))
    head = f"\\documentclass{options}{{article}}\\usepackage{{booktabs,amssymb}}\\begin{{document}}"
    (tmp_path / "p.tex").write_text(f"{head}\n{latex(study)}\n\\end{{document}}")
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "p.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout
    assert "Overfull" not in run.stdout


def test_figures_are_as_wide_as_a_column(study, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    written = write_figures(study, tmp_path / "report.html", "svg")
    assert [path.name for path in written] == ["report-scatter.svg", "report-memory.svg"]
    for path in written:
        width = re.search(r'<svg[^>]*width="([\d.]+)pt"', path.read_text())
        assert width is not None
        assert float(width[1]) == pytest.approx(72 * COLUMN)
