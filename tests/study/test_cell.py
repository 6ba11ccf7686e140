from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn

from isofire.errors import SpecError
from isofire.firing.cost import measure_cost
from isofire.neurons import Neuron
from isofire.quantization import is_converted, quantize_, reestimate_batch_norm, spec_of
from isofire.spec import QuantSpec
from isofire.study import CONTROLS, Splits, fresh_model, is_control, known_columns, name_of, run_cell
from isofire.training import Recipe, evaluate, train

QAT = Recipe(epochs=1, lr=0.02, batch_size=32, warmup_epochs=0.0)
WEIGHTS = QuantSpec(weights={"method": "uniform", "bits": 2, "range": (-1.0, 1.0), "granularity": "tensor"})
MEMBRANE = QuantSpec(membrane={"bits": 2, "placement": "pre_fire", "range": (0.0, 1.0), "signed": False})


def run(baseline: nn.Module, splits: Splits, spec: QuantSpec | None, mode: str = "ptq", **options):
    common = {"train_set": splits.train, "test_set": splits.test, "device": "cpu", "calibration_images": 64}
    return run_cell(baseline, spec, mode=mode, **(common | options))  # type: ignore[arg-type]


def rates_by_hand(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out.double().mean((0, 1))}))
        for name, module in model.named_modules()
        if isinstance(module, Neuron)
    ]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    return {name: rates.flatten() for name, rates in found.items()}


def same_weights(a: nn.Module, b: nn.Module, *, but: str | None = None) -> bool:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first if but is None or but not in key)


def without_time(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "seconds"}


def test_row_has_every_column_and_says_what_was_done(baseline, splits):
    cell = run(baseline, splits, WEIGHTS, seed=3, cost_images=5)
    row = cell.row
    # what rows of 0.1 have besides, and rows of more images
    others = {"emd_over_floor", "emd_bias", "reference", "within_noise", "forward"}
    assert set(row) == set(known_columns()) - others
    expected = {
        "model": "sew_resnet8 x0.25", "data": "digits", "target": "weights", "method": "uniform", "bits": 2,
        "range": "[-1, 1]", "granularity": "tensor", "placement": None, "mode": "ptq", "seed": 3, "n_images": 120,
        "T": 3, "epochs": 0, "calibration_images": 64, "spec": WEIGHTS.hash(),
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert row["seconds"] > 0
    costs = [measure_cost(model, splits.test, max_images=5) for model in (baseline, cell.model)]
    assert (row["synops_p99_fp"], row["synops_p99"]) == tuple(cost.synops.p99 for cost in costs)
    assert row["weight_kib"] * 8192 == costs[1].memory.weight_bits < costs[0].memory.weight_bits
    assert row["energy_uj"] == pytest.approx(costs[1].energy().total / 1e6)


def test_measures_equal_those_taken_by_hand(baseline, splits):
    cell = run(baseline, splits, MEMBRANE)
    images, labels = next(iter(splits.test.batches(len(splits.test))))
    before, after = rates_by_hand(baseline, images), rates_by_hand(cell.model, images)
    distances = [wasserstein_distance(before[name].numpy(), after[name].numpy()) for name in before]
    assert cell.row["emd_layer_mean"] == pytest.approx(sum(distances) / len(distances), rel=1e-9)
    assert cell.row["emd_max"] == pytest.approx(max(distances), rel=1e-9)
    assert cell.row["mfr"] == pytest.approx(float(torch.cat(list(after.values())).mean()), rel=1e-9)
    with torch.no_grad():
        votes = [model(images).mean(0).argmax(1) for model in (baseline, cell.model)]
    assert cell.row["accuracy_fp"] == pytest.approx(float((votes[0] == labels).double().mean()))
    assert cell.row["accuracy"] == pytest.approx(float((votes[1] == labels).double().mean()))
    assert cell.row["agreement"] == pytest.approx(float((votes[0] == votes[1]).double().mean()))
    assert cell.row["accuracy_fp"] == evaluate(baseline, splits.test).accuracy
    assert cell.row["emd_layer_mean"] > 0.01


def test_post_training_is_quantize_with_the_drawn_images(baseline, splits):
    cell = run(baseline, splits, WEIGHTS, calibration_images=len(splits.train))
    by_hand = quantize_(copy.deepcopy(baseline), WEIGHTS, splits.train.batches(128))
    assert same_weights(cell.model, by_hand)
    assert spec_of(cell.model) == WEIGHTS
    assert is_converted(cell.model)
    levels = cell.model.get_submodule("stages.0.0.conv1").weight.detach().unique()
    assert torch.allclose(levels, torch.tensor([-1 / 3, 1 / 3]))


def test_a_row_says_how_many_images_calibration_looked_at(baseline, splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isofire.quantization.calibration.MOST_IMAGES", 8)
    by_layer = QuantSpec(weights={"method": "uniform", "bits": 4}, correct="bias")
    assert run(baseline, splits, by_layer, calibration_images=32).row["calibration_images"] == 8
    assert run(baseline, splits, WEIGHTS, calibration_images=32).row["calibration_images"] == 32


def test_seed_draws_other_calibration_images(baseline, splits):
    rows = [run(baseline, splits, None, seed=seed).row for seed in (0, 0, 1)]
    assert without_time(rows[0]) == without_time(rows[1])
    assert rows[0]["emd_layer_mean"] != rows[2]["emd_layer_mean"]


def test_post_training_control_only_measures_batch_norm_anew(baseline, splits):
    cell = run(baseline, splits, None, calibration_images=len(splits.train))
    by_hand = copy.deepcopy(baseline)
    reestimate_batch_norm(by_hand, splits.train.batches(128))
    assert same_weights(cell.model, by_hand)
    changed = [key for key, value in baseline.state_dict().items() if not torch.equal(value, by_hand.state_dict()[key])]
    assert changed
    assert all("running" in key or "num_batches" in key for key in changed)
    assert cell.row["emd_layer_mean"] > 0
    assert (cell.row["target"], cell.row["method"], cell.row["bits"]) == ("none", CONTROLS["ptq"], 32)
    assert is_control(cell.row)


def test_trained_control_is_plain_training_by_the_same_recipe(baseline, splits):
    cell = run(baseline, splits, None, "qat", recipe=QAT, seed=5)
    by_hand = copy.deepcopy(baseline)
    recipe = Recipe(epochs=1, lr=0.02, batch_size=32, warmup_epochs=0.0, seed=5)
    train(by_hand, splits.train, None, recipe, device="cpu", progress=False)
    assert same_weights(cell.model, by_hand)
    assert (cell.row["method"], cell.row["epochs"], len(cell.history)) == (CONTROLS["qat"], 1, 1)


def test_quantization_aware_cell_trains_and_ends_on_the_grid(baseline, splits):
    cell = run(baseline, splits, QuantSpec(weights={"method": "lsq", "bits": 2}), "qat", recipe=QAT)
    layer = cell.model.get_submodule("stages.0.0.conv1")
    assert max(len(channel.unique()) for channel in layer.weight.detach()) <= 4
    assert not torch.equal(cell.model.state_dict()["fc.weight"], baseline.state_dict()["fc.weight"])
    assert not any(module.training for module in cell.model.modules())


@pytest.mark.parametrize("mode", ["ptq", "qat"])
@pytest.mark.parametrize("spec", [None, WEIGHTS, MEMBRANE])
def test_baseline_is_left_as_it_was(baseline, splits, spec, mode):
    before = copy.deepcopy(baseline.state_dict())
    modes = [module.training for module in baseline.modules()]
    run(baseline, splits, spec, mode, recipe=QAT if mode == "qat" else None, max_images=20)
    assert all(torch.equal(value, before[key]) for key, value in baseline.state_dict().items())
    assert modes == [module.training for module in baseline.modules()]
    assert spec_of(baseline) is None


def test_cell_goes_on_in_its_folder(baseline, splits, tmp_path):
    seen: list[int] = []
    options = {"recipe": QAT, "folder": tmp_path, "on_epoch": lambda record: seen.append(record.epoch)}
    rows = [run(baseline, splits, WEIGHTS, "qat", **options).row for _ in range(2)]
    assert seen == [1]
    assert without_time(rows[0]) == without_time(rows[1])


def test_start_takes_the_place_of_the_baseline(baseline, splits):
    start = fresh_model(baseline.config, seed=9)
    stored = copy.deepcopy(start.state_dict())
    cell = run(baseline, splits, WEIGHTS, "qat", recipe=QAT, start=start)
    assert all(torch.equal(value, stored[key]) for key, value in start.state_dict().items())
    assert cell.row["spearman"] < run(baseline, splits, WEIGHTS, "qat", recipe=QAT).row["spearman"]


def test_max_images(baseline, splits):
    assert run(baseline, splits, None, max_images=17).row["n_images"] == 17


def test_all_images_calibrate_if_there_are_fewer(baseline, splits):
    assert run(baseline, splits, WEIGHTS, calibration_images=10_000).row["calibration_images"] == len(splits.train)


def test_valid_split_is_named(baseline, splits):
    from dataclasses import replace

    assert run(baseline, splits, MEMBRANE, test_set=replace(splits.test, split="valid")).row["data"] == "digits valid"


def test_name_of():
    config = {"builder": "sew_resnet8", "in_channels": 1}
    assert name_of(fresh_model(config, 0)) == "sew_resnet8"
    assert name_of(fresh_model({**config, "width": 0.5}, 0)) == "sew_resnet8 x0.5"
    assert name_of(nn.ReLU()) == "ReLU"


def test_dead_network_gives_a_row_with_nan(baseline, splits):
    silent = copy.deepcopy(baseline)
    for module in silent.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, -10.0)
    row = run(silent, splits, MEMBRANE).row
    assert row["mfr"] == row["mfr_fp"] == 0
    assert math.isnan(row["spearman"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "train"}, "mode must be ptq or qat"),
        ({"mode": "qat"}, "needs a recipe"),
        ({"start": nn.ReLU()}, "takes no other start"),
        ({"calibration_images": 0}, "at least 1"),
        ({"device": "cuda:99"}, "does not exist"),
    ],
)
def test_refused(baseline, splits, options, message):
    with pytest.raises(SpecError, match=message):
        run(baseline, splits, WEIGHTS, **({"mode": "ptq"} | options))


@pytest.mark.parametrize(("device", "place"), [(None, "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_cuda_without_an_index_is_that_of_the_process(baseline, splits, monkeypatch, device, place):
    class Reached(Exception):
        pass

    def stop(_baseline, _spec, _batches, device, *_further):
        raise Reached(str(device))

    monkeypatch.setattr("isofire.study.cell._post_training", stop)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(Reached, match=place):
        run(baseline, splits, WEIGHTS, device=device)


def test_the_baseline_teaches_where_a_loss_asks_for_it(baseline, splits):
    losses = {"paired": {"weight": 2.0}}
    recipe = Recipe(epochs=1, lr=0.02, batch_size=32, warmup_epochs=0.0, losses=losses)
    before = copy.deepcopy(baseline.state_dict())
    taught = run(baseline, splits, MEMBRANE, "qat", recipe=recipe)
    plain = run(baseline, splits, MEMBRANE, "qat", recipe=QAT)
    assert taught.history[0].losses["paired"] > 0
    assert taught.row["paired_mae"] < plain.row["paired_mae"]
    assert taught.row["options"].endswith("paired=2")
    assert "paired" not in (plain.row["options"] or "")
    assert all(torch.equal(value, baseline.state_dict()[name]) for name, value in before.items())


def test_tensors_and_batches_are_sets(baseline, splits):
    def pair(part, count):
        return next(iter(part.first(count).batches(count)))[:2]

    test, given = splits.test.first(60), pair(splits.train, 200)
    own = run(baseline, splits, WEIGHTS, train_set=given, test_set=pair(test, 60), calibration_images=200)
    batches = [(given[0][:100], given[1][:100]), (given[0][100:], given[1][100:])]
    again = run(baseline, splits, WEIGHTS, train_set=batches, test_set=[pair(test, 60)], calibration_images=200)
    sets = run(baseline, splits, WEIGHTS, train_set=splits.train.first(200), test_set=test, calibration_images=200)
    for key in ("accuracy", "agreement", "emd_weighted", "mfr"):
        assert own.row[key] == again.row[key] == sets.row[key]
    assert own.row["data"] == "data"
    trained = run(baseline, splits, None, "qat", train_set=given, test_set=pair(test, 60), recipe=QAT)
    assert trained.row["n_images"] == 60
