"""Specs by name: the best recipes found, so that nobody has to assemble them."""

from __future__ import annotations

import copy
from typing import Any

from isofire.errors import SpecError

PRESETS: dict[str, dict[str, Any]] = {
    "keep-firing": {
        "weights": {"method": "gptq", "bits": 4},
        "membrane": {"method": "firing", "bits": 2, "granularity": "channel"},
        "correct": "bias",
    },
    "keep-firing-2bit": {
        "weights": {"method": "gptq", "bits": 2},
        "membrane": {"method": "firing", "bits": 2, "granularity": "channel"},
        "correct": "bias",
    },
    "keep-firing-1bit-state": {
        "weights": {"method": "gptq", "bits": 4},
        "membrane": {"method": "firing", "bits": 1, "granularity": "channel"},
        "correct": "bias",
    },
}
"""Name -> what `QuantSpec.from_dict` takes; see docs/keep-firing.md."""


def preset(name: str) -> dict[str, Any]:
    """The spec of this name as plain values, which may be changed.

    Raises
    ------
    SpecError
        If there is none of this name; lists them.

    Examples
    --------
    >>> preset("keep-firing")["membrane"]["bits"]
    2
    """
    if name not in PRESETS:
        raise SpecError(f"no preset is called {name!r}; there are: {', '.join(PRESETS)}")
    return copy.deepcopy(PRESETS[name])
