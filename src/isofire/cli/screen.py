"""What a command says: its result on stdout, all else on stderr."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from isofire.errors import OutputError
from isofire.files import writable_folder, write_atomic
from isofire.json_text import to_json_text

_PROBE_BYTES = 1 << 20


@dataclass(frozen=True)
class Report:
    """A command's result.

    Attributes
    ----------
    document
        For `--json`.
    text
        For people.
    code
        Exit status.
    """

    document: Mapping[str, Any]
    text: str
    code: int = 0


@dataclass
class Log:
    """Says lines on stderr and, once it has a folder, appends them to its `log.txt`.

    Of the processes that torchrun started only the first speaks, since all of them have the same to say.
    """

    folder: Path | None = None
    lines: list[str] = field(default_factory=list)

    def __call__(self, text: str, *, to_screen: bool = True) -> None:
        """Say a line; `to_screen` False only writes it down."""
        if int(os.environ.get("RANK", "0")) != 0:
            return
        if to_screen:
            print(text, file=sys.stderr, flush=True)
        if self.folder is None:
            return
        try:
            with (self.folder / "log.txt").open("a", encoding="utf-8") as stream:
                stream.write(f"{text}\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder / 'log.txt'}: {error.strerror}; make room there or choose another --out"
            ) from error


def open_folder(path: str | Path) -> Path:
    """Make a folder for results and prove that a megabyte can be written there, before any long work starts.

    Raises
    ------
    OutputError
        If it cannot.
    """
    folder = writable_folder(path)
    # a name of its own, since processes that torchrun started try the same folder at the same time
    write_atomic(folder / f".probe.{uuid.uuid4().hex}", _fill).unlink()
    return folder


def _fill(part: Path) -> None:
    part.write_bytes(bytes(_PROBE_BYTES))


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the result on stdout.

    Raises
    ------
    OutputError
        If stdout cannot be written (a full disk); a closed pipe stays a `BrokenPipeError`.
    """
    text = to_json_text(report.document).rstrip() if as_json else report.text
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}; send it somewhere else") from error


def print_error(message: str, hint: str = "") -> None:
    """Print an error on stderr: in a box on a terminal, else on plain lines that tools can search."""
    console = Console(stderr=True)
    if console.is_terminal:
        body = Text(message + (f"\n\n{hint}" if hint else ""))
        console.print(Panel(body, title="error", title_align="left", border_style="red"))
        return
    print(f"error: {message}" + (f"\n{hint}" if hint else ""), file=sys.stderr, flush=True)
