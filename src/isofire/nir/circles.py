"""Graphs within graphs made flat, and neurons that are fed by their own spikes found."""

from __future__ import annotations

from typing import Any

import nir
from isofire.errors import ModelError

Edges = list[tuple[str, str]]


def flat(graph: Any) -> tuple[dict[str, Any], Edges]:
    """Nodes and edges without subgraphs, whose nodes are called "outer.inner".

    Raises
    ------
    ModelError
        If a subgraph has not one input and one output.
    """
    nodes: dict[str, Any] = {}
    edges: Edges = [(str(a), str(b)) for a, b in graph.edges]
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[name] = node
            continue
        inner, links = flat(node)
        ends = []
        for kind in (nir.Input, nir.Output):
            found = [key for key, part in inner.items() if isinstance(part, kind)]
            if len(found) != 1:
                raise ModelError(f"the graph {name!r} inside must have one {kind.__name__}, got {len(found)}")
            ends.append(found[0])
        start, end = ends
        nodes |= {f"{name}.{key}": part for key, part in inner.items() if key not in ends}
        into = [b for a, b in links if a == start]
        out = [a for a, b in links if b == end]
        edges = [(a, f"{name}.{b2}") for a, b in edges if b == name for b2 in into] + [e for e in edges if e[1] != name]
        edges = [(f"{name}.{a2}", b) for a, b in edges if a == name for a2 in out] + [e for e in edges if e[0] != name]
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in links if a != start and b != end]
    return nodes, edges


def recurrent_pairs(nodes: dict[str, Any], edges: Edges) -> dict[str, str]:
    """Neuron -> the weights that take its spikes and lead back to it, and nowhere else."""
    found = {}
    for name, node in nodes.items():
        if not isinstance(node, nir.Linear | nir.Affine):
            continue
        sources, targets = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
        if len(sources) == 1 and sources == targets and isinstance(nodes[sources[0]], nir.IF | nir.LIF | nir.CubaLIF):
            if sources[0] in found:
                raise ModelError(f"{sources[0]!r} is fed back by {found[sources[0]]!r} and {name!r}; add them up first")
            found[sources[0]] = name
    return found
