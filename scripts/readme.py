"""`python -m scripts.readme`: README's table and figure from the stored first look; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.findings.__main__ import BASELINE, RUN, load
from scripts.findings.cells import MEMBRANES, MODES, WEIGHTS, Cells, Row, emd

from isofire.models import pretrained

ROOT = Path(__file__).parents[1]
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


def table(cells: Cells) -> str:
    """A line a setting and number of bits: accuracy, EMD and EMD as a multiple of the control's, both modes."""
    lines = [_line("nothing (control)", "", [cells.control(mode) for mode in MODES], cells)]
    for setting in (*WEIGHTS, *MEMBRANES):
        for bits in SHOWN_BITS:
            rows = [cells.of(setting, mode).get(bits) for mode in MODES]
            if any(rows):
                lines.append(_line(f"{setting.target}, {setting.name}", f"{bits:g}", rows, cells))
    for first, second in zip(*(cells.both(mode) for mode in MODES), strict=True):
        method = {"lsq": "LSQ", "lqnet": "LQ"}[str(first["method"]).split(" ")[0]]
        lines.append(_line(f"both, {method} and {MEMBRANES[3].name}", str(first["bits"]), [first, second], cells))
    head = "| quantized | bits | PTQ acc % | EMD | / control | QAT acc % | EMD | / control |"
    return "\n".join([head, "|---|" + "---:|" * 7, *lines])


def readme() -> str:
    """README.md as the stored run says."""
    cells = load()
    about = (ROOT / RUN / "README.md").read_text(encoding="utf-8").split("\n\n")[1].strip()
    test = pretrained(BASELINE).__dict__["about"]["accuracy"]["test"]
    head = f"Baseline: {100 * test['accuracy']:.2f} % of {test['n']:,} test images, mean rate {_rate(cells)}."
    more = "All cells and what follows from them: [docs/findings.md](docs/findings.md)."
    body = f"{about}\n\n{head}\n\n{table(cells)}\n\n{more}"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = section("table", f"{body} Stored run: [{RUN}]({RUN}).", text)
    return section("figure", f"![Accuracy and EMD against bits, weights quantized]({FIGURE})", text)


def main() -> int:
    """0 if README.md is (now) what the run gives, 1 if `--check` finds it is not."""
    wanted = readme()
    if "--check" in sys.argv:
        same = (ROOT / "README.md").read_text(encoding="utf-8") == wanted
        print("README.md is up to date" if same else "README.md differs: run `python -m scripts.readme`")
        return 0 if same else 1
    (ROOT / "README.md").write_text(wanted, encoding="utf-8")
    return 0


def _line(name: str, bits: str, rows: list[Row | None], cells: Cells) -> str:
    parts = [name, bits]
    for mode, row in zip(MODES, rows, strict=True):
        if row is None:
            parts += ["", "", ""]
        else:
            drift = emd(row)
            # after training alone, membranes are quantized without re-estimating anything: no control, no drift
            over = "-" if (row["target"], mode) == ("membrane", "ptq") else f"{drift / emd(cells.control(mode)):.1f}"
            parts += [f"{100 * row['accuracy']:.1f}", f"{drift:.5f}", over]
    return "| " + " | ".join(parts) + " |"


def _rate(cells: Cells) -> str:
    return f"{cells.rows[0]['mfr_fp']:.4f} spikes per neuron per step"


if __name__ == "__main__":
    raise SystemExit(main())
