"""`isofire cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from isofire.cli.named import ModelChoice, Network
from isofire.cli.options import DataChoice, Machine, Output
from isofire.cli.screen import Report
from isofire.cli.whole import WHOLE
from isofire.firing.compare import require_order
from isofire.firing.cost import CostComparison, measure_cost
from isofire.study import environment


def cost(
    model: Network = None,
    quantized: Path | None = None,
    /,
    *,
    network: ModelChoice | None = None,
    batch_size: Annotated[int, WHOLE] = 64,
    choice: DataChoice | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Count what an inference costs: synaptic operations, memory and an estimate of energy, layer by layer.

    With two networks, the second beside the first. Every image is followed operation by operation; a few hundred (--n)
    give p50 and p99 well enough.

    ```
    isofire cost fp.safetensors q.safetensors --data digits --n 500
    isofire cost --model nets:build --weights weights.safetensors --data nets:load
    isofire cost sew_resnet8-digits --data digits --n 100
    ```

    Parameters
    ----------
    quantized
        A second network to show beside the first, its quantized version.
    batch_size
        Images at once.
    """
    place = (machine or Machine()).claim()
    chosen, data = network or ModelChoice(), (choice or DataChoice()).load()
    about = {"environment": environment(place)}
    if quantized is None and not (chosen.model and chosen.weights and model):
        opened, _ = chosen.open(model)
        found = measure_cost(opened.to(place), data, batch_size=batch_size)
        return Report({**found.to_dict(), **about}, found.table())
    assert model is not None
    (first, _), (second, _) = chosen.open_pair("cost", model, quantized)
    require_order(first, second, chosen.names_of_pair(model, quantized))
    costs = [measure_cost(opened.to(place), data, batch_size=batch_size) for opened in (first, second)]
    both = CostComparison(baseline=costs[0], quantized=costs[1])
    return Report({**both.to_dict(), **about}, both.table())
