"""The report of one sweep as Markdown: the same answer, tables and provenance, without figures."""

from __future__ import annotations

from collections.abc import Sequence

from isofire.report.caveats import caveats
from isofire.report.entries import Entry, title_of
from isofire.report.gained import gains_of
from isofire.report.palette import bits_text
from isofire.report.provenance import baseline_lines, config_text, environment_lines, failed_lines
from isofire.report.scatter import sample_text
from isofire.report.scope import scope
from isofire.report.study import Study
from isofire.report.summary import best_per_bits, drift_name, explained, of_text, pareto_front, verdict
from isofire.report.table import beside_drift, cells_of, places_of

_KEYS = ("accuracy", "change", "emd", "multiple")
_HEADS = ("accuracy %", "change", "EMD", "× floor")


def sweep_markdown(study: Study) -> str:
    """The whole report as text."""
    entries = study.entries
    lines = [
        f"# {escaped(study.name)}",
        "",
        escaped(sample_text(study.rows) if study.rows else "no finished cell") + ".",
        "",
    ]
    lines += [line for sentence in caveats(study) for line in (f"**{escaped(sentence)}**", "")]
    lines += [escaped(sentence) for sentence in (*verdict(entries), *scope(study))] + [""]
    measures, gains, places = beside_drift(study.rows), gains_of(entries), places_of(entries)
    if best := best_per_bits(entries):
        lines += ["## Best per bits", ""]
        head = ("baseline", "target", "bits", "setting", "kept", *_HEADS, *(m.heading for m in measures), "of")
        body = []
        for item in best:
            found = cells_of(item.entry, places)
            values = [found[key] for key in (*_KEYS, *(m.headline for m in measures))]
            title = title_of(item.entry.rows[0])
            body.append((item.baseline, item.target, item.bits, title, found["kept"], *values, of_text(item)))
        lines += [*table(head, body, text=5), ""]
        lines += _notes(entries)
    lines += ["## All settings", ""]
    head = (
        "baseline",
        "setting",
        "kept",
        "bits",
        *_HEADS,
        *(m.heading for m in measures),
        *(f"{g.heading} (× baseline)" for g in gains),
        "n seeds",
    )
    body = []
    for entry in entries:
        found = cells_of(entry, places)
        labels = entry.label("baseline"), title_of(entry.rows[0]), found["kept"]
        values = [found[key] for key in (*_KEYS, *(m.headline for m in measures))]
        gained = [gain.text(entry) for gain in gains]
        body.append((*labels, bits_text(entry.label("bits")), *values, *gained, entry.n))
    lines += [*table(head, body, text=3), ""]
    for name in study.baselines:
        front = pareto_front(study.of_baseline(name))
        told = "; ".join(title_of(e.rows[0]) for e in front) or "none"
        lines.append(f"Pareto front of {escaped(name)}, from the least drift on: {escaped(told)}.")
    lines += ["", *_how(study)]
    return "\n".join(lines).rstrip() + "\n"


def table(head: Sequence[str], body: Sequence[Sequence[object]], text: int) -> list[str]:
    """A Markdown table; the first `text` columns are text, the others numbers."""
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "".join(" --- |" if i < text else " ---: |" for i in range(len(head))),
    ]
    return lines + ["| " + " | ".join(escaped(str(value)) for value in row) + " |" for row in body]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no cell border, no link."""
    for character in ("\\", "|", "<", ">", "[", "]", "`", "*", "_"):
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _notes(entries: Sequence[Entry]) -> list[str]:
    lines = [
        f"{' '.join(explained(entries))} Best: by outcome, then the least drift; of those that fail accuracy the one "
        "that loses least; tied: the intervals of their drift overlap. EMD (drift): earth mover's distance of the "
        f"firing rates, {drift_name(entries)}, in spikes per neuron per step. × floor: EMD in units of its floor. "
        "change: points of accuracy against the baseline. dead: rate below 0.05. ±: one standard deviation over seeds."
    ]
    if any(entry.multiple is not None and not entry.same_steps for entry in entries):
        lines.append(
            "†: membranes quantized after training; batch norm was left alone, which the control's was not, so without "
            "quantizing they would drift by 0."
        )
    return [line for text in lines for line in (text, "")]


def _how(study: Study) -> list[str]:
    lines = ["## How it was run", ""]
    if study.missing.damaged:
        lines += [*table(("damaged cell", "reason"), study.missing.damaged, text=2), ""]
    if failed := failed_lines(study.missing.failed):
        lines += [*table(("failed cell", "reason", "attempts"), [tuple(item.values()) for item in failed], text=2), ""]
    if study.missing.not_run:
        lines += [f"Cells not run: {study.missing.not_run}.", ""]
    if bases := baseline_lines(study.baseline_files(), study.view.plan.get("config")):
        keys = ("name", "seed", "model", "data", "test", "valid", "epochs")
        head = ("baseline", "seed", "model", "data", "test accuracy", "validation accuracy", "epochs")
        lines += [*table(head, [[line[key] for key in keys] for line in bases], text=4), ""]
    lines += table(("with", "value"), environment_lines(study.environment), text=2)
    return [*lines, "", "```json", config_text(study.view.plan.get("config")).replace("```", "'''"), "```"]
