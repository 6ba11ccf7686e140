"""A batch in eval mode: SpikingJelly, snnTorch and exported files beside isofire."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Rows, inferred
from benchmarks.networks import Given, backend, last, trained
from benchmarks.peers import SnnTorchNet, add_runtimes, add_spikingjelly, snntorch_as_isofire
from isofire.models import SEWResNet, sew_resnet18


def sew8(given: Given, batch: int) -> Rows:
    """SEW-ResNet-8 with 4-bit weights; the tables of 8 and 2 bits are other networks of the same shape."""
    model, images, rows = trained(), given.images(batch), Rows()
    quantized = given.quantized(model, 4)
    add_spikingjelly(rows, quantized, images)
    add_runtimes(rows, quantized, images, given.threads)
    _add_isofire(rows, quantized, images)
    for bits in (8, 2):
        other = isofire.fast(given.quantized(model, bits))
        rows.add(f"isofire.fast, {bits} bits", partial(inferred, other, images), same=False)
    return rows


def sew18(given: Given) -> Rows:
    """SEW-ResNet-18 of 64 to 512 channels with 4-bit weights."""
    torch.manual_seed(0)
    model = given.awake(sew_resnet18(T=4))
    # 18 layers without training leave the classes close together: sums in another order change one of 32
    quantized, images, rows = given.quantized(model, 4, 64), given.images(32), Rows(agreement=0.9)
    add_spikingjelly(rows, quantized, images)
    _add_isofire(rows, quantized, images)
    return rows


def snntorch(given: Given) -> Rows:
    """A small convolutional network of snnTorch's Leaky with 4-bit weights."""
    torch.manual_seed(0)
    images, rows = given.images(128), Rows()
    peer = given.awake(SnnTorchNet())
    model = isofire.quantize_(
        snntorch_as_isofire(peer), isofire.QuantSpec(weights={"method": "uniform", "bits": 4}),  # type: ignore[arg-type]
        given.images(512, "train"),
    )  # fmt: skip
    # the quantized weights, so that all rows are of one network
    _take_weights_(peer, isofire.convert(model))
    rows.add("snntorch", lambda: inferred(peer, images))
    rows.add("snntorch, channels_last", lambda: inferred(last(peer), last(images)))
    rows.add("snntorch, channels_last, torch.compile", lambda: inferred(torch.compile(last(peer)), last(images)))
    rows.add("isofire, float32", lambda: inferred(last(model), last(images)))
    rows.add("isofire.fast, 4 bits", lambda: inferred(isofire.fast(model), images))
    return rows


def recording(given: Given) -> Rows:
    """The same with every neuron's spikes counted."""
    quantized, images, rows = given.quantized(trained(), 4), given.images(128), Rows()
    for name, model in (("isofire", backend(quantized, "auto")), ("isofire.fast", isofire.fast(quantized))):
        batch = last(images) if name == "isofire" else images
        recorded = copy.deepcopy(model)
        # entered once, as for a whole data set
        isofire.FiringRecorder(recorded).__enter__()
        rows.add(name, partial(inferred, model, batch))
        rows.add(f"{name}, recording", partial(inferred, recorded, batch))
    return rows


def export(given: Given) -> Rows:
    """Files that isofire exports, of full precision and of 8- and 4-bit weights."""
    model, images, rows = trained(), given.images(128), Rows()
    add_runtimes(rows, model, images, given.threads, ", float32")
    for bits in (8, 4):
        add_runtimes(rows, given.quantized(model, bits), images, given.threads, f", {bits} bits")
    rows.add("isofire, float32", lambda: inferred(backend(model, "auto"), last(images)))
    rows.add("isofire.fast, 4 bits", lambda: inferred(isofire.fast(given.quantized(model, 4)), images), same=False)
    rows.same = [name for name in rows.same if not name.endswith("bits")]
    return rows


def _add_isofire(rows: Rows, quantized: SEWResNet, images: torch.Tensor) -> None:
    rows.add("isofire, float32, torch operations", lambda: inferred(backend(quantized, "torch"), last(images)))
    rows.add("isofire, float32", lambda: inferred(backend(quantized, "auto"), last(images)))
    rows.add("isofire.fast, 4 bits", lambda: inferred(isofire.fast(quantized), images))


def _take_weights_(peer: SnnTorchNet, model: nn.Module) -> None:
    # the norms too, which are estimated anew behind quantized weights
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        theirs, ours = ([m for m in net.modules() if isinstance(m, kind)] for net in (peer, model))
        for one, other in zip(theirs, ours, strict=True):
            one.load_state_dict(other.state_dict())


_BASE = "4-bit weights (uniform), T = 4, trained, test images of CIFAR-10; base: SpikingJelly 2.0 as it comes."
CASES = (
    Case("inference", f"A batch of 128, SEW-ResNet-8, {_BASE}", partial(sew8, batch=128)),
    Case("inference-16", f"A batch of 16, SEW-ResNet-8, {_BASE}", partial(sew8, batch=16), 15),
    Case("inference-1", f"One image, SEW-ResNet-8, {_BASE}", partial(sew8, batch=1), 31),
    Case(
        "inference-sew18",
        "A batch of 32, SEW-ResNet-18 (64 to 512 channels), T = 4, 4-bit weights; untrained, its batch norms estimated "
        "on training images of CIFAR-10; base: SpikingJelly 2.0 as it comes.",
        sew18, 3, 1,
    ),
    Case(
        "inference-snntorch",
        "A batch of 128, convolutions of 16, 32 and 64 channels with Leaky neurons and max pooling, T = 4, 4-bit "
        "weights; untrained, batch norms as above; base: snnTorch 1.0 as it comes.",
        snntorch,
    ),
    Case(
        "record",
        "A batch of 128 in eval mode with every neuron's spikes counted, SEW-ResNet-8 with 4-bit weights; base: the "
        "float32 path without counting.",
        recording, 31,
    ),
    Case(
        "export",
        "A batch of 128 of files that `isofire export --to onnx` writes, trained SEW-ResNet-8, float32 arithmetic in "
        "both runtimes; base: onnxruntime on the full-precision file.",
        export, 5, 1,
    ),
)  # fmt: skip
