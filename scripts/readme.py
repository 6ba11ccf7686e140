"""`python -m scripts.readme`: README's tables and docs/cifar10.md from the stored runs; `--check` only compares."""

from __future__ import annotations

import json

from scripts.evidence.interval import interval_of
from scripts.evidence.run import BASELINE, FOLDER, ROOT
from scripts.findings.__main__ import RUN, load, load_floors
from scripts.findings.cells import MEMBRANES, MODES, WEIGHTS, Cells, Row
from scripts.findings.noise import NAMES, Floors
from scripts.findings.statistics import require_equal, standard_error
from scripts.page import keep

from isofire.firing.evidence.noise_floor import FloorValue
from isofire.firing.evidence.outcome import MARKS, Margins
from isofire.models import pretrained

PAGE = ROOT / "docs" / "cifar10.md"
RATES = "results/2026-11-28_digits-rates"
SHORT = (
    (WEIGHTS[0], 2, "ptq"), (WEIGHTS[3], 4, "ptq"), (MEMBRANES[1], 2, "ptq"), (MEMBRANES[1], 8, "ptq"),
    (MEMBRANES[3], 8, "ptq"),
)  # fmt: skip
"""README's five rows: settings that fail and settings that keep, of weights and of states."""
SHOWN_BITS = (1.585, 2, 4, 8)


def section(name: str, body: str, text: str) -> str:
    """`text` with what stands between the markers of `name` replaced by `body`."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = text.partition(start)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"README.md has no markers {start.strip()} and {end}")
    return f"{head}{start}{body}\n{end}{tail}"


PLAINER = {
    "a drift of their size says nothing about a quantizer": "drift this small cannot be attributed to the quantizer",
}
"""What the stored run's own page says -> the same in plainer words; what was stored stays as it is."""


def table(cells: Cells, floors: Floors) -> str:
    """A line a setting and number of bits: accuracy, EMD with its interval, and EMD over its floor, both modes."""
    lines = [_line("nothing (control)", "", [cells.control(mode) for mode in MODES], floors)]
    for setting in (*WEIGHTS, *MEMBRANES):
        for bits in SHOWN_BITS:
            rows = [cells.of(setting, mode).get(bits) for mode in MODES]
            if any(rows):
                lines.append(_line(f"{setting.target}, {setting.name}", f"{bits:g}", rows, floors))
    for first, second in zip(*(cells.both(mode) for mode in MODES), strict=True):
        method = {"lsq": "LSQ", "lqnet": "LQ"}[str(first["method"]).split(" ")[0]]
        lines.append(_line(f"both, {method} and {MEMBRANES[3].name}", str(first["bits"]), [first, second], floors))
    head = (
        "| quantized | bits | PTQ acc % | EMD × 1000 | EMD ÷ noise floor | QAT acc % | EMD × 1000 | EMD ÷ noise floor |"
    )
    return "\n".join([head, "|---|" + "---:|" * 7, *lines])


def verdict_note(of: str) -> str:
    """What the marks say, and which floor drift is a multiple of."""
    marks = f"{MARKS['keeps']} keeps {of}, {MARKS['fails']} fails, {MARKS['undecided']} undecided"
    if of != "firing":
        return (
            f"{marks}: the 95 % intervals of the accuracy lost and of drift ÷ floor against margins of "
            f"{100 * Margins().accuracy:g} point and {Margins().firing:g}. Floor: what 1,000 other images do to the "
            "baseline."
        )
    return (
        f"{marks}: the whole 95 % interval of EMD ÷ noise floor is at most {Margins().firing:g}, none of it is, or "
        "some. Noise floor: the larger of what 1,000 other images do to the baseline and of the control with its steps."
    )


def floor_table(floors: Floors) -> str:
    """What EMD is without quantization."""
    uses = {
        "images": f"of as many; of 1,000, the floor without a larger control, {1000 * floors.image_floor().value:.2f}",
        "ptq": f"{floors.runs} runs; smaller than that, so not the floor",
        "qat": f"{floors.runs} runs; the floor of QAT",
        "seeds": f"{len(floors.networks)} networks, all pairs; for comparison",
    }
    lines = [f"| {name} | {_thousandths(floors.value(kind))} | {uses[kind]} |" for kind, name in NAMES.items()]
    return "\n".join(["| no quantization, but | EMD × 1000 | |", "|---|---:|---|", *lines])


def short_table(cells: Cells, floors: Floors) -> str:
    """README's five rows: what was quantized, accuracy, drift as a multiple of its floor, and the verdict on both."""
    lines = []
    for setting, bits, mode in SHORT:
        row = cells.of(setting, mode)[bits]
        found = floors.kept(row)
        assert found.multiple is not None
        times = f"{found.multiple.estimate:.1f} ({found.multiple.low:.1f} to {found.multiple.high:.1f})"
        drop = f"{100 * row['accuracy']:.1f} ({-100 * found.drop.estimate:+.1f})"
        lines.append(
            f"| {setting.target}, {setting.name} | {bits:g} | {drop} | {times} | {MARKS[found.outcome]} {found.words} |"
        )
    return "\n".join(["| quantized | bits | accuracy % | drift ÷ noise floor | |", "|---|---:|---:|---:|---|", *lines])


def about() -> str:
    """The network, its data and what was done, as the stored run's own page says it."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8").split("\n\n")[1].strip()
    for stored, said in PLAINER.items():
        text = text.replace(stored, said)
    return text


def readme() -> str:
    """README.md as the stored run says."""
    cells, floors = load(), load_floors()
    row = cells.rows[0]
    note = (
        f"SEW-ResNet-8 on CIFAR-10 ({100 * row['accuracy_fp']:.1f} % in full precision), quantized after training, "
        f"first {row['n_images']:,} test images. {verdict_note('accuracy and firing')} In brackets: the change in "
        "points, and 95 % intervals. "
        f"All 102 cells, with training too: [docs/cifar10.md](docs/cifar10.md); what follows from them: "
        f"[docs/findings.md](docs/findings.md). Stored run: [{RUN}]({RUN})."
    )
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = section("table", f"{short_table(cells, floors)}\n\n{note}", text)
    return section("lines", f"```text\n{ten_lines()}\n```", text)


def ten_lines() -> str:
    """The first lines that README's example prints, as `python -m scripts.readme_rates` stored them."""
    return json.loads((ROOT / RATES / "rates.json").read_text(encoding="utf-8"))["lines"]


def page() -> str:
    """docs/cifar10.md: every setting."""
    cells, floors = load(), load_floors()
    test = pretrained(BASELINE).__dict__["about"]["accuracy"]["test"]
    row = cells.rows[0]
    head = (
        f"Baseline: {100 * test['accuracy']:.2f} % of {test['n']:,} test images, {100 * row['accuracy_fp']:.2f} % of "
        f"these {row['n_images']:,} (one standard error {standard_error(row):.2f} points), mean rate {_rate(cells)}."
    )
    require_equal(cells, WEIGHTS[1], (2, 4), "ptq")
    noise = (
        "In brackets: 95 % intervals of EMD over images, as many as these; of floors where 95 % of single draws of "
        f"images, runs of the control and pairs of networks lie. {verdict_note('firing')} "
        "Intervals and floors are of EMD, mean over layers, as these images show it. "
        "Weights on the ±10 grids of 2 and 4 bits keep nothing but signs: the two are one network after training. "
        "What each number means: [evidence.md](evidence.md). What follows from the cells: [findings.md](findings.md)."
    )
    parts = ["# Every setting on CIFAR-10", about(), head, table(cells, floors), floor_table(floors)]
    return "\n\n".join([*parts, f"{noise} Stored run: [{RUN}](../{RUN})."]) + "\n"


def main() -> int:
    """0 if the pages are (now) what the run gives, 1 if `--check` finds they are not."""
    command = "python -m scripts.readme"
    return max(keep(ROOT / "README.md", readme(), command), keep(PAGE, page(), command))


def _line(name: str, bits: str, rows: list[Row | None], floors: Floors) -> str:
    parts = [name, bits]
    for row in rows:
        if row is None:
            parts += ["", "", ""]
        else:
            parts += [f"{100 * row['accuracy']:.1f}", _with_interval(row), floors.shown(row)]
    return "| " + " | ".join(parts) + " |"


def _with_interval(row: Row) -> str:
    found = interval_of(row)
    return f"{1000 * found.estimate:.2f} ({1000 * found.low:.2f} to {1000 * found.high:.2f})"


def _thousandths(floor: FloorValue | None) -> str:
    return "" if floor is None else f"{1000 * floor.value:.2f} ({1000 * floor.low:.2f} to {1000 * floor.high:.2f})"


def _rate(cells: Cells) -> str:
    return f"{cells.rows[0]['mfr_fp']:.4f} spikes per neuron per step"


if __name__ == "__main__":
    raise SystemExit(main())
