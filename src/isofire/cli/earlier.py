"""What a folder holds of an earlier run: the same command may be given again, another one does not write over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from isofire.errors import OutputError
from isofire.files import read_file
from isofire.toml_json import MOST_JSON, parse_json

CONFIG = "config.json"
_HELP = "Write over what is there, also over the result of another command."
Force = Annotated[bool, Parameter(negative=(), show_default=False, help=_HELP)]


def keep_earlier(folder: Path, result: str, asked: Mapping[str, Any], force: bool) -> None:
    """Refuse a folder with a result of other settings.

    Parameters
    ----------
    result
        The file that says that there is one.
    asked
        All that decides the result, plain values; what `CONFIG` has of them under "command" is compared with it.

    Raises
    ------
    OutputError
        If it is another result.
    """
    if force or not (folder / result).exists():
        return
    earlier = _earlier(folder / CONFIG)
    # as JSON has them: tuples are lists
    now = json.loads(json.dumps(asked))
    if earlier == now:
        return
    other = sorted(key for key in {*now, *earlier} if now.get(key) != earlier.get(key)) if earlier else []
    told = f"made with other settings ({', '.join(other)})" if other else "of another run"
    raise OutputError(f"{folder / result} is there already, {told}; give --force to write over it, or another --out")


def _earlier(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_file(path, MOST_JSON))
    except (OSError, ValueError):
        return {}
    command = found.get("command") if isinstance(found, dict) else None
    return command if isinstance(command, dict) else {}
