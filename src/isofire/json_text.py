"""JSON as isofire writes it: plain values, indented, without NaN, which JSON does not have."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any


def to_json_text(value: Any) -> str:
    """Indented JSON with a newline at its end; see `plain`."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """A copy for JSON: NaN and infinities become None, tuples lists, paths text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value
