"""Markdown tables of the first look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from scripts.findings.cells import MEMBRANES, MODES, WEIGHTS, Cells, Row, Setting, emd
from scripts.findings.levels import GridUse
from scripts.findings.noise import MEASURE, NAMES, Floors

from isofire.firing.evidence.noise_floor import FloorValue
from isofire.firing.evidence.outcome import Outcome

MODE_NAMES = {"ptq": "post-training", "qat": "with training"}


def by_bits(cells: Cells, settings: Sequence[Setting], mode: str) -> str:
    """Accuracy and EMD, one column a setting, one line a number of bits."""
    bits = sorted({found for setting in settings for found in cells.of(setting, mode)})
    lines = [[_bits(width), *(_accuracy_emd(cells.of(s, mode).get(width)) for s in settings)] for width in bits]
    if (mode, settings[0].target) == ("ptq", "membrane"):
        return _table(["bits", *(setting.name for setting in settings)], lines)
    control = cells.control(mode)
    lines.append([f"none ({control['method']})", _accuracy_emd(control), *[""] * (len(settings) - 1)])
    return _table(["bits", *(setting.name for setting in settings)], lines)


def over_floor(cells: Cells, floors: Floors, settings: Sequence[Setting], mode: str) -> str:
    """EMD as a multiple of the cells' floor, with the mark of the verdict."""
    bits = sorted({found for setting in settings for found in cells.of(setting, mode)})
    lines = [
        [_bits(width), *(floors.shown(row) if (row := cells.of(s, mode).get(width)) else "" for s in settings)]
        for width in bits
    ]
    return _table(["bits", *(setting.name for setting in settings)], lines)


def floors_by_measure(floors: Floors) -> str:
    """Every floor of the measures that are read most."""
    heads = {MEASURE: "EMD", "mfr_change": "rate change", "dead_05_change": "dead .05 change", "paired_mae": "paired"}
    lines = [[name, *(_value(floors.value(kind, key)) for key in heads)] for kind, name in NAMES.items()]
    return _table(["floor", *heads.values()], lines)


def networks(floors: Floors) -> str:
    """The full-precision networks behind the seed floor."""
    lines = [
        [
            str(found["seed"]),
            *(f"{100 * found['accuracy'][split]['accuracy']:.2f}" for split in ("valid", "test")),
            f"{found['mfr']:.4f}",
        ]
        for found in floors.networks
    ]
    return _table(["seed", "held out %", "test %", "mean rate"], lines)


def outcomes(cells: Cells, floors: Floors) -> str:
    """How many cells keep firing, fail, and are undecided."""
    known = get_args(Outcome)
    lines = [
        [f"{target}, {mode}", str(len(rows)), *(str(floors.count(rows, outcome)) for outcome in known)]
        for mode in MODES
        for target in ("weights", "membrane", "both")
        if (rows := cells.quantized(mode, target))
    ]
    return _table(["cells", "number", *known], lines)


def steps(uses: Sequence[GridUse], cells: Cells) -> str:
    """The two end-point ranges side by side: step, clipping, levels in use, and what the cells gave."""
    lines = []
    for use in sorted(uses, key=lambda use: -use.step):
        setting = WEIGHTS[0] if use.clip == 1 else WEIGHTS[1]
        found = [_accuracy_emd(cells.of(setting, mode).get(use.bits)) for mode in MODES]
        low, high = use.levels
        lines.append(
            [
                f"±{use.clip:g}", str(use.bits), f"{use.step:.4f}", f"{100 * use.clipped:.2f}",
                str(low) if low == high else f"{low} to {high}", f"{use.sign_only[0]} of {use.sign_only[1]}", *found,
            ]
        )  # fmt: skip
    heads = ["range", "bits", "step", "clipped %", "levels in use", "layers left with signs", "ptq", "qat"]
    return _table(heads, lines)


def joint(cells: Cells) -> str:
    """Weights and membranes together."""
    lines = [
        [str(row["method"]).replace("|", "/"), str(row["bits"]), str(row["placement"]), mode, _accuracy_emd(row)]
        for mode in MODES
        for row in cells.both(mode)
    ]
    return _table(["weights / membrane", "bits", "placement", "mode", "accuracy, EMD"], lines)


def rates(cells: Cells, settings: Sequence[Setting], mode: str) -> str:
    """Mean rate and dead share at the three cuts, per cell."""
    lines = []
    for name, row in [("none", cells.control(mode)), *_named(cells, settings, mode)]:
        change = row["mfr"] / row["mfr_fp"] - 1
        cuts = [f"{100 * (row[f'dead_{c}'] - row[f'dead_{c}_fp']):+.1f}" for c in ("00", "01", "05")]
        lines.append([name, f"{100 * change:+.1f}", *cuts, f"{emd(row):.5f}", f"{row['paired_mae']:.5f}"])
    return _table(["cell", "rate change %", "dead 0", "dead .01", "dead .05", "EMD", "paired"], lines)


def _named(cells: Cells, settings: Sequence[Setting], mode: str) -> list[tuple[str, Row]]:
    return [
        (f"{setting.name}, {_bits(bits)} bit", row)
        for setting in settings
        for bits, row in cells.of(setting, mode).items()
    ]


def everything(cells: Cells, mode: str) -> str:
    """Rates and dead shares of all cells of a mode."""
    return rates(cells, (*WEIGHTS, *MEMBRANES), mode)


def _accuracy_emd(row: Row | None) -> str:
    return "" if row is None else f"{100 * row['accuracy']:.1f} %, {emd(row):.5f}"


def _value(floor: FloorValue | None) -> str:
    return "-" if floor is None else f"{floor.value:.5f} ({floor.low:.5f} to {floor.high:.5f})"


def _bits(value: float) -> str:
    return f"{value:g}"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---" + "|---:" * (len(heads) - 1) + "|"
    rows = ["| " + " | ".join(heads) + " |", rule]
    return "\n".join([*rows, *("| " + " | ".join(line) + " |" for line in lines)])
