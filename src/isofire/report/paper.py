"""A sweep for a paper: a booktabs table with a paragraph of methods and the citations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isofire.files import write_text
from isofire.report.entries import Entry, Row
from isofire.report.gained import Gain, gains_of
from isofire.report.latex import escaped
from isofire.report.methods import BIBLIOGRAPHY, methods
from isofire.report.numbers import DASH, percent, significant, with_spread
from isofire.report.palette import bits_text
from isofire.report.scatter import sample_text
from isofire.report.scope import scope
from isofire.report.study import Study
from isofire.report.summary import drift_name, points_text

_WORDS = 20
"""Letters of a setting that stay on one line."""
_SHORT = {"keeps": "✓", "fails": "✗", "undecided": "?"}
_TARGETS = {"both": "weights and membranes", "membrane": "membranes"}
_UNITS = ((1e6, "M"), (1e3, "k"))


def write_latex(study: Study, path: Path) -> Path:
    """Write table, methods and citations as FILE.tex; it needs the packages booktabs and amssymb.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    return write_text(path, latex(study))


def latex(study: Study) -> str:
    """The text of `write_latex`."""
    version = str(study.environment.get("isofire") or "unknown")
    entries = BIBLIOGRAPHY.replace("VERSION", version).splitlines()
    head = ["% needs \\usepackage{booktabs,amssymb}; the BibTeX for its citations is at the end"]
    parts = ["\n".join(head), latex_table(study), methods(study), "\n".join(f"% {line}" for line in entries)]
    return "\n\n".join(parts) + "\n"


def latex_table(study: Study) -> str:
    """The baseline, then a line a setting: accuracy, drift, memory, operations and energy, and the verdict.

    It is as wide as the text (`table*`: both columns of a two-column paper), at most 345 pt in 8 pt letters.
    """
    gains = gains_of(study.entries)
    scaled = [_scaled(gain, study.entries) for gain in gains]
    head = ["setting", "bits", r"acc.~(\%)", "EMD", r"$\div\,$floor",
            *(escaped(heading) for heading, _ in scaled), "kept"]  # fmt: skip
    lines = []
    for name in study.baselines:
        of_name = study.of_baseline(name)
        lines += _group(f"full precision: {name}" if len(study.baselines) > 1 else None, len(head))
        lines.append(_line(_baseline(of_name, scaled)))
        lines += [_line(_cells(entry, of_name, scaled)) for entry in of_name if entry.is_control]
        for target in dict.fromkeys(entry.label("target") for entry in of_name if not entry.is_control):
            found = [entry for entry in of_name if not entry.is_control and entry.label("target") == target]
            lines += [r"\addlinespace", *_group(_TARGETS.get(str(target), str(target)), len(head))]
            lines += [_line(_cells(entry, of_name, scaled)) for entry in found]
    # long settings wrap, so that the table keeps its width
    wraps = max((len(line.partition(" &")[0]) for line in lines if " & " in line), default=0) > _WORDS
    first = r"p{2.2cm}" if wraps else "l"
    if wraps:
        lines = [rf"\raggedright {line}" if " & " in line else line for line in lines]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{_caption(study, gains)}}}",
            rf"\label{{tab:{_slug(study.name)}}}",
            rf"\begin{{tabular}}{{@{{}}{first}l{'r' * (len(head) - 3)}l@{{}}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
    )


def method_text(entry: Entry, entries: Sequence[Entry]) -> str:
    """How a setting quantizes, with what tells it apart from others of its target, method and bits."""
    if entry.is_control:
        several = len({e.label("mode") for e in entries}) > 1
        return f"control, {entry.label('mode')}" if several else "control"
    alike = [e for e in entries if not e.is_control and _same(e, entry, ("target", "method"))]
    parts = [str(entry.label("method")).replace(" | ", " + ")]
    for key in ("range", "granularity", "placement", "options"):
        if len({str(e.label(key)) for e in alike}) > 1 and entry.label(key) is not None:
            parts.append(str(entry.label(key)).replace(" | ", " + "))
    if entry.label("mode") == "qat":
        parts.append("qat")
    return ", ".join(parts)


def _same(one: Entry, other: Entry, keys: Sequence[str]) -> bool:
    return all(one.label(key) == other.label(key) for key in keys)


def _group(title: str | None, columns: int) -> list[str]:
    return [] if title is None else [rf"\multicolumn{{{columns}}}{{@{{}}l}}{{\textit{{{escaped(title)}}}}} \\"]


def _line(texts: Sequence[Any]) -> str:
    return " & ".join(escaped(str(text)) for text in texts) + r" \\"


def _baseline(entries: Sequence[Entry], scaled: Sequence[tuple[str, _Of]]) -> list[Any]:
    """The full-precision network itself."""
    rows: dict[tuple[Any, ...], Row] = {}
    for entry in entries:
        for row in entry.rows:
            rows.setdefault((row["accuracy_fp"], row["n_images"]), row)
    known = [float(row["accuracy_fp"]) for row in rows.values()]
    accuracy = f"{percent(min(known))}" + (f"–{percent(max(known))}" if max(known) > min(known) else "")
    return ["full precision", "32", accuracy, DASH, DASH, *(of(entries[0], "_fp") for _, of in scaled), DASH]


def _cells(entry: Entry, entries: Sequence[Entry], scaled: Sequence[tuple[str, _Of]]) -> list[Any]:
    spread, found = entry.spread("accuracy"), entry.kept
    failing = [name for name, outcome in (("acc.", found.accuracy), ("firing", found.firing or "undecided"))
               if outcome == found.outcome]  # fmt: skip
    of = "both" if len(failing) == 2 else failing[0]
    return [
        method_text(entry, entries),
        bits_text(entry.label("bits")).replace(" | ", "/"),
        with_spread(percent(entry.mean("accuracy")), None if spread is None else percent(spread)),
        significant(1000 * entry.drift),
        _multiple(entry),
        *(value(entry, "") for _, value in scaled),
        _SHORT[found.outcome] + ("" if found.outcome == "keeps" else f" {of}"),
    ]


def _multiple(entry: Entry) -> str:
    found = entry.kept.multiple
    if found is None:
        return DASH
    estimate = significant(found.estimate, 2)
    if math.isnan(found.low):
        return estimate
    return f"{estimate} ({significant(found.low, 2)}–{significant(found.high, 2)})"


class _Of:
    """A cost as a column has it: in one unit, with three significant digits."""

    def __init__(self, gain: Gain, unit: float) -> None:
        self._gain, self._unit = gain, unit

    def __call__(self, entry: Entry, ending: str) -> str:
        value = self._gain.mean(entry, ending)
        return DASH if value is None else significant(value / self._unit)


def _scaled(gain: Gain, entries: Sequence[Entry]) -> tuple[str, _Of]:
    """Heading with its unit, and how values are told."""
    known = [value for entry in entries if (value := gain.mean(entry, "_fp")) is not None]
    countable = gain.key.startswith("synops")
    unit, text = next(((u, t) for u, t in _UNITS if countable and max(known, default=0.0) >= 10 * u), (1.0, ""))
    return text + gain.heading, _Of(gain, unit)


def _caption(study: Study, gains: Sequence[Gain]) -> str:
    rows, margins = study.rows, study.entries[0].margins
    networks = " and ".join(dict.fromkeys(f"{row.get('model')} on {row.get('data')}" for row in rows))
    several = any(entry.n > 1 for entry in study.entries)
    said = [
        f"{networks} in full precision and quantized: {sample_text(rows)}"
        + ("; ± is one standard deviation over seeds." if several else "."),
        f"EMD: drift of the firing rates, {drift_name(study.entries)}, in thousandths of a spike per neuron per step; "
        "÷ floor: as a multiple of its noise floor, with 95 % interval.",
        *(f"{_scaled(gain, study.entries)[0]}: {gain.title}." for gain in gains),
        f"✓ keeps accuracy within {points_text(margins.accuracy)} and firing within {margins.firing:g} times the "
        "floor; ✗ does not; ? undecided.",
        *_controls(study.entries),
        *(["qat: trained with the quantizers in place."] if any(row.get("mode") == "qat" for row in rows) else []),
        *scope(study, names=False),
    ]
    return escaped(" ".join(said))


def _controls(entries: Sequence[Entry]) -> list[str]:
    methods = dict.fromkeys(f"{entry.label('method')}, nothing quantized" for entry in entries if entry.is_control)
    return [f"Control: {'; '.join(methods)}."] if methods else []


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "sweep"
