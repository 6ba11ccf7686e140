"""The fast paths against the reference: same spikes bit for bit, same gradients up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.neurons.which import FAST, FAST_NAMES
from torch import Tensor

from isofire.neurons import IF, LIF, ATan, MembraneQuantizer, Neuron, ParametricLIF, Sigmoid, Triangle, native
from isofire.neurons.gpu import MOST_STEPS
from isofire.quantizers import Uniform

KINDS = ["if", "lif", "lif undecayed", "plif", "plif undecayed"]
RESETS: list[dict[str, Any]] = [{}, {"v_threshold": 0.7, "v_reset": -0.3}, {"v_reset": None}]
SURROGATES = [Sigmoid(), ATan(), Triangle()]
GRIDS = ["endpoint", "midtread", "twos_complement", "midrise"]
PATHS = FAST

Run = Callable[..., tuple[Tensor, list[Tensor]]]


def membrane(
    placement: Any, grid: Any = "midtread", ste: Any = "clipped", bits: int = 3, channels: int | None = None
) -> MembraneQuantizer:
    """A membrane with one range in all, or one a channel."""
    if channels is None:
        return MembraneQuantizer(Uniform(bits, grid=grid, range=(-1.25, 1.25), ste=ste), placement)
    options = {"granularity": "channel", "channels": channels, "channel_axis": 1, "refresh": 0}
    quantizer = Uniform(bits, grid=grid, range="minmax", ste=ste, **options)
    quantizer.calibrate(torch.linspace(0.8, 2.0, channels).expand(2, channels))
    return MembraneQuantizer(quantizer, placement)


def assert_same(neuron: Neuron, path: Any, x: Tensor, run: Run, assert_close: Any, **call: Any) -> Tensor:
    """The path's spikes equal the reference's and its gradients agree; returns the spikes."""
    neuron.backend = "reference"
    expected, gradients = run(neuron, x, **call)
    # a learned tau gathers terms of both signs: float32 rounding is relative to their size, not to the sum's
    scale = float(x.abs().sum()) * 1e-2
    neuron.backend = path
    spikes, got = run(neuron, x, **call)
    assert torch.equal(spikes, expected), neuron
    assert spikes.dtype == expected.dtype
    assert_close(got[0], gradients[0], note=neuron)
    for a, b in zip(got[1:], gradients[1:], strict=True):
        assert_close(a, b, scale=scale, note=neuron)
    return spikes


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_option(kind: str, path: str, make_neuron: Any, currents: Any, run: Run, assert_close: Any) -> None:
    x = currents(5, 2, 3, 3, 3)
    for reset, detach, surrogate in product(RESETS, (False, True), SURROGATES):
        neuron = make_neuron(kind, detach_reset=detach, surrogate=surrogate, **reset)
        spikes = assert_same(neuron, path, x, run, assert_close)
        assert 0.02 < spikes.mean() < 0.95


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_membranes_are_the_reference_s_to_the_last_bit(kind: str, path: Any, make_neuron: Any, currents: Any) -> None:
    # a threshold put at a membrane and just above it tells a difference of one bit, which spikes seldom show
    x = currents(3, 1, 40)
    quiet = make_neuron(kind, v_threshold=1e6, v_reset=-0.3)
    *before, membranes = quiet.states(x)[0][:, 0].detach()
    # those that have not been as high before, nor at rest
    rising = torch.nonzero(membranes > torch.stack(before).amax(0).clamp(min=-0.3)).flatten().tolist()
    assert len(rising) >= 8
    for place in rising:
        at, above = membranes[place].item(), torch.nextafter(membranes[place], torch.tensor(torch.inf)).item()
        for threshold, expected in ((at, 1.0), (above, 0.0)):
            neuron = make_neuron(kind, v_threshold=threshold, v_reset=-0.3, backend=path)
            with torch.no_grad():
                assert neuron(x[:, :, place : place + 1])[-1].item() == expected, (place, threshold)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_membrane_quantizer(
    kind: str, path: str, make_neuron: Any, currents: Any, run: Run, assert_close: Any
) -> None:
    x = currents(4, 2, 3, 5)
    places = list(product(("pre_fire", "post_reset"), GRIDS, ("clipped", "plain"), (None, 3)))
    for i, (placement, grid, ste, channels) in enumerate(places):
        reset = RESETS[i % 3]
        neuron = make_neuron(kind, detach_reset=i % 4 == 1, surrogate=SURROGATES[i % 3], **reset)
        neuron.membrane = membrane(placement, grid, ste, 2 + i % 2, channels)
        assert_same(neuron, path, x, run, assert_close)


SHAPES: list[tuple[Sequence[int], bool]] = [
    ((1, 1, 1), False),
    ((4, 6), False),
    ((7, 3, 37), False),
    ((300, 1, 5), False),
    ((300, 1, 3, 5, 2), True),
    ((1, 1, 3, 5, 7), True),
    ((3, 2, 17, 1), False),
    ((2, 1, 20001), False),  # more than one task an image
    ((4, 1, 3, 33, 35), False),  # a plane of one block and a bit
    ((4, 1, 3, 33, 35), True),
    ((4, 2, 24, 9, 31), True),
    ((3, 1, 1500, 2, 1), True),  # more channels than a block
    ((3, 2, 4, 2, 3, 5), False),
    ((2, 2, 1, 4, 4), True),
    ((2, 2, 5, 1, 1), True),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("shape", "channels_last"), SHAPES)
def test_every_shape_and_memory_order(
    shape: Sequence[int], channels_last: bool, path: str, currents: Any, run: Run, assert_close: Any
) -> None:
    x = currents(*shape, channels_last=channels_last)
    if path == "triton":
        # gradients of so many steps, and a few tiles, which an interpreter takes one by one
        x = x[:MOST_STEPS, ..., :2000]
    neuron = ParametricLIF(1.7, detach_reset=True)
    spikes = assert_same(neuron, path, x, run, assert_close)
    # a dimension of size 1 leaves the order of memory undefined
    if path != "torch" and channels_last and min(shape) > 1:
        assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    if len(shape) > 2:
        neuron.membrane = membrane("post_reset", channels=x.shape[2])
        assert_same(neuron, path, x, run, assert_close)


@pytest.mark.parametrize("path", PATHS)
def test_inputs_that_are_not_dense(path: str, currents: Any, run: Run, assert_close: Any) -> None:
    neuron = LIF(3.0)
    whole = currents(6, 4, 3, 5, 7)
    for view in (
        whole[::2],
        whole[:, 1:3],
        whole.transpose(0, 1),
        whole[..., ::2],
        whole[:1].expand(5, -1, -1, -1, -1),
        whole.permute(0, 1, 3, 4, 2),
    ):
        neuron.backend = "reference"
        expected = neuron(view)
        neuron.backend = path  # type: ignore[assignment]
        assert torch.equal(neuron(view), expected)
        assert_same(neuron, path, view, run, assert_close)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_upstream_gradients_of_any_layout(path: Any, channels_last: bool, currents: Any, assert_close: Any) -> None:
    x = currents(3, 2, 4, 5, 6, channels_last=channels_last)
    weight = currents(3, 2, 4, 5, 6, seed=1)
    other = weight.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2))
    for reduce in (
        lambda s: s.sum(),  # an expanded gradient, stride 0
        lambda s: (s * weight).sum(),
        lambda s: (s * other).sum(),
        lambda s: s[1:].transpose(0, 1).mean((-2, -1)).square().sum(),
    ):
        gradients = []
        for backend in ("reference", path):
            leaf = x.clone().requires_grad_()
            reduce(LIF(3.0, backend=backend)(leaf)).backward()
            gradients.append(leaf.grad)
        assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("kind", KINDS)
def test_float64(kind: str, make_neuron: Any, currents: Any, run: Run, assert_close: Any) -> None:
    x = currents(6, 3, 4, 5, dtype=torch.float64)
    for i, reset in enumerate(RESETS):
        neuron = make_neuron(kind, surrogate=SURROGATES[i], **reset).double()
        close = partial(assert_close, tolerance=1e-12)
        spikes = assert_same(neuron, "torch", x, run, close)
        assert spikes.dtype == torch.float64
        neuron.membrane = membrane("post_reset", GRIDS[i], channels=4, bits=4)
        assert_same(neuron, "torch", x, run, close)
        neuron.backend = "auto"
        assert torch.equal(neuron(x), run(neuron, x)[0])


def test_a_float64_state_is_quantized_as_the_quantizer_itself_does(currents: Any) -> None:
    # float32 arithmetic inside, whatever the dtype: at T = 1 the stored state plays no part, at T = 2 it does
    for seed in range(40):
        x = currents(5, 8, 3, 11, seed=seed, dtype=torch.float64)
        neuron = LIF(3.0, v_threshold=0.7, backend="reference")
        neuron.membrane = membrane("post_reset", "endpoint", channels=3)
        expected = neuron(x)
        neuron.backend = "torch"
        assert torch.equal(neuron(x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_other_dtypes_are_worked_on_in_float32(dtype: torch.dtype, currents: Any) -> None:
    x = (currents(4, 3, 5) * 2).to(dtype)
    spikes = LIF()(x)
    assert spikes.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert torch.equal(spikes.float(), LIF(backend="reference")(x.float()))


def test_under_autocast_the_fast_path_runs_and_spikes_stay_float32(currents: Any) -> None:
    neuron, x = LIF(), currents(4, 3, 5).bfloat16()
    neuron.counting = True
    with torch.autocast("cpu", torch.bfloat16):
        spikes = neuron(x)
    assert spikes.dtype == torch.float32
    if native.library() is not None:
        assert neuron.spike_counts is not None
        assert torch.equal(neuron.spike_counts.float(), spikes.sum(0))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("shape", "channels_last"), [((7,), False), ((3, 4), False), ((2, 5, 3, 4), False), ((2, 5, 3, 4), True)]
)
def test_repeat_equals_expanding_by_hand(
    shape: Sequence[int], channels_last: bool, path: Any, currents: Any, run: Run, assert_close: Any
) -> None:
    x = currents(1, *shape, channels_last=channels_last)[0] if channels_last else currents(*shape)
    per_channel = membrane("post_reset", channels=shape[1]) if len(shape) > 1 else None
    for quantizer in (None, membrane("pre_fire"), per_channel):
        neuron = ParametricLIF(1.7)
        neuron.membrane = quantizer
        assert_same(neuron, path, x, run, assert_close, repeat=6)
        neuron.backend = "reference"
        leaf = x.clone().requires_grad_()
        expanded = torch.stack([leaf] * 6)
        expected = neuron(expanded)
        upstream = torch.arange(expected.numel(), dtype=torch.float64).cos().view(expected.shape).float()
        gradients = torch.autograd.grad(expected, [leaf, neuron.w], upstream)
        neuron.backend = path
        spikes, got = run(neuron, x, repeat=6)
        assert torch.equal(spikes, expected)
        for a, b in zip(got, gradients, strict=True):
            assert_close(a, b, scale=float(b.abs().max()) + float(x.abs().sum()) * 1e-2)


def test_a_layer_starts_at_rest_in_every_call(currents: Any) -> None:
    x = currents(4, 2, 6)
    for backend in ("reference", "torch", "auto"):
        neuron = LIF(backend=backend)
        assert torch.equal(neuron(x), neuron(x))


@pytest.mark.parametrize("path", PATHS)
def test_no_second_derivative_is_an_error(path: Any, currents: Any) -> None:
    x = currents(3, 2, 4).requires_grad_()
    spikes = LIF(backend=path)(x)
    (gradient,) = torch.autograd.grad((spikes * x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_equals_the_reference_there(
    kind: str, make_neuron: Any, currents: Any, run: Run, assert_close: Any
) -> None:
    x = currents(5, 3, 4, 6, 6).cuda()
    for quantizer in (None, membrane("pre_fire", channels=4), membrane("post_reset")):
        neuron = make_neuron(kind).cuda()
        neuron.membrane = None if quantizer is None else quantizer.cuda()
        assert_same(neuron, "torch", x, run, assert_close)


surrogates = st.one_of(
    st.builds(Sigmoid, st.floats(0.5, 5.0)),
    st.builds(ATan, st.floats(0.5, 3.0)),
    st.builds(Triangle, st.floats(0.3, 1.5)),
)
resets = st.one_of(
    st.none(),
    st.fixed_dictionaries({"v_threshold": st.floats(0.1, 2.0), "v_reset": st.floats(-2.0, 0.05)}),
    st.fixed_dictionaries({"v_threshold": st.floats(0.1, 2.0), "v_reset": st.none()}),
)


@st.composite
def neurons(draw: st.DrawFn) -> Neuron:
    options = {"detach_reset": draw(st.booleans()), "surrogate": draw(surrogates), **(draw(resets) or {})}
    kind = draw(st.sampled_from(("if", "lif", "plif")))
    if kind == "if":
        return IF(**options)
    options["decay_input"] = draw(st.booleans())
    tau = draw(st.floats(1.05, 20.0))
    return LIF(tau, **options) if kind == "lif" else ParametricLIF(tau, **options)


@st.composite
def membranes(draw: st.DrawFn, channels: int) -> MembraneQuantizer | None:
    if draw(st.booleans()):
        return None
    placement, grid = draw(st.sampled_from(("pre_fire", "post_reset"))), draw(st.sampled_from(GRIDS))
    ste, bits = draw(st.sampled_from(("clipped", "plain"))), draw(st.integers(2, 8))
    return membrane(placement, grid, ste, bits, channels if draw(st.booleans()) else None)


@dataclass(frozen=True)
class Case:
    neuron: Neuron
    shape: tuple[int, ...]
    seed: int
    channels_last: bool = False
    membrane: MembraneQuantizer | None = None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    space = draw(st.lists(st.integers(1, 6), max_size=3))
    channels = draw(st.integers(1, 6))
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 3)), channels, *space)
    last = len(space) == 2 and draw(st.booleans())
    return Case(draw(neurons()), shape, draw(st.integers(0, 1 << 30)), last, draw(membranes(channels)))


@settings(max_examples=80)
@given(case=cases())
# one neuron far above its threshold: nothing hides an error of its slope
@example(case=Case(IF(surrogate=Sigmoid(3.0)), (1, 1, 1), 1387))
def test_any_neuron_any_shape(case: Case, currents: Any, run: Run, assert_close: Any) -> None:
    x = currents(*case.shape, seed=case.seed, channels_last=case.channels_last)
    case.neuron.membrane = case.membrane
    for path in FAST_NAMES:
        assert_same(case.neuron, path, x, run, assert_close)
