"""A network and its quantized form under NeuroBench's harness: what both measure is the same."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import isofire
from isofire.neurons import LIF, PerStep, Repeat

benchmarks: Any = pytest.importorskip(
    "neurobench.benchmarks", reason="neurobench is not installed", exc_type=ImportError
)


def test_the_pages_example_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "neurobench" in block)
    torch.manual_seed(0)
    model = nn.Sequential(Repeat(4), PerStep(nn.Flatten(), nn.Linear(64, 10)), LIF(v_threshold=0.3))
    names: dict[str, Any] = {"model": model}
    exec(compile(code, "docs/adapters.md", "exec"), names)
    counts = isofire.firing.observe(model, isofire.data.load("digits", "test"), max_images=200)
    assert names["found"]["ClassificationAccuracy"] == pytest.approx(counts.accuracy)
    assert names["found"]["Footprint"] == 4 * 650


@pytest.mark.parametrize("frames", [False, True])
def test_accuracy_and_sparsity_are_those_that_isofire_counts(frames: bool) -> None:
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, ClassificationAccuracy, SynapticOperations
    from neurobench.processors.postprocessors import ChooseMaxCount

    from isofire.adapters.neurobench import BenchModel

    torch.manual_seed(0)
    model = nn.Sequential(
        PerStep(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), LIF(v_threshold=0.3), PerStep(nn.Flatten(), nn.Linear(144, 10))
    )
    images, labels = next(iter(isofire.data.load("digits", "test").batches(90)))
    steps = images.unsqueeze(0).repeat(4, 1, 1, 1, 1)
    with torch.no_grad():
        model(steps)
    if not frames:
        model = nn.Sequential(Repeat(4), *model)
    spec = isofire.QuantSpec(
        weights={"method": "lsq", "bits": 3}, membrane={"bits": 3, "range": [-1, 1]}, first_layer="quantize"
    )
    data = (steps, labels) if frames else (images, labels)
    quantized = isofire.quantize_(copy.deepcopy(model), spec, data)
    found = isofire.compare(model, quantized, data)
    loader = DataLoader(TensorDataset(steps.transpose(0, 1) if frames else images, labels), batch_size=30)
    metrics = [[Footprint, ConnectionSparsity], [ClassificationAccuracy, ActivationSparsity, SynapticOperations]]
    rates = (found.overall["mfr_fp"], found.overall["mfr"])
    accuracies = (found.accuracy_fp, found.accuracy)
    for network, accuracy, rate in zip((model, quantized), accuracies, rates, strict=True):
        bench = benchmarks.Benchmark(BenchModel(network, frames=frames), loader, [], [ChooseMaxCount()], metrics)
        with torch.no_grad():
            told = bench.run(quiet=True)
        assert told["ClassificationAccuracy"] == pytest.approx(accuracy)
        assert told["ActivationSparsity"] == pytest.approx(1 - rate, abs=1e-6)
        assert told["SynapticOperations"]["Effective_MACs"] + told["SynapticOperations"]["Effective_ACs"] > 0
    assert rates[0] != rates[1]
