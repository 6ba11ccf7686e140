"""Tables for people: one description, as text for a screen or a pipe, and as HTML for a notebook.

A line of text is never wrapped, so that it can be searched, and a number never cut: where a screen is too narrow, texts
lose their middle, since the names of layers differ at both ends.
"""

from __future__ import annotations

import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 100
"""Columns of text that goes to a file or a pipe."""
_SHORTEST = 6


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Examples
    --------
    >>> counted(1, "cell"), counted(1200, "cell")
    ('1 cell', '1,200 cells')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class TextTable:
    """Cells as they are printed.

    Parameters
    ----------
    titles
        One a column.
    rows
        As many cells each.
    texts
        Which columns are texts, to the left; the others are numbers, to the right.
    rules
        Rows before which there is a rule, the heading's aside; as many as there are rows: below the last.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int] = frozenset({0})
    rules: frozenset[int] = frozenset()

    def widths(self, width: int | None = None) -> list[int]:
        """Of the columns; texts shrink until all fit in `width`, the longest first, to 6 at the least."""
        lines = [self.titles, *self.rows]
        found = [max(len(line[i]) for line in lines) for i in range(len(self.titles))]
        while width is not None and total(found) > width:
            long = [i for i in self.texts if found[i] > _SHORTEST]
            if not long:
                break
            found[max(long, key=found.__getitem__)] -= 1
        return found

    def text(self, width: int | None = None) -> str:
        """Plain text; None takes the width of the screen, or 100 where there is none."""
        widths = self.widths(screen_width() if width is None else width)
        rule = "-" * total(widths)
        lines = [self._line(self.titles, widths), rule]
        for number, row in enumerate(self.rows):
            lines += [rule] * (number in self.rules) + [self._line(row, widths)]
        return "\n".join(lines + [rule] * (len(self.rows) in self.rules))

    def html(self) -> str:
        """A table of HTML."""
        lines = [_html("th", self.titles), *(_html("td", row) for row in self.rows)]
        return f"<table>{''.join(lines)}</table>"

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        fitted = [
            shortened(cell, width).ljust(width) if i in self.texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return " ".join(fitted).rstrip()


class TableShown(ABC):
    """What has a table of text, which a notebook shows for it."""

    @abstractmethod
    def table(self) -> str:
        """The table."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.table())}</pre>"


def screen_width() -> int:
    """Columns of the screen that stdout is, else 100."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def shortened(name: str, width: int) -> str:
    """A name of at most `width` characters; a longer one loses its middle, since layers differ at both ends.

    Examples
    --------
    >>> shortened("stages.0.0.sn1", 9)
    'stag….sn1'
    """
    if len(name) <= width:
        return name
    front = (width - 1) // 2
    return f"{name[:front]}…{name[len(name) - (width - 1 - front) :]}"


def total(widths: Sequence[int]) -> int:
    """Columns of a line, a blank between each two of its cells."""
    return sum(widths) + len(widths) - 1


def _html(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
