"""What a network's quantization is, also where a part of it was quantized before the rest was built around it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from isofire.adapters import adapter_of
from isofire.errors import ModelError
from isofire.quantization.kept_levels import kept_levels
from isofire.quantization.plan import LayerAssignment, make_plan
from isofire.quantization.verbs import quantized_parts, spec_of


def choices_of_parts(model: nn.Module) -> Iterator[tuple[str, LayerAssignment]]:
    """How each module is quantized, by its name in the network."""
    for prefix, part in quantized_parts(model).items():
        spec = spec_of(part)
        assert spec is not None
        for choice in make_plan(part, spec).choices:
            yield ".".join(filter(None, (prefix, choice.name))), choice


def refuse_part(model: nn.Module) -> None:
    """Raise ModelError for a part of a network that was quantized as a whole: what its bits are, that one knows."""
    if quantized_parts(model):
        return
    for name, module in model.named_modules():
        adapter = adapter_of(module)
        if kept_levels(module) is not None or (adapter is not None and adapter.membrane(module) is not None):
            raise ModelError(
                f"{name or type(module).__name__!r} is quantized, as a part of another network that knows its bits; "
                "give that network, or quantize this one by itself"
            )


def require_whole(model: nn.Module) -> None:
    """Raise ModelError for a network of which a part was quantized by a spec of its own: in its file nothing would tell
    by which."""
    if spec_of(model) is None and (parts := quantized_parts(model)):
        raise ModelError(
            f"its part {next(iter(parts))!r} was quantized before the rest was built around it, and no file of the "
            "whole would tell by which spec; save that part and build the rest around it again, and train the whole "
            "without a folder for its files (out=None)"
        )
