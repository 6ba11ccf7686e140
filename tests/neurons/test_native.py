"""The compiled kernels: results don't depend on threads, and nothing but speed depends on their being there."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import isofire
from isofire.neurons import LIF, MembraneQuantizer, ParametricLIF, native
from isofire.quantizers import Uniform

needs_kernels = pytest.mark.skipif(native.library() is None, reason="kernels not built")


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def everything(x: Tensor, channels: int, repeat: int | None) -> list[Tensor]:
    """Spikes, gradients, running statistics and counts of one layer with all that it can have."""
    norm = nn.BatchNorm2d(channels)
    neuron = ParametricLIF(1.5)
    quantizer = Uniform(4, range="minmax", granularity="channel", channels=channels, channel_axis=1, refresh=0)
    quantizer.calibrate(torch.linspace(0.9, 1.7, channels).expand(2, channels))
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset")
    neuron.counting = True
    x = x.clone().requires_grad_()
    spikes = neuron(x, norm=norm, repeat=repeat)
    assert neuron.spike_counts is not None
    leaves = [x, *norm.parameters(), *neuron.parameters()]
    weight = torch.linspace(-1, 2, spikes[0, 0].numel()).view(spikes.shape[2:])
    gradients = torch.autograd.grad((spikes * weight).sum(), leaves)
    return [spikes.detach(), *gradients, *(b.clone() for b in norm.buffers()), neuron.spike_counts]


@needs_kernels
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("repeat", [None, 4])
def test_bits_do_not_depend_on_threads(channels_last: bool, repeat: int | None, currents: Any, threads: Any) -> None:
    lib = native.library()
    assert lib is not None
    if not lib.isofire_parallel():
        pytest.skip("the kernels found no OpenMP runtime in the process and run on one thread")
    x = currents(4, 5, 13, 37, 41, channels_last=channels_last)
    x = x if repeat is None else x[0]
    threads(1)
    one = everything(x, 13, repeat)
    for _ in range(3):
        threads(2)
        two = everything(x, 13, repeat)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_bits_do_not_depend_on_threads_elsewhere(backend: Any, currents: Any, threads: Any) -> None:
    x = currents(4, 2, 300, 40)
    results = []
    for count in (1, 2):
        threads(count)
        leaf = x.clone().requires_grad_()
        spikes = LIF(3.0, backend=backend)(leaf)
        (spikes * x).sum().backward()
        results.append((spikes.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])  # type: ignore[arg-type]


@needs_kernels
@pytest.mark.parametrize("shape", [(6, 5, 7, 3), (6, 5), (6, 5, 9)])
def test_moments(shape: tuple[int, ...], currents: Any) -> None:
    x = currents(1, *shape)[0] * 3 + 1000  # far from 0, where sums of squares in float32 would be lost
    for dense in (x, x.contiguous(memory_format=torch.channels_last)) if x.ndim == 4 else (x,):
        mean, var = native.moments(dense, native.MemoryLayout.of(dense, 1))
        axes = [d for d in range(x.ndim) if d != 1]
        torch.testing.assert_close(mean, x.double().mean(axes), rtol=1e-12, atol=0)
        torch.testing.assert_close(var, x.double().var(axes, correction=0), rtol=1e-6, atol=0)


@needs_kernels
@pytest.mark.parametrize("size", [1, 31, 4096, 9001])
def test_tally(size: int, threads: Any) -> None:
    threads(2)
    generator = torch.Generator().manual_seed(size)
    counts = torch.randint(0, 256, (7, size), dtype=torch.uint8, generator=generator)
    rows = torch.tensor([2, 0, 2, 2, 1, 0, 2])
    start = torch.randint(0, 1 << 20, (4, size), dtype=torch.int32, generator=generator)
    expected = start.clone().index_add_(0, rows, counts.int())
    native.tally_(start, counts, rows)
    assert torch.equal(start, expected)


@needs_kernels
def test_a_library_from_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(native.Problem):
        _fields_ = (("more", ctypes.c_int64),)

    monkeypatch.setattr(native, "Problem", Longer)
    native.library.cache_clear()
    try:
        with pytest.raises(ImportError, match="was built from another version of isofire; reinstall the package"):
            native.library()
    finally:
        monkeypatch.undo()
        native.library.cache_clear()
    assert native.library() is not None


SCRIPT = """
import sys
import torch
from safetensors.torch import save_file
from torch import nn

import isofire
from isofire.errors import ModelError
from isofire.models import sew_resnet8
from isofire.neurons import LIF, native

def run(backend):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = sew_resnet8(width=0.25)
    images = torch.randn(4, 3, 16, 16)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 1.2)
        if isinstance(module, isofire.neurons.Neuron):
            module.backend = backend
            module.register_forward_hook(lambda m, a, out, name=name: found.update({name: out.detach().clone()}))
    with torch.no_grad():
        model.eval()(images)
    x = (torch.randn(5, 3, 7, 9) + 0.5).requires_grad_()
    (LIF(3.0, backend=backend)(x) * torch.linspace(-1, 1, 9)).sum().backward()
    found["gradient"] = x.grad
    return found

if __name__ == "__main__":
    print(isofire.__file__, native.library())
    try:
        LIF(backend="native")(torch.zeros(1, 2))
    except ModelError as error:
        print(error)
    save_file({k: v.contiguous() for k, v in run("auto").items()}, sys.argv[1])
"""


@needs_kernels
def test_without_the_library_the_torch_path_gives_the_same(tmp_path: Path, assert_close: Any) -> None:
    package = Path(isofire.__file__).parent
    hidden = shutil.ignore_patterns("*.so", "*.pyd", "*.dylib", "__pycache__")
    shutil.copytree(package, tmp_path / "site" / "isofire", ignore=hidden)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "found")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, refusal = done.stdout.splitlines()
    assert where == f"{tmp_path / 'site' / 'isofire' / '__init__.py'} None"
    assert refusal.endswith("got torch.float32 on cpu and no kernels; use 'auto'")

    scope: dict[str, Any] = {"__name__": "script"}
    exec(compile(SCRIPT, "script", "exec"), scope)
    there = load_file(str(tmp_path / "found"))
    assert len(there) == 10
    for name, expected in scope["run"]("torch").items():
        assert torch.equal(expected, there[name]), name
    here = scope["run"]("native")
    assert_close(here.pop("gradient"), there.pop("gradient"))
    for name, spikes in here.items():
        # a batch norm rounds differently inside the kernel and outside, which may move a membrane over the threshold
        assert int((spikes != there[name]).sum()) <= spikes.numel() * 1e-4, name
        assert 0.01 < spikes.mean() < 0.9, name
