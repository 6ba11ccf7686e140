"""Path selection, spike counts, and the input that is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, ParametricLIF, native

needs_kernels = pytest.mark.skipif(native.library() is None, reason="kernels not built")


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
class TestBadInput:
    @pytest.mark.parametrize("shape", [(), (3,), (0, 2), (0, 2, 3, 4, 4)])
    def test_no_steps(self, backend: Any, shape: tuple[int, ...]) -> None:
        with pytest.raises(ModelError, match=r"IF needs inputs \[T, N, ...\] with T >= 1 steps, got shape"):
            IF(backend=backend)(torch.zeros(shape))

    @pytest.mark.parametrize("repeat", [0, -2])
    def test_no_repeats(self, backend: Any, repeat: int) -> None:
        with pytest.raises(ModelError, match=f"got shape \\(2, 3\\) with repeat={repeat}"):
            IF(backend=backend)(torch.zeros(2, 3), repeat=repeat)

    def test_no_images(self, backend: Any) -> None:
        assert LIF(backend=backend)(torch.zeros(4, 0, 3, 2, 2)).shape == (4, 0, 3, 2, 2)


def test_unknown_backend() -> None:
    with pytest.raises(SpecError, match="backend must be one of auto, native, triton, torch, reference, got 'cuda'"):
        LIF(backend="cuda")  # type: ignore[arg-type]


def test_native_refuses_what_it_cannot_run() -> None:
    with pytest.raises(ModelError, match=r"needs the compiled kernels and float32 on a CPU, got torch.float64 on cpu"):
        LIF(backend="native")(torch.zeros(2, 3, dtype=torch.float64))


@needs_kernels
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("repeat", [None, 255])
def test_spike_counts(repeat: int | None, channels_last: bool, currents: Any) -> None:
    x = currents(6, 2, 3, 5, 7, channels_last=channels_last)
    x = x if repeat is None else x[0]
    for norm in (None, nn.BatchNorm2d(3)):
        neuron = IF()
        assert neuron(x, norm=norm, repeat=repeat) is not None
        assert neuron.spike_counts is None
        neuron.counting = True
        spikes = neuron(x, norm=norm, repeat=repeat)
        counts = neuron.spike_counts
        assert counts is not None
        assert counts.dtype == torch.uint8
        assert torch.equal(counts.long(), spikes.sum(0).long())
        assert counts.max() > (2 if repeat is None else 100)
    neuron.backend = "torch"
    neuron(x, repeat=repeat)
    assert neuron.spike_counts is None


@needs_kernels
def test_more_steps_than_a_byte_can_count() -> None:
    neuron = IF()
    neuron.counting = True
    assert neuron(torch.ones(1, 2), repeat=255).sum() == 510
    assert neuron.spike_counts is not None
    assert neuron.spike_counts.tolist() == [[255, 255]]
    assert neuron(torch.ones(1, 2), repeat=256).sum() == 512
    assert neuron.spike_counts is None


def test_a_neuron_holds_no_state_but_its_parameters() -> None:
    assert not LIF().state_dict()
    assert list(ParametricLIF().state_dict()) == ["w"]
    assert repr(LIF(3.0, v_reset=None)) == (
        "LIF(tau=3, decay_input=True, v_threshold=1, v_reset=None, surrogate=Sigmoid(alpha=4.0))"
    )
