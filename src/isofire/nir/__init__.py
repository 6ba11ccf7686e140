"""The Neuromorphic Intermediate Representation: networks from and for other tools (extra `nir`)."""

try:
    import nir as _nir  # noqa: F401
except ImportError as _error:
    raise ImportError("isofire.nir needs the package nir; install it, or isofire[nir]") from _error

from isofire.nir.convention import Convention
from isofire.nir.graph import GraphNet, Scale, SumPool2d
from isofire.nir.parts import quantized_parts
from isofire.nir.reading import is_own, read
from isofire.nir.writing import to_graph, write, write_graph

__all__ = [
    "Convention",
    "GraphNet",
    "Scale",
    "SumPool2d",
    "is_own",
    "quantized_parts",
    "read",
    "to_graph",
    "write",
    "write_graph",
]
