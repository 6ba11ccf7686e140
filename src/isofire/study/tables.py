"""Result rows as tables: plain text for a terminal, Markdown for a document."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isofire.errors import DataError
from isofire.firing.evidence.kept import measure_of, words_of
from isofire.firing.evidence.outcome import MARKS
from isofire.firing.measures import quantity, shown_in
from isofire.study.cell import is_control
from isofire.study.reference import judged
from isofire.text_table import TextTable, screen_width, total

Format = Callable[[Any], str]
Column = tuple[str, str, Format]
"""Title, key in a row, and how a value is told."""
# what a narrow table leaves out first
_DROPPED = ("spearman", "agreement", "reference", "paired_mae")
_INDENT = "  "


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _whole(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


def _bits(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else _text(value)


def _decimals(digits: int, scale: float = 1.0) -> Format:
    def form(value: Any) -> str:
        return "-" if value is None or math.isnan(value) else f"{scale * value:.{digits}f}"

    return form


_OVER_FLOOR, _KEPT = "over_floor", "kept_words"
"""Made of several columns of a row: drift ÷ noise floor with its interval, and the verdict."""

_LABELS: tuple[Column, ...] = (
    ("model", "model", _text),
    ("data", "data", _text),
    ("target", "target", _text),
    ("method", "method", _text),
    ("bits", "bits", _bits),
    ("range", "range", _text),
    ("per", "granularity", _text),
    ("placement", "placement", _text),
    ("options", "options", _text),
    ("mode", "mode", _text),
    ("seed", "seed", _text),
    ("images", "n_images", _whole),
    ("T", "T", _text),
    ("acc %", "accuracy", _decimals(2, 100)),
    ("agree %", "agreement", _decimals(1, 100)),
)
_FLOOR: tuple[Column, ...] = (("÷floor", _OVER_FLOOR, _text), ("floor", "reference", _text))
_TEXTUAL = {
    "model",
    "data",
    "target",
    "method",
    "range",
    "granularity",
    "placement",
    "options",
    "mode",
    "reference",
    _KEPT,
}
_SETTING = _TEXTUAL - {"reference", _KEPT} | {"bits", "seed", "n_images", "T"}
"""What was done, not what came of it."""
_NOTES = {
    "accuracy": "acc: accuracy",
    "agreement": "agree: same class as the baseline",
    _OVER_FLOOR: "÷floor: drift (EMD) as a multiple of its noise floor",
    "reference": "floor: the larger of the image floor (the baseline beside itself on other images) and the control (a "
    "cell that quantizes nothing)",
    _KEPT: "kept: by the 95 % intervals of accuracy lost and of drift ÷ floor, ✓ within the margins, ✗ beyond them, "
    "? not to be told from so many images",
}


def text_table(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """Heading, baseline and a line per row, as wide as the screen, or 100 columns in a file or pipe, or `width`.

    What is the same in all rows moves to the heading. What does not fit is left out: first rank correlation, then
    agreement, the kind of floor and paired drift. Where that is not enough, the setting of a row has a line of its own
    above its numbers: no word is cut.

    Raises
    ------
    DataError
        If there is no row.
    """
    rows = _with_verdicts(rows)
    head, columns = _layout(rows)
    width = screen_width() if width is None else width
    for dropped in range(len(_DROPPED) + 1):
        kept = [column for column in columns if column[1] not in _DROPPED[:dropped]]
        table = _table(kept, rows)
        if total(table.widths()) <= width:
            lines = [table.text(width)]
            break
    else:
        kept, lines = _two_lines(columns, rows, width)
    notes = textwrap.wrap("; ".join(_notes_of([key for _, key, _ in kept])), width)
    return "\n".join([*_wrapped(head, width), "", *lines, *notes])


def _two_lines(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], width: int
) -> tuple[list[Column], list[str]]:
    """The columns that are left, and each row's setting above its numbers."""
    labels = [column for column in columns if column[1] in _SETTING]
    numbers = [column for column in columns if column[1] not in _SETTING]
    for name in (*_DROPPED, "dead_05", "mfr"):
        if total(_table(numbers, rows).widths()) <= width - len(_INDENT):
            break
        numbers = [column for column in numbers if column[1] != name]
    title, rule, *values = _table(numbers, rows).text(width - len(_INDENT)).splitlines()
    lines = [_INDENT + title, _INDENT + rule]
    for row, value in zip(rows, values, strict=False):
        # a control is not of bits, and quantizes nothing
        said = [item for item in labels if not (is_control(dict(row)) and item[1] in ("target", "bits"))]
        words = [_setting(key, form(row.get(key))) for _, key, form in said]
        lines += [*textwrap.wrap(" ".join(filter(None, words)), width), _INDENT + value]
    return [*labels, *numbers], [*lines, _INDENT + rule]


def _setting(key: str, text: str) -> str:
    """A label as it reads without a heading; empty for none."""
    if text == "-":
        return ""
    ending = {"bits": " bits", "n_images": " images"}.get(key, "")
    return {"seed": "seed ", "T": "T = ", "granularity": "per "}.get(key, "") + text + ending


def _table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> TextTable:
    lines = [[form(row.get(key)) for _, key, form in columns] for row in rows]
    # bits may be "2 | 4"
    texts = {i for i, (_, key, _) in enumerate(columns) if key in _TEXTUAL or _holds_text(key, rows)}
    return TextTable([title for title, _, _ in columns], lines, frozenset(texts), frozenset({len(rows)}))


def _holds_text(key: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return key == "bits" and any(isinstance(row.get(key), str) for row in rows)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same columns as a Markdown table, below a line with what all rows share.

    Raises
    ------
    DataError
        If there is no row.
    """
    rows = _with_verdicts(rows)
    head, columns = _layout(rows)
    lines = [
        "| " + " | ".join(title for title, _, _ in columns) + " |",
        "|" + "|".join(" --- " if key in _TEXTUAL else " ---: " for _, key, _ in columns) + "|",
    ]
    lines += [
        "| " + " | ".join(form(row.get(key)).replace("|", "/") for _, key, form in columns) + " |" for row in rows
    ]
    notes = "; ".join(_notes_of([key for _, key, _ in columns]))
    return "\n".join([", ".join(head) + ".", "", *lines, "", f"{notes}."]) + "\n"


def _with_verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the two columns that are made of others; what was not judged yet is."""
    if any("kept" not in row for row in rows):
        rows = judged(rows)
    return [{**row, _OVER_FLOOR: _over_floor(row), _KEPT: f"{MARKS[row['kept']]} {words_of(row)}"} for row in rows]


def _over_floor(row: Mapping[str, Any]) -> str | None:
    ratio, low, high = (row.get(f"drift_over_floor{end}") for end in ("", "_low", "_high"))
    if ratio is None:
        return None
    return f"{ratio:.1f}" if low is None or high is None else f"{ratio:.1f} ({low:.1f}-{high:.1f})"


def _layout(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Column]]:
    """What all rows share, as phrases, and the columns that are left."""
    if not rows:
        raise DataError("a table needs at least one row, got none")
    head, columns = [], []
    for title, key, form in _columns(rows):
        values = {form(row.get(key)) for row in rows}
        measured = key not in _TEXTUAL | {"bits", "seed", "n_images", "T"}
        if key == _OVER_FLOOR and values == {"-"}:
            continue
        if len(values) > 1 or measured or key == "method":
            columns.append((title, key, form))
        elif values != {"-"}:
            head.append(f"{title} {values.pop()}")
    head += _baseline(rows)
    return head, columns


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Labels, then the measures that any row has; the floor stands beside the drift that it is a floor of."""
    found = list(_LABELS)
    for measure in shown_in("rows"):
        # the drift is the one that the verdict is about
        key = measure_of(rows) if measure.name == "emd" else measure.headline
        if any(key in row for row in rows):
            found += [(measure.heading, key, measure.text), *(_FLOOR if measure.name == "emd" else ())]
    return [*found, ("kept", _KEPT, _text)]


def _baseline(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    phrases = []
    for title, key, form in (("accuracy", "accuracy_fp", _decimals(2, 100)), ("rate", "mfr_fp", _decimals(4))):
        values = [row[key] for row in rows if row.get(key) is not None]
        if values:
            span = form(min(values)) if min(values) == max(values) else f"{form(min(values))} to {form(max(values))}"
            phrases.append(f"baseline {title} {span}{' %' if key == 'accuracy_fp' else ''}")
    return phrases


def _notes_of(keys: Sequence[str]) -> list[str]:
    """What the columns say, those that explain themselves left out."""
    notes = dict(_NOTES)
    for measure in shown_in("rows"):
        for name in measure.overall:
            key, found = quantity(name)
            unit = f", in {measure.unit}" if measure.unit else ""
            notes[key] = f"{measure.heading.removesuffix(' %')}: {found.title}{unit}"
    return [notes[key] for key in keys if key in notes]


def _wrapped(phrases: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for phrase in phrases:
        joined = f"{lines[-1]}, {phrase}" if lines[-1] else phrase
        if len(joined) < width:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(phrase)
    return lines
