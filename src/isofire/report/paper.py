"""A sweep for a paper: a booktabs table with a paragraph of methods and the citation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isofire.files import write_text
from isofire.firing.evidence.outcome import FLOOR_IMAGES
from isofire.report.entries import Entry
from isofire.report.gained import Gain, gains_of
from isofire.report.numbers import multiple_text, percent, points, significant, with_spread
from isofire.report.palette import bits_text
from isofire.report.scatter import sample_text
from isofire.report.study import Study
from isofire.report.summary import drift_name

_ESCAPES = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
            "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip
_SYMBOLS = {"−": "$-$", "×": r"$\times$", "±": r"$\pm$", "✓": r"$\checkmark$", "✗": r"$\times$", "–": "--"}
CITATION = r"""@inproceedings{smith2026quantization,
  title  = {Quantization of Spiking Neural Networks Beyond Accuracy},
  author = {Smith, E. G. and Whitehill, J. and Ganji, F.},
  year   = {2026},
  note   = {arXiv:2604.14487}
}
@software{isofire,
  title   = {isofire: quantize spiking neural networks, and keep their firing},
  author  = {{The isofire maintainers}},
  version = {VERSION},
  year    = {2026}
}"""


def write_latex(study: Study, path: Path) -> Path:
    """Write table, methods and citation as FILE.tex; it needs the packages booktabs and amssymb.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    return write_text(path, latex(study))


def latex(study: Study) -> str:
    """The text of `write_latex`."""
    parts = ["% needs \\usepackage{booktabs,amssymb}", latex_table(study), methods(study), _citation(study)]
    return "\n\n".join(parts) + "\n"


def latex_table(study: Study) -> str:
    """One line a setting: what was quantized, accuracy, drift, what was gained, and the verdict."""
    gains = gains_of(study.entries)
    head = ["quantized", "method", "bits", r"accuracy (\%)", "change", r"EMD $\times 10^3$", r"$\div$ floor",
            *(escaped(gain.heading) for gain in gains), "kept"]  # fmt: skip
    lines = [" & ".join(_cells(entry, gains)) + r" \\" for entry in study.entries]
    columns = "lll" + "r" * (len(head) - 4) + "l"
    sample = f"{study.name}: {sample_text(study.rows)}. EMD {drift_name(study.entries)}"
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escaped(sample)}"
            r", in spikes per neuron per step. In brackets: 95\,\% intervals, and shares of the baseline's.}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def methods(study: Study) -> str:
    """A paragraph that says how the numbers were made."""
    with_ = study.environment
    margins = study.entries[0].margins if study.entries else None
    kinds = sorted({str(entry.reference) for entry in study.entries if entry.reference is not None})
    said = [
        f"Networks were quantized and compared with their full-precision baselines by isofire {with_.get('isofire')} "
        f"(torch {with_.get('torch')}, {with_.get('device')}), {sample_text(study.rows)}.",
        f"Drift is the earth mover's distance of the neurons' firing rates (Smith et al., 2026), "
        f"{drift_name(study.entries)}; intervals are of 95 % over blocks of images"
        + (", and Student's t over seeds." if len(study.seeds) > 1 else "."),
    ]
    if kinds:
        said.append(
            f"Its noise floor is the larger of the baseline's drift on {FLOOR_IMAGES:,} other images and that of a "
            f"control that went through the same steps without quantization (here: {', '.join(kinds)})."
        )
    if margins is not None:
        said.append(
            f"A setting keeps accuracy if the whole interval of the accuracy lost is at most "
            f"{100 * margins.accuracy:g} points, and firing if that of drift over floor is at most "
            f"{margins.firing:g}; it fails if none of it is."
        )
    return "\n".join(escaped(sentence) for sentence in said)


def escaped(text: str) -> str:
    r"""Text that LaTeX sets as it is.

    Examples
    --------
    >>> escaped("50 % of a_b")
    '50 \\% of a\\_b'
    """
    plain = "".join(_ESCAPES.get(character, character) for character in text)
    for symbol, command in _SYMBOLS.items():
        plain = plain.replace(symbol, command)
    return plain


def _cells(entry: Entry, gains: Sequence[Gain]) -> list[str]:
    spread = entry.spread("accuracy")
    accuracy = with_spread(percent(entry.mean("accuracy")), None if spread is None else percent(spread))
    multiple = entry.kept.multiple
    method = [entry.label(key) for key in ("method", "range", "placement", "options", "mode")]
    texts: list[Any] = [
        "nothing" if entry.is_control else entry.label("target"),
        " ".join(str(part) for part in method if part not in (None, "learned")),
        bits_text(entry.label("bits")),
        accuracy,
        points(-entry.drop),
        significant(1000 * entry.drift),
        "–" if multiple is None else multiple_text(multiple),
        *(gain.text(entry) for gain in gains),
        entry.verdict,
    ]
    return [escaped(str(text)) for text in texts]


def _citation(study: Study) -> str:
    text = CITATION.replace("VERSION", str(study.environment.get("isofire") or "unknown"))
    return "\n".join(f"% {line}" for line in text.splitlines())
