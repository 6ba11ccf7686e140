"""The program: its commands, and what becomes of an error."""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
from cyclopts import App, CycloptsError, Group, UnusedCliTokensError
from rich.console import Console

from isofire.cli.allocate import allocate
from isofire.cli.bench import bench
from isofire.cli.blame import blame
from isofire.cli.check import check
from isofire.cli.compare import compare
from isofire.cli.cost import cost
from isofire.cli.demo import demo
from isofire.cli.doctor import doctor
from isofire.cli.evaluate import evaluate
from isofire.cli.explain import explain
from isofire.cli.export import export
from isofire.cli.init import init
from isofire.cli.lower import lower
from isofire.cli.options import Output
from isofire.cli.quantize import quantize
from isofire.cli.report import report
from isofire.cli.screen import Report, print_error, print_report
from isofire.cli.status import status
from isofire.cli.sweep import sweep
from isofire.cli.train import train
from isofire.errors import DataError, IsofireError, OutputError
from isofire.own_process import begin
from isofire.study.environment import version

USER, INTERNAL, INTERRUPTED, CLOSED_PIPE = 2, 1, 130, 141

_HELP = """Quantize spiking neural networks, and measure whether they still fire the same way.

```
isofire quantize sew_resnet8-digits --preset keep-firing --data digits -o q
isofire compare sew_resnet8-digits q/model.safetensors --data digits
isofire init sew_resnet8-digits --data digits -o start
isofire sweep start/sweep.toml -o which-bits
isofire report which-bits
```

Every command takes --help and --json. Exit status: 0 done; 2 something to correct in what was asked; 3 a sweep of which
some cells failed, or a check that these images cannot decide; 1 a failure of isofire itself, or a check that fails; 130
interrupted; 141 nobody read its output any more.
"""

_MISSING_DATA = "here, --root DIR names the folder, and --download fetches the set"

_NO_MEMORY = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
"""How torch tells it of the CPU, where it has no error of its own for it."""

_NEEDED = ("init", "quantize", "compare", "sweep", "report")


def _split_help(command: Callable[..., Any]) -> tuple[str, str]:
    """What a command does, and its examples, which stand below its options, where a screen ends."""
    text = inspect.cleandoc(command.__doc__ or "").partition("\nParameters\n---")[0]
    before, examples, after = text.split("```")
    return f"{before.strip()}\n\n{after.strip()}", f"Examples:\n```{examples}```"


_FIRST, _MORE = Group("Start with", sort_key=0), Group("More", sort_key=1)
app = App(name="isofire", help=_HELP, help_format="markdown", version=lambda: version("isofire") or "not installed")
for _command, _name in (
    (init, "init"),
    (quantize, "quantize"),
    (compare, "compare"),
    (sweep, "sweep"),
    (report, "report"),
    (train, "train"),
    (check, "check"),
    (cost, "cost"),
    (blame, "blame"),
    (allocate, "allocate"),
    (evaluate, "eval"),
    (explain, "explain"),
    (export, "export"),
    (lower, "lower"),
    (status, "status"),
    (demo, "demo"),
    (doctor, "doctor"),
    (bench, "bench"),
):
    _text, _examples = _split_help(_command)
    app.command(_command, name=_name, group=_FIRST if _name in _NEEDED else _MORE, help=_text, help_epilogue=_examples)
app.register_install_completion_command(group=_MORE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; never raises.

    Parameters
    ----------
    arguments
        Without the program's name; None takes those of the process.
    """
    if arguments is None:
        begin()
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    debug = "--debug" in given or os.environ.get("ISOFIRE_DEBUG", "") not in ("", "0")
    try:
        return _run(given)
    except KeyboardInterrupt:
        print_error("interrupted", "the same command goes on where its output folder has a training state")
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read stdout is gone before the command was done
        _silence_stdout()
        return CLOSED_PIPE
    except IsofireError as error:
        missing = isinstance(error, DataError) and "download=True" in str(error)
        return _fail(error, USER, as_json, debug, _MISSING_DATA if missing else "")
    except Exception as error:
        if outer := _circumstance(error):
            return _fail(outer, USER, as_json, debug)
        hint = "" if debug else "this is a fault of isofire; run it again with --debug and report what it prints"
        return _fail(error, INTERNAL, as_json, debug, hint)


def _circumstance(error: Exception) -> IsofireError | None:
    """The error as one of the machine rather than of the program: a file, folder or memory that is not to be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY):
        return OutputError(
            f"there is not enough memory ({str(error) or type(error).__name__}); take fewer images at once, or fewer "
            "steps"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return OutputError(f"cannot use {error.filename}: {error.strerror}")
    return None


def _run(given: list[str]) -> int:
    for word in given:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise _Usage(f"arguments must be UTF-8 text, got {word!a}; rename the file, or the setting") from error
    try:
        command, bound, _ = app.parse_args(
            given, print_error=False, exit_on_error=False, console=Console(), error_console=Console(stderr=True)
        )
    except CycloptsError as error:
        raise _Usage(_explained(error, given)) from error
    result = command(*bound.args, **bound.kwargs)
    if not isinstance(result, Report):
        return 0
    output = bound.arguments.get("output")
    try:
        print_report(result, as_json=isinstance(output, Output) and output.json)
    except BrokenPipeError:
        # a reader that has seen enough, such as head, does not change the outcome
        _silence_stdout()
    except OutputError:
        # what is left in the buffer would be tried once more at exit, whose failure has a status of its own
        _silence_stdout()
        raise
    return result.code


def _silence_stdout() -> None:
    """Keep the interpreter from complaining when it closes a stream that nobody reads any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Usage(IsofireError):
    """An option or argument that the command does not take."""


def _explained(error: CycloptsError, given: list[str]) -> str:
    error.verbose = False
    words = [word for word in given if not word.startswith("-")]
    name = f"isofire {words[0]}" if words and words[0] in _names() else "isofire"
    unused = error.unused_tokens if isinstance(error, UnusedCliTokensError) else []
    if any("=" in token for token in unused or []):
        return f"{str(error).strip()} Give --set anew for every setting: --set a.b=1 --set c.d=2 (see {name} --help)"
    return f"{str(error).strip()} (see {name} --help)"


def _names() -> set[str]:
    return {name for name in app if not name.startswith("-")}


def _fail(error: Exception, code: int, as_json: bool, debug: bool, hint: str = "") -> int:
    if debug:
        traceback.print_exception(error)
    kind = "UsageError" if isinstance(error, _Usage) else type(error).__name__
    message = str(error) if isinstance(error, IsofireError) else f"{kind}: {error}"
    print_error(message, hint)
    if as_json:
        _print_quietly({"error": {"type": kind, "message": str(error), "exit_status": code}})
    return code


def _print_quietly(document: dict[str, Any]) -> None:
    try:
        print(json.dumps(document, indent=2))
        sys.stdout.flush()
    except OSError:
        # stdout itself may be what failed; the message is on stderr
        _silence_stdout()
