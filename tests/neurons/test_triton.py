"""The Triton path beside what all fast paths are tested for: when it runs, what it launches, how it would be compiled.

`make test-triton` runs these and the tests of all fast paths in Triton's interpreter, on CPU tensors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.neurons.which import NO_KERNELS, TRITON
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from isofire.errors import ModelError
from isofire.firing import FiringRecorder
from isofire.neurons import IF, LIF, MembraneQuantizer, ParametricLIF, gpu, native, paths, traced
from isofire.neurons.counting import add_image_counts
from isofire.neurons.fused import NATIVE_KERNELS
from isofire.quantizers import Uniform

NAMED = "needs triton and TRITON_INTERPRET=1: make test-triton"
interpreted = pytest.mark.skipif(not TRITON, reason=NAMED)
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def gradients(call: Any, norm: Any, x: Tensor, neuron: Any) -> list[Tensor]:
    """Spikes, and gradients of the input and all parameters."""
    leaf = x.clone().requires_grad_()
    spikes = call(leaf, norm=norm)
    upstream = torch.arange(spikes.numel(), dtype=torch.float64).cos().view(spikes.shape).float().to(x.device)
    return [spikes.detach(), *torch.autograd.grad(spikes, [leaf, *norm.parameters(), *neuron.parameters()], upstream)]


def test_importing_isofire_needs_no_triton() -> None:
    # torch's own compiler may load the package triton where it is installed; isofire's kernels wait for a first launch
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, isofire; from isofire.neurons import LIF, gpu\n"
        "print(LIF()(torch.full((2, 1, 1), 3.0)).tolist(), 'isofire.neurons.triton_kernels' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split("\n")[0] == "[[[1.0]], [[1.0]]] False"


@pytest.mark.skipif(TRITON, reason="it runs here")
def test_where_it_cannot_run_it_says_so(currents: Any) -> None:
    reason = "needs the package triton" if find_spec("triton") is None else "with TRITON_INTERPRET=1 only"
    with pytest.raises(ModelError, match=f"backend 'triton' .*{reason}"):
        LIF(backend="triton")(currents(3, 2, 4))


def test_what_it_does_not_take(currents: Any) -> None:
    x = currents(3, 2, 4)
    for call, message in (
        (lambda: LIF(backend="triton")(x.double()), "needs float32"),
        (lambda: LIF(backend="triton")(x[:, :0]), "at least one neuron"),
        (lambda: LIF(backend="triton", v_floor=-1.0)(x), "knows neither v_floor"),
        (lambda: LIF(backend="triton")(x[:1].repeat(gpu.MOST_STEPS + 1, 1, 1)), "gradients through at most 32 steps"),
    ):
        with pytest.raises(ModelError, match=message):
            call()


@interpreted
def test_more_steps_run_without_gradient(currents: Any) -> None:
    x = currents(gpu.MOST_STEPS + 8, 2, 5)
    with torch.no_grad():
        assert torch.equal(LIF(3.0, backend="triton")(x), LIF(3.0, backend="reference")(x))


@interpreted
def test_only_who_asks_gets_the_interpreter(currents: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "usable", lambda x: False)
    monkeypatch.setattr(paths.TRITON, "kernels", None)
    LIF()(currents(3, 2, 4))
    with pytest.raises(AttributeError):
        LIF(backend="triton")(currents(3, 2, 4))


@interpreted
def test_a_device_that_fails_is_named_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch, currents: Any) -> None:
    def no_compiler(*_: Any) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(gpu, "moments", no_compiler)
    gpu._missing.cache_clear()
    try:
        with pytest.raises(ModelError, match=r"cannot run Triton on cpu \(RuntimeError: Failed to find C compiler"):
            LIF(backend="triton")(currents(3, 2, 4))
        assert LIF()(currents(3, 2, 4)).shape == (3, 2, 4)
    finally:
        gpu._missing.cache_clear()


@interpreted
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("repeat", [None, 255])
def test_counts(repeat: int | None, channels_last: bool, currents: Any) -> None:
    x = currents(4, 2, 3, 5, 7, channels_last=channels_last)
    x = x if repeat is None else x[0]
    with torch.no_grad():
        for norm in (None, nn.BatchNorm2d(3)):
            neuron = IF(backend="triton")
            neuron.counting = True
            spikes = neuron(x, norm=norm, repeat=repeat)
            assert neuron.spike_counts is not None
            assert neuron.spike_counts.dtype == torch.uint8
            assert torch.equal(neuron.spike_counts.long(), spikes.sum(0).long())


@interpreted
def test_a_recorder_takes_its_counts(currents: Any) -> None:
    x, found = currents(4, 3, 5), []
    for backend in ("reference", "triton"):
        model = nn.Sequential(LIF(backend=backend))
        with FiringRecorder(model) as recorder, torch.no_grad():
            model(x)
        found.append(recorder.counts.rates("0"))
    assert found[0].sum() > 0
    assert torch.equal(*(torch.as_tensor(rates) for rates in found))


def test_counts_that_no_compiled_kernel_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.tensor([[3, 1], [0, 255], [2, 2]], dtype=torch.uint8)
    sums = torch.zeros(2, 2, dtype=torch.int32)
    # as on a device that is none of the compiled kernels'
    monkeypatch.setattr(native, "tally_", None)
    add_image_counts(sums.T.contiguous().T, counts, torch.tensor([0, 1, 0]))
    add_image_counts(strided := torch.zeros(2, 4, dtype=torch.int32)[:, ::2], counts, torch.tensor([0, 1, 0]))
    assert strided.tolist() == [[5, 3], [0, 255]]


@interpreted
@NO_KERNELS
@pytest.mark.parametrize("shape", [(6, 5, 7, 3), (6, 5), (700, 3), (2, 3, 700), (2, 70, 3, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_moments_equal_the_compiled_ones(shape: tuple[int, ...], channels_last: bool, currents: Any) -> None:
    x = currents(1, *shape)[0] * 3 + 1000
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    layout = native.MemoryLayout.of(x, 1)
    for a, b in zip(gpu.moments(x, layout), NATIVE_KERNELS.moments(x, layout), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


@interpreted
@pytest.mark.parametrize("T", [1, 2, 9, 17, gpu.MOST_STEPS])
def test_every_size_of_tile(T: int, currents: Any, run: Any, assert_close: Any) -> None:
    x = currents(T, 3, 2, 5, 7)
    neuron = ParametricLIF(1.7)
    neuron.membrane = MembraneQuantizer(Uniform(3, range=(-1.25, 1.25), ste="clipped"), "post_reset")
    results = []
    for backend in ("reference", "triton"):
        neuron.backend = backend
        results.append(run(neuron, x))
    (expected, gradients), (spikes, got) = results
    assert torch.equal(spikes, expected)
    for a, b in zip(got, gradients, strict=True):
        assert_close(a, b, scale=float(x.abs().sum()) * 1e-2)


@interpreted
def test_a_traced_graph_runs_them(monkeypatch: pytest.MonkeyPatch, currents: Any, assert_close: Any) -> None:
    # as on CUDA, where the operators take these kernels
    monkeypatch.setattr(traced, "_kernels", lambda x: gpu.TRITON_KERNELS)
    x, found = currents(4, 3, 5, 4, 4), []
    for whole in (False, True):
        torch.compiler.reset()
        neuron, norm = ParametricLIF(backend="triton"), nn.BatchNorm2d(5)
        call = torch.compile(neuron, fullgraph=True, backend="aot_eager") if whole else neuron
        found.append((gradients(call, norm, x, neuron), norm.state_dict()))
    for a, b in zip(found[1][0], found[0][0], strict=True):
        assert_close(a, b, 1e-6)
    torch.testing.assert_close(found[1][1], found[0][1])


def test_operators_of_a_graph_know_cuda() -> None:
    with FakeTensorMode():
        x = torch.empty(4, 2, 3, 5, 5, device="cuda")
        codes, values = [1, 1, 0, 0], [2.0, 1.0, 0.0, 4.0]
        spikes = torch.ops.isofire.fire(
            x, None, None, None, [], False, [], [0, 0, 0], [0.0, 0.0], 4, False, codes, values
        )
        assert spikes.device.type == torch.ops.isofire.moments(x, False)[0].device.type == "cuda"
        assert spikes.shape == x.shape


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: make test-triton")
def test_it_compiles_for_gpus_without_fused_multiply_add() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("triton_launches.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {entry["kernel"] for entry in found} == {"fire", "fire_backward", "moments", "combine"}
    for entry in found:
        assert entry["fused"] == 0, entry
        assert entry["reads"] > 0, entry
        # a register around the call of a division's rare case, but no membranes
        assert entry["spilled"] <= 2, entry


@on_cuda
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("placement", [None, "pre_fire", "post_reset"])
def test_a_gpu_fires_as_the_cpu_does(placement: Any, channels_last: bool, currents: Any, assert_close: Any) -> None:
    x = currents(5, 3, 40, 9, 9, channels_last=channels_last)
    neuron, norm = ParametricLIF(3.0), nn.BatchNorm2d(40).eval()
    if placement is not None:
        neuron.membrane = MembraneQuantizer(Uniform(4, range=(-1.25, 1.25), ste="clipped"), placement)
    expected = gradients(neuron, norm, x, neuron)
    neuron.backend = "triton"
    got = [part.cpu() for part in gradients(neuron, norm.cuda(), x.cuda(), neuron.cuda())]
    assert torch.equal(got[0], expected[0])
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert_close(a, b, scale=float(x.abs().sum()) * 1e-2 if b.ndim == 0 else None)
