"""Specs by name: the best recipes found, so that nobody has to assemble them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from isofire.adapters import Adapter, find_neurons
from isofire.errors import SpecError
from isofire.quantizers.setting import Placement
from isofire.spec import QuantSpec

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


def fitted(spec: QuantSpec, model: nn.Module) -> tuple[QuantSpec, str | None]:
    """A preset's spec with membranes quantized where this network's neurons store them, and what was changed.

    Neurons that reset at the next step, as snnTorch's do unless told otherwise, store nothing after a reset: their
    membranes are rounded before the threshold. Those that store none at all stay float. None: nothing was changed.
    """
    if spec.membrane is None or isinstance(spec.membrane, str):
        return spec, None
    placement, refused = where_stored(find_neurons(model))
    values = spec.to_dict()
    if placement is None or (placement == values["membrane"]["placement"] and not refused):
        return spec, None
    values["membrane"]["placement"] = placement
    values["rules"] = [*values.get("rules", ()), *({"match": name, "membrane": "float"} for name in refused)]
    told = f"states are rounded at {placement}, where these neurons store them"
    if placement == "pre_fire":
        told += "; a preset's few bits keep less there than after a reset, --set quant.membrane.bits=4 keeps more"
    if refused:
        told += "; these stay float: " + "; ".join(f"{name} ({why})" for name, why in refused.items())
    return QuantSpec.from_dict(values), told


def where_stored(neurons: Mapping[str, tuple[nn.Module, Adapter]]) -> tuple[Placement | None, dict[str, str]]:
    """Where most membranes can be quantized, and why which cannot."""
    best: tuple[Placement | None, dict[str, str]] = None, {}
    said: dict[str, str | None] = {}
    places: tuple[Placement, ...] = ("post_reset", "pre_fire")
    for placement in places:
        said = {name: adapter.refusal(neuron, placement) for name, (neuron, adapter) in neurons.items()}
        refused = {name: why for name, why in said.items() if why is not None}
        if len(refused) < len(neurons) and (best[0] is None or len(refused) < len(best[1])):
            best = placement, refused
    return best if best[0] is not None else (None, {name: why or "" for name, why in said.items()})
