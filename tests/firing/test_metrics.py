"""Metrics of a loop: equal to the measures of all spikes at once, however they were split; also over processes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from isofire.errors import DataError, ModelError, SpecError
from isofire.firing import (
    MEASURES,
    Comparison,
    FiringRecorder,
    SpikeCounts,
    dead_share,
    emd,
    mean_firing_rate,
    paired_mae,
)
from isofire.firing.metrics import (
    DeadShare,
    MeanFiringRate,
    OneNetworkMetric,
    PairedDrift,
    RankCorrelation,
    RateEMD,
    metric_of,
)
from isofire.neurons import LIF, PerStep, Repeat

SCRIPT = """
import json, sys, torch
import torch.distributed as dist
from torchmetrics import MetricCollection
from isofire.firing.metrics import DeadShare, MeanFiringRate, PairedDrift, RateEMD

dist.init_process_group("gloo")
rank = dist.get_rank()
data = torch.load(sys.argv[1], weights_only=True)
metrics = {"mfr": MeanFiringRate(), "dead": DeadShare(), "emd": RateEMD(), "paired": PairedDrift()}
# MetricCollections share the states of metrics that count alike
metrics = {"one": MetricCollection({k: metrics[k] for k in ("mfr", "dead")}), "emd": metrics["emd"],
           "paired": metrics["paired"]}
# the second process gets three batches, the first two; PairedDrift's are all in the first
for i, (a, b) in enumerate(zip(data["a"].split(4, 1), data["b"].split(4, 1))):
    if rank == (0 if i < 2 else 1):
        metrics["one"].update(b)
        metrics["emd"].update(a, b)
    if rank == 0:
        metrics["paired"].update(a, b)
found = []
for _ in range(2):
    values = {name: metric.compute() for name, metric in metrics.items()}
    found.append({name: float(value) for name, value in {**values.pop("one"), **values}.items()})
# what was synchronised is taken back: each process goes on with its own, and reset forgets all
own = int(metrics["paired"].steps.sum())
found.append({"own steps": own})
for metric in metrics.values():
    metric.reset()
if rank == 1:
    metrics["emd"].update(data["a"], data["a"])
found.append({"emd": float(metrics["emd"].compute())})
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
    distances, neurons = zip(*((emd(rates(a[k]), rates(b[k])), rates(a[k]).numel()) for k in "xy"), strict=True)
    assert float(drift.compute()) == pytest.approx(np.average(distances, weights=neurons))
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
        with pytest.raises(SpecError, match="of one measure and setting"):
            first.merge(second)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="of one measure and setting"):
        RateEMD().merge_state({"baseline": torch.zeros(3)})
    for cut in (-1, "x", None, True):
        with pytest.raises(SpecError, match=f"cut must be a rate >= 0, got {cut!r}"):
            DeadShare(cut)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"spikes must be \[T, N"):
        MeanFiringRate().update(torch.ones(3, 2))
    with pytest.raises(DataError, match="whole numbers"):
        MeanFiringRate().update(torch.full((1, 1, 3), 0.5))
    with pytest.raises(ModelError, match=r"same neurons, steps and images.*6 neurons, T = 4, 20 images.*9 neurons"):
        RateEMD().update(spikes(0), spikes(0, (3, 3)))
    metric = MeanFiringRate()
    metric.update(spikes(0))
    with pytest.raises(ModelError, match="there were 6 with T = 4, now there are 9 with T = 4; reset the metric"):
        metric.update(spikes(0, (9,)))
    with pytest.raises(ModelError, match="there were 6 with T = 4, now there are 'x' of 6 with T = 4"):
        metric.update({"x": spikes(0)})
    metric.reset()
    metric.update(spikes(0, (9,)))
    for nothing in ({}, [1, 0]):
        with pytest.raises(DataError, match="spikes must be a tensor"):
            MeanFiringRate().update(nothing)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="a measure of 1 network"):
        metric_of("mfr").__class__("emd")
    with pytest.raises(SpecError, match="did you mean 'emd'"):
        metric_of("emt")


def test_both_networks_need_the_same_steps_and_images_not_only_as_many_of_both() -> None:
    with pytest.raises(
        ModelError, match=r"2 neurons, T = 4, 3 images; the quantized network's 2 neurons, T = 6, 2 images"
    ):
        RateEMD().update(torch.ones(4, 3, 2), torch.ones(6, 2, 2))
    with pytest.raises(ModelError, match=r"'a': 2 neurons, T = 4, 3 images; .* 'b': 2 neurons, T = 4, 3 images"):
        RateEMD().update({"a": torch.ones(4, 3, 2)}, {"b": torch.ones(4, 3, 2)})


def test_t_stays_over_updates_and_merges() -> None:
    metric, other = MeanFiringRate(), MeanFiringRate()
    metric.update(torch.ones(4, 3, 2))
    other.update(torch.zeros(2, 6, 2))
    with pytest.raises(ModelError, match="there were 2 with T = 4, now there are 2 with T = 2; reset the metric for"):
        metric.update(torch.zeros(2, 6, 2))
    with pytest.raises(ModelError, match="now there are 2 with T = 2"):
        metric.merge(other)
    assert float(metric.compute()) == 1
    metric.reset()
    metric.update(torch.zeros(2, 6, 2))
    assert float(metric.compute()) == 0


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), float("inf")])
def test_values_that_add_up_to_whole_numbers_are_no_spikes_either(value: float) -> None:
    values = torch.tensor([[[value]], [[3 - value]]])
    cure = "let each sign be neurons of its own" if value == -1 else "look for "
    with pytest.raises(DataError, match=rf"whole numbers >= 0, got {value:g}; .*{cure}.*\(quantized\)"):
        MeanFiringRate().update(values)
    with pytest.raises(DataError, match=r"\(layer 'x' of baseline\)"):
        RateEMD().update({"x": values}, {"x": values})


def test_straight_through_spikes_in_the_rounding_order_are_told_their_cure() -> None:
    v = torch.linspace(0, 2, 1000).view(1, 10, 100)
    soft, hard = torch.sigmoid(4 * (v - 1)), (v >= 1).float()
    assert bool((hard + soft - soft).ne(hard).any())
    with pytest.raises(
        DataError, match=r"got (1\.0000\d+|0\.9999\d+|\d\.\d+e-\d+); write .*hard \+ \(soft - soft\.detach"
    ):
        MeanFiringRate().update(hard + soft - soft.detach())
    metric = MeanFiringRate()
    metric.update(hard + (soft - soft.detach()))
    assert float(metric.compute()) == 0.5


def test_a_list_of_metrics_of_any_columns_makes_a_collection() -> None:
    a, b = spikes(0), spikes(1)
    cuts = (0.0, 0.01, 0.05)
    columns_ = ("emd_max", "emd_pooled", "spearman", "dead_00")
    made = MetricCollection([*map(DeadShare, cuts), *map(metric_of, columns_)])
    made.update(baseline=a, quantized=b)
    found = {name: float(value) for name, value in made.compute().items()}
    shares = {f"DeadShare{end}": dead_share(rates(b), cut) for end, cut in zip(("_0", "_0_01", ""), cuts, strict=True)}
    distance = emd(rates(a), rates(b))
    expected = {**shares, "emd_max": distance, "emd_pooled": distance, "dead_00": shares["DeadShare_0"]}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(found) == {*expected, "spearman"}


def test_repr_says_how_to_make_one_and_copies_keep_their_kind() -> None:
    made = [DeadShare(0.0), DeadShare(), RateEMD(), metric_of("emd_max"), metric_of("dead_00")]
    told = ["DeadShare(cut=0)", "DeadShare(cut=0.05)", "RateEMD()", "TwoNetworksMetric('emd_max')"]
    assert list(map(repr, made)) == [*told, "OneNetworkMetric('dead_00')"]
    for metric in made:
        batch = (spikes(0),) if isinstance(metric, OneNetworkMetric) else (spikes(0), spikes(1))
        metric.update(*batch)
        for copied in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
            assert (type(copied), repr(copied)) == (type(metric), repr(metric))
            assert float(copied.merge(metric).compute()) == float(metric.compute())


def test_an_unknown_column_lists_those_that_are_accepted() -> None:
    with pytest.raises(SpecError, match=r"'emd_mx'; did you mean 'emd_max'\? known: .*emd_pooled.*spearman"):
        metric_of("emd_mx")


def test_every_measure_is_a_metric(ks: object) -> None:
    before, after = recording(0), recording(1)
    overall = Comparison.of(before, after, accuracy=1, accuracy_fp=1, agreement=1).overall
    for measure in MEASURES.values():
        for column in measure.overall:
            metric = metric_of(column)
            metric.update(after) if measure.networks == 1 else metric.update(before, after)
            assert float(metric.compute()) == pytest.approx(overall[column]), column
    assert [metric_of(name).higher_is_better for name in ("emd", "spearman", "mfr")] == [False, True, None]
    rank = RankCorrelation()
    rank.update(before, after)
    assert float(rank.compute()) == pytest.approx(overall["spearman"])
    with pytest.raises(ModelError, match="same neurons, under the same names, and see the same images"):
        rank.update(before, SpikeCounts(after.counts, after.images_per_block, 8))


def recording(seed: int) -> SpikeCounts:
    """Two layers, 5 images of T = 4."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (5, 7), "y": (5, 2, 2)}
    counts = {name: torch.randint(0, 4, shape, generator=generator).int() for name, shape in shapes.items()}
    return SpikeCounts(counts, torch.ones(5, dtype=torch.int64), 4)


def test_a_collection_shares_states_and_survives_reset() -> None:
    a, b = spikes(0), spikes(1)
    collection = MetricCollection([MeanFiringRate(), DeadShare(0.1), RateEMD(), PairedDrift()])
    for _ in range(2):
        for first, second in zip(a.split(6, 1), b.split(6, 1), strict=True):
            collection.update(baseline=first, quantized=second)
        found = collection.compute()
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {
                "MeanFiringRate": mean_firing_rate(rates(b)),
                "DeadShare_0_1": dead_share(rates(b), 0.1),
                "RateEMD": emd(rates(a), rates(b)),
                "PairedDrift": paired_mae(rates(a), rates(b)),
            }
        )
        # metrics of as many networks count once
        assert sorted(map(len, collection.compute_groups.values())) == [2, 2]
        collection.reset()
    with pytest.raises(DataError, match="counted nothing yet"):
        collection.compute()


def test_forward_gives_the_batch_and_adds_it_up_as_lightning_logs_it() -> None:
    a, b = spikes(0), spikes(1)
    metric = RateEMD()
    for first, second in zip(a.split(6, 1), b.split(6, 1), strict=True):
        assert float(metric(first, second)) == pytest.approx(emd(rates(first), rates(second)))
    assert float(metric.compute()) == pytest.approx(emd(rates(a), rates(b)))
    copied = copy.deepcopy(metric)
    copied.update(a, a)
    assert float(copied.compute()) != float(metric.compute())
    # as a child of a module it moves with it, and its counts are no part of the weights
    module = torch.nn.Module()
    module.drift = metric
    assert module.state_dict() == {}
    assert float(pickle.loads(pickle.dumps(metric)).compute()) == float(metric.compute())


def test_a_recorder_feeds_them() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(Repeat(3), PerStep(torch.nn.Linear(5, 8)), LIF(), PerStep(torch.nn.Linear(8, 8)), LIF())
    other = copy.deepcopy(model)
    other[1][0].weight.data *= 1.5
    images, drift = 3 * torch.rand(12, 5), metric_of("emd_max")
    for batch in images.split(5):
        with FiringRecorder(model) as before:
            model(batch)
        with FiringRecorder(other) as after:
            other(batch)
        drift.update(before.counts, after.counts)
    with FiringRecorder(model) as before, FiringRecorder(other) as after:
        model(images)
        other(images)
    distances = [emd(before.counts, after.counts, layer) for layer in before.counts.layers]
    assert len(distances) == 2
    assert float(drift.compute()) == pytest.approx(max(distances))
    assert max(distances) > 0


def test_without_torchmetrics_the_cure_is_told() -> None:
    script = "import sys; sys.modules['torchmetrics'] = None\nimport isofire.firing\nimport isofire.firing.metrics"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'isofire[metrics]'" in done.stderr.splitlines()[-1]


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
        *found, own, after = json.loads((tmp_path / f"out.{rank}").read_text())
        assert len(found) == 2
        for values in found:
            assert values == pytest.approx(expected)
        assert own == {"own steps": 80 if rank == 0 else 0}
        assert after == {"emd": 0.0}


def test_spikes_that_are_not_given_by_name_are_told() -> None:
    """A collection hands positional spikes on to metrics of one network and of two alike."""
    spikes = (torch.rand(4, 3, 5) < 0.3).float()
    for given, named in (
        ((spikes,), {}),
        ((spikes, spikes), {}),
        ((), {"baseline": spikes}),
        ((), {"quantized": spikes}),
    ):
        collection = MetricCollection([MeanFiringRate(), RateEMD()])
        with pytest.raises(SpecError, match=r"update\(baseline=\.\.\., quantized=\.\.\.\)"):
            collection.update(*given, **named)
