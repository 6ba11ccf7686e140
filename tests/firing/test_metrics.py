"""Metrics of a loop: equal to the measures of all spikes at once, however they were split; also over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from isofire.errors import DataError, ModelError, SpecError
from isofire.firing import dead_share, emd, mean_firing_rate, paired_mae
from isofire.firing.metrics import DeadShare, MeanFiringRate, PairedDrift, RateEMD

SCRIPT = """
import json, sys, torch
import torch.distributed as dist
from isofire.firing.metrics import DeadShare, MeanFiringRate, PairedDrift, RateEMD

dist.init_process_group("gloo")
rank = dist.get_rank()
data = torch.load(sys.argv[1], weights_only=True)
metrics = {"mfr": MeanFiringRate(), "dead": DeadShare(), "emd": RateEMD(), "paired": PairedDrift()}
# the second process gets three batches, the first two; PairedDrift's are all in the first
for i, (a, b) in enumerate(zip(data["a"].split(4, 1), data["b"].split(4, 1))):
    if rank == (0 if i < 2 else 1):
        metrics["mfr"].update(b)
        metrics["dead"].update(b)
        metrics["emd"].update(a, b)
    if rank == 0:
        metrics["paired"].update(a, b)
found = [{name: float(metric.compute()) for name, metric in metrics.items()} for _ in range(2)]
with open(f"{sys.argv[2]}.{rank}", "w") as stream:
    json.dump(found, stream)
dist.destroy_process_group()
"""


def spikes(seed: int, shape: tuple[int, ...] = (3, 2), images: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rates = torch.rand(shape, generator=generator) ** 3
    return (torch.rand((4, images, *shape), generator=generator) < rates).float()


def rates(x: Tensor) -> Tensor:
    return x.double().mean((0, 1)).flatten()


def test_one_layer_in_batches() -> None:
    a, b = spikes(0), spikes(1)
    metrics = MeanFiringRate(), DeadShare(0.1), RateEMD(), PairedDrift()
    for first, second in zip(a.split(6, 1), b.split(6, 1), strict=True):
        metrics[0].update(second)
        metrics[1].update(second)
        metrics[2].update(first, second)
        metrics[3].update(first, second)
    expected = (
        mean_firing_rate(rates(b)),
        dead_share(rates(b), 0.1),
        emd(rates(a), rates(b)),
        paired_mae(rates(a), rates(b)),
    )
    assert [float(metric.compute()) for metric in metrics] == pytest.approx(expected)
    metrics[2].reset()
    with pytest.raises(DataError, match="RateEMD has counted nothing yet"):
        metrics[2].compute()


def test_layers_are_combined_as_in_a_comparison() -> None:
    a, b = ({"x": spikes(s), "y": spikes(s + 10, (5,))} for s in (0, 1))
    drift, paired = RateEMD(), PairedDrift()
    drift.update(a, b)
    paired.update(a, b)
    assert float(drift.compute()) == pytest.approx(np.mean([emd(rates(a[k]), rates(b[k])) for k in "xy"]))
    both = [torch.cat([rates(x["x"]), rates(x["y"])]) for x in (a, b)]
    assert float(paired.compute()) == pytest.approx(paired_mae(*both))


def test_metrics_merge() -> None:
    a, b = spikes(0), spikes(1)
    whole, parts = RateEMD(), [RateEMD(), RateEMD()]
    whole.update(a, b)
    for part, first, second in zip(parts, a.split(7, 1), b.split(7, 1), strict=False):
        part.update(first, second)
    parts[1].update(a[:, 14:], b[:, 14:])
    assert float(parts[0].merge(parts[1]).compute()) == float(whole.compute())


def test_metrics_of_another_kind_or_cut_do_not_merge() -> None:
    for first, second in ((RateEMD(), PairedDrift()), (DeadShare(0.1), DeadShare(0.5))):
        with pytest.raises(SpecError, match="of one kind and setting"):
            first.merge(second)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="cut must be a rate >= 0, got -1"):
        DeadShare(-1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"spikes must be \[T, N"):
        MeanFiringRate().update(torch.ones(3, 2))
    with pytest.raises(DataError, match="whole numbers"):
        MeanFiringRate().update(torch.full((1, 1, 3), 0.5))
    with pytest.raises(ModelError, match="same shapes"):
        RateEMD().update(spikes(0), spikes(0, (3, 3)))
    metric = MeanFiringRate()
    metric.update(spikes(0))
    with pytest.raises(ModelError, match="must keep its 6 neurons, got 9"):
        metric.update(spikes(0, (9,)))


@pytest.mark.slow
def test_two_processes_compute_what_one_would(tmp_path: Path) -> None:
    a, b = spikes(0), spikes(1)
    torch.save({"a": a, "b": b}, tmp_path / "data.pt")
    (tmp_path / "run.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    torchrun += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*torchrun, str(tmp_path / "run.py"), str(tmp_path / "data.pt"), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=900, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {
        "mfr": mean_firing_rate(rates(b)), "dead": dead_share(rates(b)), "emd": emd(rates(a), rates(b)),
        "paired": paired_mae(rates(a), rates(b)),
    }  # fmt: skip
    for rank in (0, 1):
        for found in json.loads((tmp_path / f"out.{rank}").read_text()):
            assert found == pytest.approx(expected)
