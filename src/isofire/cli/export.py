"""`isofire export`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from torch import nn

from isofire.cli.named import ModelChoice, Network, is_bundle
from isofire.cli.options import DataChoice, Output, batch_of
from isofire.cli.screen import Report
from isofire.cli.whole import WHOLE
from isofire.errors import SpecError
from isofire.files import is_same_file
from isofire.models import NamedData
from isofire.study import AnySet

_EXAMPLES = 2
"""Images that shapes are taken from, and on which the graph must compute what the network does; golden vectors."""
_RANGE = 256
"""Images whose largest value is the largest that an integer network takes."""
_NAMES = {"nir": "net.nir", "onnx": "net.onnx", "bundle": "codes", "c": "c-program"}
_CHECKED = 16
"""Images on which the spikes of the integer network are compared with the float network's."""


def export(
    model: Network = None,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="The file to write; a folder for bundle and c. Required.")
    ] = None,
    to: Literal["nir", "bundle", "c", "onnx"] = "nir",
    input_bits: Annotated[int | None, WHOLE] = None,
    weight_bits: Annotated[int | None, WHOLE] = None,
    network: ModelChoice | None = None,
    choice: DataChoice | None = None,
    output: Output | None = None,
) -> Report:
    """Write a network, quantized or not, in a format that other tools and chips read.

    ```
    isofire export q.safetensors --to c --data digits --out c-program
    isofire export q.safetensors --to onnx --data digits --out q.onnx
    isofire export --model nets:build --weights weights.safetensors --data nets:load --out net.nir
    isofire export sew_resnet8-digits --data digits --out sew8.nir
    ```

    nir: quantized weights are the values of their levels; membrane quantizers are metadata, see docs/adapters/nir.md.
    The data give the shapes, and two images on which the graph is checked against the network and whose inputs, spikes,
    states and outputs are its golden vectors. A network of another library is written by that library's own writer,
    with weights alone quantized, not checked and without golden vectors.

    bundle and c: the network in integers (docs/chips.md), batch norms folded, with golden vectors of two images. The
    data give shapes, the range of inputs, and 16 images on which spikes that differ from the float network's are
    counted. Of a bundle c is written as it is, without data.

    onnx: steps unrolled, any number of images, weights as int4 or int8 codes where their levels have one step a
    channel. Where onnxruntime is installed, the file is run on 16 images and compared with the network, spike by spike.

    Parameters
    ----------
    to
        nir, the Neuromorphic Intermediate Representation (extra `nir`); bundle, a folder of packed codes and a JSON
        manifest that numpy reads; c, a folder with a C99 program; onnx, an ONNX file (extra `onnx`).
    input_bits, weight_bits
        For bundle and c: bits of real inputs (32, less what pools of inputs add), and of weights in full precision
        (32).
    """
    for option, bits in (("--input-bits", input_bits), ("--weight-bits", weight_bits)):
        if to in ("nir", "onnx") and bits is not None:
            cure = "quantize the network first (isofire quantize), or choose --to bundle or c"
            raise SpecError(
                f"{option} {bits} is of --to bundle and c, and --to {to} writes numbers as they are; {cure}"
            )
    if out is None:
        raise SpecError(f"export writes a {'file' if to in ('nir', 'onnx') else 'folder'}; give --out {_NAMES[to]}")
    chosen = network or ModelChoice()
    for given in (model, chosen.weights):
        if given is not None and is_same_file(out, given):
            raise SpecError(f"--out {out} is the network itself, which would be replaced; name another file")
    if model is not None and is_bundle(model):
        return _of_bundle(out, to, model, (input_bits, weight_bits), choice)
    if to == "nir":
        return _to_nir(out, chosen, model, choice or DataChoice())
    opened, _ = chosen.open(model)
    if to == "onnx":
        return _to_onnx(out, opened, (choice or DataChoice()).load())
    return _to_integers(out, to, opened, (choice or DataChoice()).load(), (input_bits, weight_bits or 32))


def _to_nir(out: Path, chosen: ModelChoice, model: Path | None, choice: DataChoice) -> Report:
    try:
        from isofire import nir
    except ImportError as error:
        raise SpecError(f"--to nir needs the extra nir: pip install 'isofire[nir]' ({error})") from error
    opened, _ = chosen.open(model)
    inputs, labels = next(iter(choice.load().first(_EXAMPLES).batches(_EXAMPLES)))
    graph = nir.to_graph(opened, inputs, golden=_EXAMPLES)
    nir.write_graph(out, graph)
    quantized, own = bool(nir.quantized_parts(opened)), nir.is_own(graph)
    document = {
        "file": str(out), "format": "nir", "nodes": len(graph.nodes), "edges": len(graph.edges),
        "bytes": out.stat().st_size, "quantized": quantized, "golden": len(labels) if own else 0,
    }  # fmt: skip
    kind = "quantized" if quantized else "full precision"
    golden = f", golden vectors of {len(labels)} images"
    by = golden if own else ", by its library's own writer, not checked and without golden vectors"
    text = f"wrote {out}: {len(graph.nodes)} nodes, {len(graph.edges)} edges, {kind}{by}"
    return Report(document | {"checked": own}, text)


def _to_onnx(out: Path, model: nn.Module, data: AnySet | NamedData) -> Report:
    from isofire.export import write_onnx

    images = batch_of(data, _CHECKED)
    found = write_onnx(out, model, images)
    total, differing = sum(found.spikes.values()), sum(found.differing.values())
    document = {
        "file": str(out), "format": "onnx", "opset": found.opset, "bytes": out.stat().st_size, "codes": found.codes,
        "images": len(images) if found.is_checked else 0, "logits_error": found.logits_error,
        "differing": found.differing, "neuron_steps": total,
    }  # fmt: skip
    kinds = Counter(found.codes.values())
    text = f"wrote {out}: opset {found.opset}, {out.stat().st_size / 1024:.0f} KiB\n"
    text += "".join(f"weights of {count} layers: {kind}\n" for kind, count in kinds.items())
    if found.is_checked:
        text += (
            f"onnxruntime on {len(images)} images: output differs by {found.logits_error:.2g} at most, spikes: "
            f"{differing:,} of {total:,} differ"
        )
    else:
        text += "onnxruntime is not installed, so the file was not run"
    return Report(document, text)


def _to_integers(
    out: Path, to: str, model: nn.Module, data: AnySet | NamedData, bits: tuple[int | None, int]
) -> Report:
    from isofire.export import write_bundle, write_c
    from isofire.integer import differences, lower

    integers = lower(model, batch_of(data, _RANGE), input_bits=bits[0], weight_bits=bits[1])
    codes = integers.codes(batch_of(data, _EXAMPLES))
    (write_bundle if to == "bundle" else write_c)(out, integers, codes)
    found = differences(model, integers, [batch_of(data, _CHECKED)])
    places = sum(layer.places for layer in found.layers.values())
    size = sum(file.stat().st_size for file in out.iterdir())
    document = {
        "folder": str(out), "format": to, "layers": len(found.layers), "bytes": size, "images": found.images,
        "neuron_steps": places, "differing": {name: layer.differ for name, layer in found.layers.items()},
        "notes": {name: list(said) for name, said in integers.notes.items()},
    }  # fmt: skip
    text = (
        f"wrote {out}: {len(found.layers)} layers of neurons in integers, golden vectors of {codes.shape[1]} images\n"
        f"spikes that differ from the float network's on {found.images} images: {found.total:,} of {places:,}\n"
    )
    return Report(document, text + found.table() + f"\n\n{_check_of(out)}" * (to == "c"))


def _check_of(out: Path) -> str:
    return f"check: cc -std=c99 -O2 {out / 'network.c'} {out / 'network_test.c'} -o check && ./check"


def _of_bundle(
    out: Path, to: str, bundle: Path, bits: tuple[int | None, int | None], choice: DataChoice | None
) -> Report:
    """A C program of integers that are there, with the golden vectors that they have, or of two images of the data."""
    from isofire.export import golden_codes, read_bundle, write_c

    if to != "c" or any(given is not None for given in bits):
        what = f"--to {to}" if to != "c" else "--input-bits and --weight-bits"
        raise SpecError(
            f"{bundle} is a bundle of integers, of which --to c is made as they are; for {what} name the network that "
            "it was lowered from"
        )
    integers = read_bundle(bundle)
    given = choice is not None and (choice.data is not None or choice.config is not None)
    codes = integers.codes(batch_of(choice.load(), _EXAMPLES)) if choice and given else golden_codes(bundle)
    write_c(out, integers, codes)
    size = sum(file.stat().st_size for file in out.iterdir())
    document = {"folder": str(out), "format": to, "layers": len(integers.order), "bytes": size, "bundle": str(bundle)}
    text = (
        f"wrote {out}: {len(integers.order)} layers of neurons in integers, golden vectors of {codes.shape[1]} images"
    )
    return Report(document, f"{text}\n\n{_check_of(out)}")
