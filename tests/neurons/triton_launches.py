"""Compiles what layers launch to a GPU's machine code, without a GPU; run as a script without TRITON_INTERPRET.

Prints a JSON list, an entry a kernel: its name and target, fused multiply-adds on float32 in its PTX, instructions of
its machine code that spill registers, and that read memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor, nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type

from isofire.neurons import IF, LIF, ATan, MembraneQuantizer, ParametricLIF, Triangle, gpu, triton_kernels
from isofire.quantizers import Levels, Uniform

TARGETS = (GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32))
KERNELS = {name: getattr(triton_kernels, name) for name in ("fire", "fire_backward", "moments", "combine")}


class Launched:
    """Stands for a kernel and keeps the arguments of its launches."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda **given: self.given.append(given)


def layers() -> None:
    """Every kind of charge, reset, surrogate, quantizer and memory order at least once."""
    x = torch.randn(4, 2, 32, 8, 8)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
    grid = MembraneQuantizer(Uniform(4, range=(-1.0, 1.5), ste="clipped"), "post_reset")
    table = MembraneQuantizer(Levels([-0.5, 0.0, 0.3, 1.1], ste="clipped"), "pre_fire")
    for neuron, inputs, norm, membrane, repeat in (
        (IF(v_reset=None, detach_reset=True), x, None, None, None),
        (LIF(3.0), torch.randn(32, 2, 32), None, None, None),
        (LIF(3.0), x, nn.BatchNorm2d(32), None, None),
        (LIF(3.0, decay_input=False, surrogate=ATan()), last, nn.BatchNorm2d(32), grid, None),
        (ParametricLIF(surrogate=Triangle()), x[0], nn.BatchNorm2d(32), table, 4),
        (ParametricLIF(decay_input=False, v_reset=None), torch.randn(4, 2, 1, 1), None, grid, None),
    ):
        neuron.backend, neuron.counting, neuron.membrane = "triton", norm is not None, membrane
        neuron(inputs.requires_grad_(), norm=norm, repeat=repeat).sum().backward()


def compiled(kernel: Any, given: dict[str, Any], target: GPUTarget) -> dict[str, Any]:
    """Compile a launch as Triton's own launcher would specialise it."""
    signature, constants, aligned = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        name, value = parameter.name, given[parameter.name]
        constant = parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1)
        signature[name] = "constexpr" if constant else mangle_type(value)
        if constant:
            constants[name] = value
        elif isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    done = triton.compile(source, target=target, options={"enable_fp_fusion": given["enable_fp_fusion"]})
    code = disassembled(done.asm["cubin"])
    return {
        "kernel": kernel.__name__,
        "target": target.arch,
        "fused": len(re.findall(r"\bfma\.rn(?:\.ftz)?\.f32", done.asm["ptx"])),
        "spilled": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "reads": len(re.findall(r"\bLDG\b", code)),
    }


def disassembled(cubin: bytes) -> str:
    """Instructions of the machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout


def main() -> None:
    stands = {name: Launched() for name in KERNELS}
    with mock.patch.object(gpu, "missing", return_value=None), mock.patch.multiple(triton_kernels, **stands):
        layers()
    found = [
        compiled(KERNELS[name], given, target)
        for name, stand in stands.items()
        for given in stand.given
        for target in (TARGETS if name == "fire" else TARGETS[-1:])
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
