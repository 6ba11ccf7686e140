"""A layer by tables gives the spikes of its definition, bit for bit, whatever its shape, weights and inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.lookup.layers import by_definition, by_tables, fast_layer, fast_neuron
from torch import Tensor, nn

from isofire.lookup import native
from isofire.neurons import IF, LIF, MembraneQuantizer, Neuron, ParametricLIF
from isofire.quantizers import Levels, Table, Uniform

pytestmark = pytest.mark.skipif(native.library() is None, reason="the look-ups were not compiled")
ISAS = native.known()


def _codes(shape: tuple[int, ...], bits: int, how: str) -> Tensor:
    top = 2 ** (bits - 1)
    if how == "highest":
        return torch.full(shape, float(max(1, top - 1)))
    if how == "lowest":
        return torch.full(shape, float(-top))
    if how == "odd":
        return 2.0 * torch.randint(-top, top, shape) + 1.0
    codes = torch.randint(-top, max(1, top - 1) + 1, shape).float()
    return codes if how == "any" else codes * (torch.rand(shape) < 0.2)


def _counts(shape: tuple[int, ...], most: int, how: str) -> Tensor:
    if how == "zeros":
        return torch.zeros(shape)
    if how == "full":
        return torch.full(shape, float(most))
    return torch.randint(0, most + 1, shape).float()


def _neuron(kind: str, reset: float | None) -> Neuron:
    if kind == "if":
        return IF(v_reset=reset)
    if kind == "plif":
        return ParametricLIF(init_tau=2.7, v_reset=reset)
    return LIF(tau=3.0 if kind == "lif3" else 2.0, v_reset=reset, decay_input=kind != "undecayed")


def _membrane(kind: str, channels: int) -> MembraneQuantizer | None:
    if kind == "none":
        return None
    placement: Any = "pre_fire" if kind.endswith("pre") else "post_reset"
    if kind.startswith("uniform"):
        return MembraneQuantizer(Uniform(3, range=(-1.0, 1.5), refresh=0), placement)
    levels = Levels([0, 1, 2], granularity="channel", channels=channels, channel_axis=1)
    levels.set_table(Table(torch.randn(channels, 2).sort(1).values, torch.randn(channels, 3).sort(1).values))
    return MembraneQuantizer(levels, placement)


@st.composite
def _cases(draw: st.DrawFn) -> dict[str, Any]:
    kernel = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    dilation = draw(st.integers(1, 2))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    return {
        "conv": {
            "in_channels": groups * draw(st.integers(1, 5)),
            "out_channels": groups * draw(st.integers(1, 3)),
            "kernel_size": kernel,
            "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "padding": (draw(st.integers(0, 3)), draw(st.integers(0, 3))),
            "dilation": dilation,
            "groups": groups,
            "bias": draw(st.booleans()),
        },
        "size": tuple((k - 1) * dilation + draw(st.integers(1, 4)) for k in kernel),
        "steps": draw(st.integers(1, 16)),
        "images": draw(st.integers(1, 40)),
        "bits": draw(st.integers(1, 8)),
        "weights": draw(st.sampled_from(("any", "highest", "lowest", "odd", "sparse"))),
        "most": draw(st.integers(1, 3)),
        "inputs": draw(st.sampled_from(("any", "any", "zeros", "full"))),
        "neuron": draw(st.sampled_from(("if", "lif", "lif3", "undecayed", "plif"))),
        "reset": draw(st.sampled_from((0.0, -0.25, None))),
        "membrane": draw(st.sampled_from(("none", "none", "uniform_pre", "uniform_post", "table_pre", "table_post"))),
        "norm": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def _check(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    conv = fast_layer(nn.Conv2d(**case["conv"]))
    channels = case["conv"]["out_channels"]
    norm = nn.BatchNorm2d(channels).eval() if case["norm"] else None
    with torch.no_grad():
        conv.weight.copy_(_codes(tuple(conv.weight.shape), case["bits"], case["weights"]) * 2.0**-4)
        if norm is not None:
            norm.weight.uniform_(-0.5, 1.0)
            norm.bias.uniform_(-0.5, 0.5)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 4.0)
        shape = (case["steps"], case["images"], case["conv"]["in_channels"], *case["size"])
        counts = _counts(shape, case["most"], case["inputs"])
        for isa in ISAS:
            neuron = fast_neuron(_neuron(case["neuron"], case["reset"]), isa)
            neuron.membrane = _membrane(case["membrane"], channels)
            spikes = by_tables(conv, norm, neuron, counts, case["most"])
            assert neuron.said == (f"tables, {isa}", "")
            assert torch.equal(spikes.plain(), by_definition(conv, norm, neuron, counts))


@settings(max_examples=120)
@given(_cases())
def test_the_spikes_of_a_convolution_are_those_of_its_definition(case: dict[str, Any]) -> None:
    _check(case)


def _large(**changed: Any) -> dict[str, Any]:
    return {
        "conv": {"in_channels": 70, "out_channels": 5, "kernel_size": 3, "padding": 1},
        "size": (5, 4), "steps": 5, "images": 33, "bits": 8, "weights": "odd", "most": 3, "inputs": "full",
        "neuron": "lif", "reset": 0.0, "membrane": "none", "norm": True, "seed": 0,
    } | changed  # fmt: skip


@pytest.mark.parametrize("weights", ["highest", "lowest", "odd"])
@pytest.mark.parametrize("bits", [4, 5, 8])
def test_sums_beyond_16_bits_are_right(bits: int, weights: str) -> None:
    """630 inputs of 3 spikes with codes up to 255: sums reach 481,950."""
    _check(_large(bits=bits, weights=weights))


def test_depthwise_convolutions() -> None:
    conv = {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 6}
    _check(_large(conv=conv, inputs="any", bits=4, weights="any"))


@settings(max_examples=30)
@given(
    inputs=st.integers(1, 70), outputs=st.integers(1, 9), images=st.integers(1, 40), steps=st.integers(1, 9),
    bits=st.integers(1, 8), seed=st.integers(0, 2**16),
)  # fmt: skip
@example(inputs=64, outputs=10, images=33, steps=4, bits=4, seed=0)
def test_linear_layers_of_features_and_of_flat_maps(
    inputs: int, outputs: int, images: int, steps: int, bits: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = fast_layer(nn.Linear(inputs, outputs))
    with torch.no_grad():
        layer.weight.copy_(_codes((outputs, inputs), bits, "any") * 2.0**-3)
        counts = torch.randint(0, 3, (steps, images, inputs, 1, 1)).float()
        for isa in ISAS:
            neuron = fast_neuron(LIF(), isa)
            spikes = by_tables(layer, None, neuron, counts, 2)
            assert neuron.said == (f"tables, {isa}", "")
            assert torch.equal(spikes.plain(), by_definition(layer, None, neuron, counts))
