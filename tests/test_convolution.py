"""The convolutions whose weight gradient oneDNN writes past its end, under an allocator that sees it.

oneDNN is told to use AVX2, where the fault is, and glibc's checking allocator aborts a process whose heap was written
past an allocation. A process without the guard shows that it would be seen.
"""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.convolution import SafeConvolutions, guard_, needs_care, overruns, plain
from isofire.models import sew_resnet8

CPU = torch.device("cpu")
CHECKING = "libc_malloc_debug.so.0"


def run(code: str) -> subprocess.CompletedProcess[str]:
    checked = {"ONEDNN_MAX_CPU_ISA": "AVX2", "LD_PRELOAD": CHECKING, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    common = "import torch, torch.nn.functional as F\nfrom torch import nn\ntorch.set_num_threads(1)\n"
    return subprocess.run(
        [sys.executable, "-c", common + code], capture_output=True, text=True, env={**os.environ, **checked}
    )


@pytest.fixture(scope="session")
def _seen() -> None:
    """Skips where this fault is not seen: another processor or torch, or no checking allocator."""
    if sys.platform != "linux" or (ctypes.util.find_library("c_malloc_debug") is None and not _loads()):
        pytest.skip("no checking allocator here")
    if run(LOOP.format(guard="nullcontext()", before="")).returncode == 0:
        pytest.skip("this torch does not overrun on this processor")


def _loads() -> bool:
    try:
        ctypes.CDLL(CHECKING)
    except OSError:
        return False
    return True


LOOP = """
from contextlib import nullcontext
from isofire.convolution import SafeConvolutions, guard_
layer = nn.Conv2d(4, 8, 1, 2).to(memory_format=torch.channels_last)
{before}
for _ in range(100):
    x = torch.randn(8, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    with {guard}:
        y = layer(x)
    y.sum().backward()
    kept = [torch.randn(size) for size in (16, 64, 256)]
"""
FUNCTIONAL = """
from isofire.convolution import SafeConvolutions
for sizes, channels, strides in (((8, 8), (4, 8), 2), ((8, 8), (6, 8), (1, 2)), ((9, 9), (2, 16), 3)):
    for _ in range(60):
        x = torch.randn(8, channels[0], *sizes).contiguous(memory_format=torch.channels_last).requires_grad_()
        w = torch.randn(channels[1], channels[0], 1, 1, requires_grad=True)
        with SafeConvolutions():
            y = F.conv2d(x, weight=w, stride=strides)
        y.sum().backward()
        kept = [torch.randn(size) for size in (16, 64, 256)]
"""
CELL = """
from isofire.spec import QuantSpec
from isofire.config import DataSettings
from isofire.study import fresh_model, load_splits, run_cell
from isofire.training import Recipe
splits = load_splits(DataSettings(name="digits", train_images=64, test_images=16))
model = fresh_model(dict(builder="sew_resnet8", width={width}, T=2, in_channels=1), 0)
spec = QuantSpec(weights={weights})
recipe = Recipe(epochs=2, lr=0.1, batch_size=16, warmup_epochs=0)
run_cell(model, spec, mode="qat", train_set=splits.train, test_set=splits.test, recipe=recipe, device="cpu")
"""
OWN_LOOP = """
import isofire
from isofire.models import sew_resnet8
model = sew_resnet8(width=0.25, T=2, in_channels=1)
if {prepared}:
    spec = isofire.QuantSpec(weights=dict(method="tawq", steps=2))
    model = isofire.calibrate(isofire.prepare(model, spec), torch.randn(8, 1, 8, 8))
model = model.train().to(memory_format=torch.channels_last)
for _ in range(12):
    model(torch.randn(16, 1, 8, 8).contiguous(memory_format=torch.channels_last)).sum().backward()
    kept = [torch.randn(size) for size in (16, 64, 256)]
"""


@pytest.mark.slow
@pytest.mark.usefixtures("_seen")
@pytest.mark.parametrize(
    "code",
    [
        LOOP.format(guard="SafeConvolutions()", before=""),
        LOOP.format(guard="nullcontext()", before="guard_(layer)"),
        FUNCTIONAL,
        CELL.format(width=0.25, weights='dict(method="tawq", steps=2)'),
        CELL.format(width=0.125, weights='dict(method="lsq", bits=4)'),
        OWN_LOOP.format(prepared=True),
        OWN_LOOP.format(prepared=False),
    ],
    ids=["mode", "layer", "function", "tawq cell", "lsq cell", "own loop, prepared", "own loop"],
)
def test_the_heap_is_left_whole(code: str) -> None:
    done = run(code)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("shape", "stride", "expected"),
    [
        ((8, 4, 1, 1), (2, 2), True),
        ((8, 7, 1, 1), (1, 2), True),
        ((8, 4, 1), 3, True),
        ((8, 8, 1, 1), (2, 2), False),
        ((8, 4, 1, 1), (1, 1), False),
        ((8, 4, 3, 3), (2, 2), False),
    ],
)
def test_which_convolutions_are_of_the_kind(shape: tuple[int, ...], stride: object, expected: bool) -> None:
    assert overruns(torch.zeros(shape), stride) is expected


def test_plain_strides_also_where_an_axis_has_length_one() -> None:
    weight = torch.randn(8, 4, 1, 1).to(memory_format=torch.channels_last)
    assert weight.is_contiguous()
    assert weight.stride() != (4, 1, 1, 1)
    assert plain(weight).stride() == (4, 1, 1, 1)
    assert torch.equal(plain(weight), weight)
    already = torch.randn(3, 4)
    assert plain(already) is already


class Functional(nn.Module):
    """Calls the convolution by function, where no module shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=2)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _parametrized() -> nn.Module:
    layer = nn.Conv2d(4, 8, 1, 2)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


@pytest.mark.parametrize(
    ("make", "hooked"),
    [
        # not with hooks, which a function has none of: it would run unguarded, and write past its end
        pytest.param(Functional, False, id="function, mode"),
        *(
            pytest.param(make, hooked, id=f"{name}, {'hooks' if hooked else 'mode'}")
            for name, make in (("layer", lambda: nn.Conv2d(4, 8, 1, 2)), ("parametrized", _parametrized))
            for hooked in (False, True)
        ),
    ],
)
def test_values_and_gradients_stay_what_they_are(make: Callable[[], nn.Module], hooked: bool) -> None:
    torch.manual_seed(0)
    layer, x = make(), torch.randn(5, 4, 6, 6)
    one, two = (x.clone().requires_grad_() for _ in range(2))
    expected = layer(one)
    expected.square().sum().backward()
    grads = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = two.contiguous(memory_format=torch.channels_last)
    if hooked:
        handles = guard_(layer) + guard_(layer)
        assert len(handles) == 1
        found = layer(last)
    else:
        with SafeConvolutions():
            found = layer(last)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(two.grad, one.grad)
    for parameter, grad in zip(layer.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_a_function_has_no_layer_to_guard() -> None:
    assert guard_(Functional()) == []


def test_training_takes_care_where_a_parameter_may_be_such_a_weight() -> None:
    assert needs_care(Functional(), CPU)
    assert needs_care(sew_resnet8(width=0.25), CPU)
    assert not needs_care(sew_resnet8(width=0.25), torch.device("cuda"))
    assert not needs_care(sew_resnet8(), CPU)


def test_a_guarded_network_is_copied_with_its_guards(tmp_path: Path) -> None:
    import copy

    twin = copy.deepcopy(sew_resnet8(width=0.25))
    hooked = [name for name, module in twin.named_modules() if module._forward_pre_hooks]
    assert hooked == ["stages.1.0.conv_down"]
