"""What isofire keeps in the metadata of a graph and of its nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from isofire.errors import CheckpointError, IsofireError

KEY = "isofire"
"""Of the graph: steps and the quantization's spec. Of a node: what NIR has no field for."""
SPEC = f"{KEY}_spec"
"""Of a graph that another library's writer made: what its weights were quantized by."""
NAMES = f"{KEY}_names"
"""Of a graph: node -> the module's name in the network that was written, where the two differ."""
CONVENTION = f"{KEY}_convention"
"""Of a neuron that another library's writer made a node of: what its step does that NIR leaves open, as fields of a
`Convention`, or in words why none does the same."""
MEMBRANE = f"{KEY}_membrane"
"""Of a neuron: the state of its membrane's quantizer."""


@contextmanager
def intact(place: str) -> Iterator[None]:
    """Metadata are read inside; whatever damaged ones lead to is raised as a CheckpointError."""
    try:
        yield
    except IsofireError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"isofire's metadata of {place} are missing or damaged ({type(error).__name__}: {error}); write the graph "
            f"anew, or delete the key {KEY!r} of the graph's metadata and of its nodes' to read it by NIR's own rules, "
            "without quantizers, resets by subtraction, floors and several spikes a step"
        ) from error
