"""The same networks as other libraries' users write them, with the weights of isofire's."""

from __future__ import annotations

import copy
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, Rows, inferred
from benchmarks.networks import last
from isofire.models import SEWResNet
from isofire.neurons import LIF, PerStep, Repeat

COMPILED = "spikingjelly, channels_last, torch.compile"


def peer_of(model: SEWResNet) -> nn.Module:
    """The SpikingJelly network with the same weights, in the same mode."""
    from benchmarks.sew_resnet import PeerNet

    widths = [stage[0].conv1.out_channels for stage in model.stages]  # type: ignore[index,union-attr]
    peer = PeerNet([len(stage) for stage in model.stages], widths, model.T)  # type: ignore[arg-type]
    peer.load_state_dict(model.state_dict())
    return peer.train(model.training)


def add_spikingjelly(rows: Rows, model: SEWResNet, batch: Tensor, compiled: bool = True) -> None:
    """SpikingJelly as it comes, in channels_last, and under torch.compile."""
    rows.add("spikingjelly", lambda: inferred(peer_of(model), batch))
    rows.add("spikingjelly, channels_last", lambda: inferred(last(peer_of(model)), last(batch)))
    if compiled:
        rows.add(COMPILED, lambda: inferred(torch.compile(last(peer_of(model))), last(batch)))


def add_runtimes(rows: Rows, model: nn.Module, batch: Tensor, threads: int, about: str = "") -> None:
    """onnxruntime and OpenVINO on the file that isofire exports."""
    file = cache(partial(_exported, model, batch))
    rows.add(f"onnxruntime{about}", lambda: _onnxruntime(file(), batch, threads))
    rows.add(f"openvino{about}", lambda: _openvino(file(), batch, threads))


def _onnxruntime(file: bytes, batch: Tensor, threads: int) -> Row:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that spin on after their run would work against the next row
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given = {"images": batch.numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def _openvino(file: bytes, batch: Tensor, threads: int) -> Row:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # on some processors it would round to bfloat16, which is another network
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()
    given = batch.numpy()
    return lambda: torch.from_numpy(request.infer([given])[0])


def _exported(model: nn.Module, batch: Tensor) -> bytes:
    from isofire.export.onnx import write_onnx

    traced = batch if len(batch) > 1 else batch.repeat(2, 1, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        return write_onnx(Path(folder) / "network.onnx", model, traced[:16]).path.read_bytes()


class SnnTorchNet(nn.Module):
    """A convolutional network as snnTorch's users write it: a loop over the steps."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), T: int = 4) -> None:
        super().__init__()
        import snntorch

        self.T = T
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in _pairs(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths)
        self.neurons = nn.ModuleList(
            snntorch.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=False, init_hidden=False) for _ in widths
        )
        self.fc = nn.Linear(widths[-1] * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        membranes: list[Any] = [neuron.reset_mem() for neuron in self.neurons]  # type: ignore[operator]
        logits = []
        for _ in range(self.T):
            x = images
            for i, (conv, norm, neuron) in enumerate(zip(self.convs, self.norms, self.neurons, strict=True)):
                x, membranes[i] = neuron(norm(conv(x)), membranes[i])
                x = nn.functional.max_pool2d(x, 2)
            logits.append(self.fc(x.flatten(1)))
        return torch.stack(logits)


def snntorch_as_isofire(peer: SnnTorchNet) -> nn.Sequential:
    """The same network of isofire's neurons, all steps in one call, the first convolution once."""
    layers: list[nn.Module] = [Repeat(peer.T)]
    for conv, norm in zip(peer.convs, peer.norms, strict=True):
        neuron = LIF(tau=2.0, decay_input=False, v_reset=0.0)
        layers += [PerStep(copy.deepcopy(conv), copy.deepcopy(norm)), neuron, PerStep(nn.MaxPool2d(2))]
    return nn.Sequential(*layers, PerStep(nn.Flatten(), copy.deepcopy(peer.fc))).eval()


def _pairs(widths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip((3, *widths), widths, strict=False))
