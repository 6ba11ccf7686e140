"""`python -m scripts.readme`: README's table and figure from the stored first look; `--check` only compares."""

from __future__ import annotations

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

FIGURE = f"{RUN}/weights.png"
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


def verdict_note() -> str:
    """What the marks after multiples say, and which floor they are of."""
    marks = f"{MARKS['keeps']} keeps firing, {MARKS['fails']} fails, {MARKS['undecided']} undecided"
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


def readme() -> str:
    """README.md as the stored run says."""
    cells, floors = load(), load_floors()
    about = (FOLDER / "README.md").read_text(encoding="utf-8").split("\n\n")[1].strip()
    for stored, said in PLAINER.items():
        about = about.replace(stored, said)
    test = pretrained(BASELINE).__dict__["about"]["accuracy"]["test"]
    row = cells.rows[0]
    head = (
        f"Baseline: {100 * test['accuracy']:.2f} % of {test['n']:,} test images, {100 * row['accuracy_fp']:.2f} % of "
        f"these {row['n_images']:,} (one standard error {standard_error(row):.2f} points), mean rate {_rate(cells)}."
    )
    more = "All cells and what follows from them: [docs/findings.md](docs/findings.md)."
    require_equal(cells, WEIGHTS[1], (2, 4), "ptq")
    noise = (
        "In brackets: 95 % intervals of EMD over images, as many as these; of floors where 95 % of single draws of "
        "images, runs of the control and pairs of networks lie. "
        f"{verdict_note()} "
        "Intervals and floors are of EMD as these images show it. "
        "Weights on the ±10 grids of 2 and 4 bits keep nothing but signs: the two are one network after training. "
        "What each number means: [docs/evidence.md](docs/evidence.md)."
    )
    body = f"{about}\n\n{head}\n\n{table(cells, floors)}\n\n{floor_table(floors)}\n\n{noise} {more}"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = section("table", f"{body} Stored run: [{RUN}]({RUN}).", text)
    return section("figure", f"![Accuracy and EMD against bits, weights quantized]({FIGURE})", text)


def main() -> int:
    """0 if README.md is (now) what the run gives, 1 if `--check` finds it is not."""
    return keep(ROOT / "README.md", readme(), "python -m scripts.readme")


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
