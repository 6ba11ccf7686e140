"""`python -m benchmarks.gpu`: neurons as Triton kernels beside SpikingJelly on a GPU; refuses where there is none.

Prepared without a GPU at hand: it has not run yet. It first counts spikes in which the GPU differs from the CPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases.training import step
from benchmarks.machine import Watch
from benchmarks.measure import Row, Rows, inferred, interleaved
from benchmarks.networks import Given, backend, last, trained
from benchmarks.page import table
from benchmarks.peers import COMPILED, peer_of
from isofire.files import write_text
from isofire.neurons import LIF
from isofire.study.environment import environment, version

BATCH, ROUNDS, WARMUP = 128, 31, 5
PEERS = ("spikingjelly", "cupy", "triton")


def main(argv: list[str] | None = None) -> int:
    """Time all cases, print their tables and write one JSON file; 2 without a CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where the JSON goes")
    parser.add_argument("--root", help="folder of CIFAR-10; without it images are normal noise")
    asked = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device, and torch finds none: nothing was measured", file=sys.stderr)
        return 2
    images = Given(asked.root).images(BATCH) if asked.root else torch.randn(BATCH, 3, 32, 32)
    notes = {"images": "CIFAR-10" if asked.root else "normal noise", **_differences(), **_peer()}
    cases = {"layer": _layer, "inference": _inference, "training-step": _training}
    found = [_timed(name, rows(images.cuda()), notes) for name, rows in cases.items()]
    write_text(asked.out, json.dumps(found, indent=1) + "\n")
    return 0


def _timed(name: str, rows: Rows, notes: dict[str, Any]) -> dict[str, Any]:
    rows.check()
    with Watch() as watch:
        times = interleaved({row: partial(_to_the_end, run) for row, run in rows.run.items()}, ROUNDS, WARMUP)
    result = {
        "case": f"gpu-{name}", "about": torch.cuda.get_device_name(), "threads": torch.get_num_threads(),
        "machine": {**watch.said(), "waited_s": 0.0},
        "missing": rows.missing, "notes": notes, "times": times,
        "versions": {peer: version(peer) for peer in PEERS}, "environment": environment("cuda"),
    }  # fmt: skip
    print(f"{name}\n\n{table(result)}\n", flush=True)
    return result


def _to_the_end(run: Row) -> None:
    """A run with all that it started on the GPU."""
    run()
    torch.cuda.synchronize()


def _differences() -> dict[str, Any]:
    """Spikes of a layer behind a batch norm on the GPU that differ from the CPU's."""
    x, norm = torch.randn(4, 32, 64, 16, 16) * 1.5 + 0.8, nn.BatchNorm2d(64).eval()
    neuron = LIF(3.0)
    here = neuron(x, norm=norm)
    neuron.backend = "triton"
    there = neuron(x.cuda(), norm=norm.cuda()).cpu()
    return {"spikes": here.numel(), "spikes that differ from the CPU's": int((here != there).sum())}


def _peer() -> dict[str, Any]:
    """What SpikingJelly runs on this device by itself."""
    try:
        from spikingjelly.activation_based.functional.neuron import neuron_implementation
    except ImportError:
        return {}
    return {"spikingjelly runs": neuron_implementation("lif", torch.device("cuda"))["implementation"]}


def _layer(images: Tensor) -> Rows:
    """Forward and backward of batch norm and LIF on [4, 128, 64, 32, 32]."""
    x, rows = torch.randn(4, len(images), 64, 32, 32, device="cuda"), Rows()
    for name in (None, "cupy"):
        rows.add(_named("spikingjelly", name), lambda name=name: _peer_layer(x, name), same=False)
    for name in ("torch", "triton"):
        rows.add(f"isofire, {name}", lambda name=name: _own_layer(x, name), same=False)
    return rows


def _peer_layer(x: Tensor, name: str | None) -> Row:
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    net = nn.Sequential(layer.BatchNorm2d(64), neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()))
    functional.set_step_mode(net, "m")
    net = _by(net.cuda(), name)

    def run(inputs: Tensor) -> Tensor:
        functional.reset_net(net)
        return net(inputs)

    return _both_ways(run, x)


def _own_layer(x: Tensor, name: str) -> Row:
    neuron, norm = LIF(2.0, backend=name), nn.BatchNorm2d(64).cuda()  # type: ignore[arg-type]
    return _both_ways(lambda inputs: neuron(inputs, norm=norm), x)


def _both_ways(call: Callable[[Tensor], Tensor], x: Tensor) -> Row:
    leaf, upstream = x.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(call(leaf), leaf, upstream)


def _inference(images: Tensor) -> Rows:
    model, rows = trained().cuda(), Rows()
    rows.add("spikingjelly", lambda: inferred(peer_of(model).cuda(), images))
    rows.add("spikingjelly, channels_last", lambda: inferred(last(peer_of(model).cuda()), last(images)))
    rows.add("spikingjelly, cupy", lambda: inferred(_by(peer_of(model).cuda(), "cupy"), images))
    rows.add(COMPILED, lambda: inferred(torch.compile(last(peer_of(model).cuda())), last(images)))
    for name in ("torch", "triton"):
        rows.add(f"isofire, {name}", lambda name=name: inferred(backend(model, name), last(images)))
    own = backend(model, "triton")
    rows.add("isofire, triton, torch.compile", lambda: inferred(torch.compile(own), last(images)))  # type: ignore[arg-type]
    rows.add("isofire, triton, CUDA graph", lambda: _graphed(own, last(images)))
    return rows


def _training(images: Tensor) -> Rows:
    model, rows = trained().cuda().train(), Rows()
    labels = torch.arange(len(images), device="cuda") % 10
    rows.add("spikingjelly", lambda: step(peer_of(model).cuda(), images, labels), same=False)
    rows.add("spikingjelly, channels_last", lambda: step(last(peer_of(model).cuda()), last(images), labels), same=False)
    rows.add("spikingjelly, cupy", lambda: step(_by(peer_of(model).cuda(), "cupy"), images, labels), same=False)
    compiled = lambda net: step(torch.compile(net), last(images), labels)  # noqa: E731
    rows.add(COMPILED, lambda: compiled(last(peer_of(model).cuda())), same=False)
    for name in ("torch", "triton"):
        rows.add(f"isofire, {name}", lambda name=name: step(backend(model, name), last(images), labels), same=False)
    rows.add("isofire, triton, torch.compile", lambda: compiled(backend(model, "triton")), same=False)
    rows.add(
        "isofire, triton, CUDA graphs",
        lambda: step(
            torch.cuda.make_graphed_callables(backend(model, "triton"), (last(images),)), last(images), labels
        ),
        same=False,
    )
    return rows


def _graphed(model: nn.Module, batch: Tensor) -> Row:
    """A forward as one CUDA graph, captured after a few runs on another stream, as torch asks for it."""
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = model(batch)

    def run() -> Tensor:
        graph.replay()
        return found

    return run


def _by(net: nn.Module, name: str | None) -> nn.Module:
    """A copy whose SpikingJelly neurons run by that backend, which older releases let one choose."""
    net = copy.deepcopy(net)
    chosen = [module for module in net.modules() if name in getattr(module, "supported_backends", ())]
    if name is not None and not chosen:
        raise RuntimeError(f"this SpikingJelly has no backend {name} to choose")
    for module in chosen:
        module.backend = name  # type: ignore[assignment]
    return net


def _named(library: str, name: str | None) -> str:
    return library if name is None else f"{library}, {name}"


if __name__ == "__main__":
    sys.exit(main())
