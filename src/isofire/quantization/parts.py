"""What a network's quantization is, also where a part of it was quantized before the rest was built around it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from isofire.quantization.plan import LayerAssignment, make_plan
from isofire.quantization.verbs import spec_of


def quantized_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> module of what was quantized by a spec of its own; the whole network is called ""."""
    return {name: part for name, part in model.named_modules() if spec_of(part) is not None}


def choices_of_parts(model: nn.Module) -> Iterator[tuple[str, LayerAssignment]]:
    """How each module is quantized, by its name in the network."""
    for prefix, part in quantized_parts(model).items():
        spec = spec_of(part)
        assert spec is not None
        for choice in make_plan(part, spec).choices:
            yield ".".join(filter(None, (prefix, choice.name))), choice
