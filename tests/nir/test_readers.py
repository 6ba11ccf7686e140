"""Graphs that isofire wrote, loaded by the readers of other libraries, which know nothing of its metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.neurons import IF, LIF, PerStep

nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
nirs: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)


def test_snntorch_runs_a_graph_with_quantized_weights(tmp_path: Path) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)
    from snntorch.import_nir import import_from_nir

    torch.manual_seed(0)
    neurons = (LIF(2.0, decay_input=False), LIF(4.0, decay_input=False, v_threshold=0.25))
    model = nn.Sequential(PerStep(nn.Linear(6, 12)), neurons[0], PerStep(nn.Linear(12, 4)), neurons[1])
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize", last_layer="quantize")
    quantized = isofire.quantize_(model, spec)
    frames = torch.randn(8, 16, 6) * 4
    path = nirs.write(tmp_path / "net.nir", quantized, frames[:, :2])
    other = import_from_nir(nir.read(path))
    state, steps = None, []
    with torch.no_grad():
        for frame in frames:
            spikes, state = other(frame, state)
            steps.append(spikes)
        expected = quantized(frames)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(torch.stack(steps), expected)


def test_sinabs_runs_a_graph_with_quantized_weights(tmp_path: Path) -> None:
    pytest.importorskip("sinabs", reason="sinabs is not installed", exc_type=ImportError)
    from sinabs.nir import from_nir

    torch.manual_seed(0)
    options: dict[str, Any] = {"v_reset": None, "several": True, "v_floor": -1.0}
    model = nn.Sequential(
        PerStep(nn.Conv2d(2, 4, 3, padding=1)), IF(**options),
        PerStep(nirs.SumPool2d((2, 2), (2, 2), (0, 0)), nn.Flatten(), nn.Linear(64, 5)), IF(**options),
    )  # fmt: skip
    # steps of 1/16 and whole inputs are exact, whichever way the floor is written
    weights = {"method": "uniform", "bits": 6, "grid": "midtread", "range": [-31 / 16, 31 / 16]}
    spec = isofire.QuantSpec(weights=weights, first_layer="quantize", last_layer="quantize")  # type: ignore[arg-type]
    quantized = isofire.quantize_(model, spec)
    with torch.no_grad():
        for layer in (m for m in quantized.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
            assert layer.bias is not None
            layer.bias.copy_((layer.bias * 16).round() / 16)
    frames = torch.randint(0, 3, (7, 6, 2, 8, 8)).float()
    path = nirs.write(tmp_path / "net.nir", quantized, frames[:, :2])
    other = from_nir(nir.read(path), batch_size=6)
    with torch.no_grad():
        expected = quantized(frames)
        # Sinabs' squeezed layers see [N * T, ...]
        spikes = other(frames.transpose(0, 1).flatten(0, 1))
        spikes = spikes[0] if isinstance(spikes, tuple) else spikes
    assert expected.max() > 1
    assert torch.equal(spikes.unflatten(0, (6, 7)).transpose(0, 1), expected)
