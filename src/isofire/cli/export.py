"""`isofire export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from isofire.cli.named import ModelChoice
from isofire.cli.options import DataChoice, Output
from isofire.cli.screen import Report
from isofire.errors import SpecError
from isofire.files import is_same_file
from isofire.quantization import spec_of

_EXAMPLES = 2
"""Images that shapes are taken from, and on which the graph must compute what the network does."""


def export(
    model: Path | None = None,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The file to write.")],
    to: Literal["nir"] = "nir",
    network: ModelChoice | None = None,
    choice: DataChoice | None = None,
    output: Output | None = None,
) -> Report:
    """Write a network, quantized or not, in a format that other tools and chips read.

    ```
    isofire export runs/w4m4/model.safetensors --data digits --out w4m4.nir
    isofire export sew_resnet8-cifar10 --data cifar10 --root DIR --out sew8.nir
    isofire export --model nets:build --weights FILE.safetensors --data nets:load --out net.nir
    ```

    Quantized weights are the values of their levels; membrane quantizers are metadata, see docs/adapters/nir.md. The
    data give the shapes, and two images on which the graph is checked against the network. A network of another library
    is written by that library's own writer, with weights alone quantized, and not checked.

    Parameters
    ----------
    model
        A file that isofire wrote (model.safetensors); with --model, weights for it.
    to
        The format: nir, the Neuromorphic Intermediate Representation (extra `nir`).
    """
    chosen = network or ModelChoice()
    for given in (model, chosen.weights):
        if given is not None and is_same_file(out, given):
            raise SpecError(f"--out {out} is the network itself, which would be replaced; name another file")
    try:
        from isofire import nir
    except ImportError as error:
        raise SpecError(f"--to {to} needs the extra nir: pip install 'isofire[nir]' ({error})") from error
    opened, _ = chosen.open(model)
    inputs, _ = next(iter((choice or DataChoice()).load().first(_EXAMPLES).batches(_EXAMPLES)))
    graph = nir.to_graph(opened, inputs)
    nir.write_graph(out, graph)
    spec = spec_of(opened)
    document = {
        "file": str(out), "format": to, "nodes": len(graph.nodes), "edges": len(graph.edges),
        "bytes": out.stat().st_size, "quantized": spec is not None,
    }  # fmt: skip
    kind = "quantized" if spec is not None else "full precision"
    own = nir.is_own(graph)
    by = "" if own else ", by its library's own writer and not checked"
    text = f"wrote {out}: {len(graph.nodes)} nodes, {len(graph.edges)} edges, {kind}{by}"
    return Report(document | {"checked": own}, text)
