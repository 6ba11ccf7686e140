"""The report of one sweep as Markdown: the same answer, tables and provenance, without figures."""

from __future__ import annotations

from collections.abc import Sequence

from isofire.report.entries import bits_text, title_of
from isofire.report.numbers import percent, significant
from isofire.report.provenance import baseline_lines, config_text, environment_lines, failed_lines
from isofire.report.published import CONFIDENCE, MARK, matches, published_table
from isofire.report.scatter import sample_text
from isofire.report.study import Study
from isofire.report.summary import best_per_bits, pareto_front, verdict
from isofire.report.table import cells_of

_KEYS = ("accuracy", "change", "emd", "multiple", "dead", "rate")
_HEADS = ("accuracy %", "change", "EMD", "× control", "dead %", "rate")


def sweep_markdown(study: Study) -> str:
    """The whole report as text."""
    entries = study.entries
    lines = [f"# {escaped(study.name)}", "", escaped(sample_text(study.rows) if study.rows else "no finished cell") + ".", ""]
    lines += [escaped(sentence) for sentence in verdict(entries)] + [""]
    if best := best_per_bits(entries):
        lines += ["## Best per bits", ""]
        head = ("baseline", "target", "bits", "setting", "keeps accuracy", "keeps firing", *_HEADS, "of")
        body = []
        for item in best:
            found = cells_of(item.entry)
            kept = (found["keeps_accuracy"], found["keeps_firing"])
            values = [found[key] for key in _KEYS]
            body.append((item.baseline, item.target, item.bits, title_of(item.entry.rows[0]), *kept, *values, item.of))
        lines += [*table(head, body, text=4), ""]
        lines += _notes(any(entry.multiple is not None and not entry.same_steps for entry in entries))
    lines += ["## All settings", ""]
    head = ("baseline", "setting", "bits", *_HEADS, "paired", "n seeds")
    body = [
        (e.label("baseline"), title_of(e.rows[0]), bits_text(e.label("bits")), *(cells_of(e)[key] for key in _KEYS),
         cells_of(e)["paired"], e.n)
        for e in entries
    ]  # fmt: skip
    lines += [*table(head, body, text=2), ""]
    for name in study.baselines:
        front = pareto_front([e for e in entries if str(e.label("baseline")) == name])
        told = "; ".join(title_of(e.rows[0]) for e in front) or "none"
        lines.append(f"Pareto front of {escaped(name)}, from the least drift on: {escaped(told)}.")
    lines += ["", *_paper(study), *_how(study)]
    return "\n".join(lines).rstrip() + "\n"


def table(head: Sequence[str], body: Sequence[Sequence[object]], text: int) -> list[str]:
    """A Markdown table; the first `text` columns are text, the others numbers."""
    lines = ["| " + " | ".join(head) + " |", "|" + "".join(" --- |" if i < text else " ---: |" for i in range(len(head)))]
    return lines + ["| " + " | ".join(escaped(str(value)) for value in row) + " |" for row in body]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no cell border, no link."""
    for character in ("\\", "|", "<", ">", "[", "]", "`", "*", "_"):
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _notes(dagger: bool) -> list[str]:
    lines = [
        "Best: of the settings that keep accuracy (at most one standard error below the baseline's) the one with the "
        "least drift; if none does, the one that loses least. EMD: earth mover's distance of the firing rates, mean "
        "over layers, in spikes per neuron per step. × control: EMD in units of the control of the same mode, baseline "
        "and seed, which quantizes nothing; firing is kept if this is at most 1. change: points of accuracy against "
        "the baseline. dead: rate below 0.05. ±: one standard deviation over seeds."
    ]
    if dagger:
        lines.append(
            "†: membranes quantized after training; batch norm was left alone, which the control's was not, so without "
            "quantizing they would drift by 0."
        )
    return [line for text in lines for line in (text, "")]


def _paper(study: Study) -> list[str]:
    found = matches(study.entries)
    if not found:
        return []
    body = []
    for item in found:
        ours = cells_of(item.entry)
        theirs = percent(item.theirs["accuracy"], 1), significant(item.theirs["emd"]), percent(item.theirs["dead"], 1)
        body.append((title_of(item.entry.rows[0]), ours["accuracy"], *theirs[:1], ours["emd"], theirs[1], ours["dead"], theirs[2], item.theirs["confidence"]))  # fmt: skip
    head = ("setting", "accuracy %", "paper's accuracy %", "EMD", "paper's EMD", "dead %", "paper's dead %", "confidence")
    lines = ["## Beside the paper", "", f"The paper's columns are {MARK}. {published_table()['citation']}. {CONFIDENCE}"]
    return [*lines, "", *table(head, body, text=1), ""]


def _how(study: Study) -> list[str]:
    lines = ["## How it was run", ""]
    if failed := failed_lines(study.view.failed):
        lines += [*table(("failed cell", "reason", "attempts"), [tuple(item.values()) for item in failed], text=2), ""]
    if study.view.pending:
        lines += [f"Cells not finished: {study.view.pending}.", ""]
    if bases := baseline_lines(study.baseline_files()):
        keys = ("name", "seed", "model", "data", "test", "valid", "epochs")
        head = ("baseline", "seed", "model", "data", "test accuracy", "validation accuracy", "epochs")
        lines += [*table(head, [[line[key] for key in keys] for line in bases], text=4), ""]
    lines += table(("with", "value"), environment_lines(study.environment), text=2)
    return [*lines, "", "```json", config_text(study.view.plan.get("config")).replace("```", "'''"), "```"]
