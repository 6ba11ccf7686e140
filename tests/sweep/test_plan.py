"""What names a cell: all that can change its result, and nothing else."""

from __future__ import annotations

import json

import pytest
import torch

from isofire.errors import CheckpointError, ModelError, SpecError
from isofire.models import build, save_model
from isofire.quantization import quantize_
from isofire.spec import QuantSpec
from isofire.sweep import plan as module

FEW = ("seeds=[0]", 'cells=[{}, {bits=[2], weights={method="lsq"}}]')
MODEL = {"builder": "sew_resnet8", "width": 0.125, "T": 1, "in_channels": 1}


def keys(plan, mode: str | None = None) -> list[str]:
    return [task.key for task in plan.cells if mode in (None, task.cell.mode)]


@pytest.fixture
def plan_of(support, tmp_path):
    def plan_of(*settings: str):
        return support.plan_of(tmp_path / "out", *FEW, *settings)

    return plan_of


def test_every_baseline_mode_point_and_seed_once(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path)
    assert (len(plan.baselines), len(plan.cells)) == (2, 28)
    assert len({task.key for task in plan.cells}) == 28
    assert [task.cell.seed for task in plan.cells] == [0] * 14 + [1] * 14
    assert all(task.cell.recipe.seed == task.cell.seed for task in plan.cells if task.cell.mode == "qat")
    assert all(task.baseline.train.seed == task.cell.seed for task in plan.cells)
    again = support.plan_of(tmp_path / "elsewhere")
    assert keys(again) == keys(plan)


def test_a_cell_named_twice_runs_once(plan_of) -> None:
    assert len(plan_of('cells=[{mode=["ptq"]}, {mode=["ptq"]}]').cells) == 1


@pytest.mark.parametrize(
    "setting",
    [
        "data.train_images=33", "data.test_images=19", "test_images=19", "calibration_images=17", "batch_size=64",
        "threads=2", 'baselines=[{name="small", model={builder="sew_resnet8", width=0.25, T=1, in_channels=1}, '
        "train={epochs=2, batch_size=16, lr=0.1}}]", "data.valid=20", "data.seed=1",
    ],
)  # fmt: skip
def test_what_changes_results_changes_every_key(plan_of, setting: str) -> None:
    assert not set(keys(plan_of())) & set(keys(plan_of(setting)))


def test_which_path_counts_spikes_names_cells_that_may_be_looked_up(plan_of) -> None:
    looked_up, plain = plan_of(), plan_of("fast=false")
    assert keys(looked_up, "qat") == keys(plain, "qat")
    changed = [
        (task.cell.spec is not None, task.key != other.key)
        for task, other in zip(looked_up.cells, plain.cells, strict=True)
        if task.cell.mode == "ptq"
    ]
    assert len(changed) >= 2
    assert all(quantized == other for quantized, other in changed)


def test_the_recipe_changes_cells_that_train(plan_of) -> None:
    change = "qat={epochs=1, batch_size=16, lr=0.02, warmup_epochs=0.0}"
    assert keys(plan_of(), "ptq") == keys(plan_of(change), "ptq")
    assert not set(keys(plan_of(), "qat")) & set(keys(plan_of(change), "qat"))


def test_versions_and_devices_change_every_key(plan_of, support, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of()
    cuda = module.make_plan(before.sweep, tmp_path / "out", "cuda")
    assert not set(keys(before)) & set(keys(cuda))
    monkeypatch.setattr(module, "version", lambda name: "99")
    assert not set(keys(before)) & set(keys(plan_of()))


@pytest.mark.parametrize("setting", ["name='other'", "keep_models=false", "seeds=[0, 5]"])
def test_what_does_not_change_results_changes_no_key(plan_of, setting: str) -> None:
    assert set(keys(plan_of())) <= set(keys(plan_of(setting)))


def test_a_file_is_known_by_what_it_holds(plan_of, tmp_path) -> None:
    def given(path) -> str:
        return f'baselines=[{{name="small", file="{path}"}}]'

    torch.manual_seed(0)
    model = build(MODEL)
    for name in ("a", "b"):
        save_model(tmp_path / name, model, {"name": name})
    with torch.no_grad():
        model.fc.bias += 1.0
    save_model(tmp_path / "c", model)
    longer = build({**MODEL, "T": 2})
    longer.load_state_dict(build(MODEL).state_dict())
    a, b, c = (plan_of(given(tmp_path / name)) for name in "abc")
    assert keys(a) == keys(b)
    assert not set(keys(a)) & set(keys(c))
    # a network from a file is one for all seeds
    assert len(plan_of(given(tmp_path / "a"), "seeds=[0, 1]").baselines) == 1
    with pytest.raises(CheckpointError, match="nowhere"):
        plan_of(given(tmp_path / "nowhere"))
    images = torch.rand(8, 1, 8, 8)
    quantize_(model, QuantSpec(weights={"method": "lsq", "bits": 2}), images)
    save_model(tmp_path / "q", model)
    with pytest.raises(ModelError, match="is quantized"):
        plan_of(given(tmp_path / "q"))


def test_equal_weights_in_a_longer_network_are_another_baseline(plan_of, tmp_path) -> None:
    torch.manual_seed(0)
    short, longer = build(MODEL), build({**MODEL, "T": 2})
    longer.load_state_dict(short.state_dict())
    found = []
    for name, model in (("a", short), ("b", longer)):
        save_model(tmp_path / name, model)
        found.append(plan_of(f'baselines=[{{name="small", file="{tmp_path / name}"}}]'))
    assert not set(keys(found[0])) & set(keys(found[1]))


def test_the_plan_names_no_place_of_this_machine(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path / "out", *FEW, f"data.root='{tmp_path}'")
    document = json.loads(plan.to_json())
    assert str(tmp_path) not in plan.to_json()
    assert [cell["key"] for cell in document["cells"]] == keys(plan)
    assert document["cells"][2]["spec"]["weights"]["bits"] == 2


def test_refused(plan_of) -> None:
    with pytest.raises(SpecError, match=r"matches none \(exclude\[0\]\)"):
        plan_of('exclude=[{"weights.bits"=9}]')
    with pytest.raises(SpecError, match="all are excluded"):
        plan_of('exclude=[{mode=["ptq", "qat"]}]')


def test_one_network_under_two_names_is_refused(plan_of, tmp_path) -> None:
    torch.manual_seed(0)
    save_model(tmp_path / "a", build(MODEL))
    twice = ", ".join(f'{{name="{name}", file="{tmp_path / "a"}"}}' for name in ("first", "second"))
    with pytest.raises(SpecError, match="'first' and 'second' are the same network"):
        plan_of(f"baselines=[{twice}]")


def test_a_data_set_is_read_once_for_all_baselines(plan_of, tmp_path, monkeypatch) -> None:
    for i, name in enumerate("ab"):
        torch.manual_seed(i)
        save_model(tmp_path / name, build(MODEL))
    reads, real = [], module.load_splits
    monkeypatch.setattr(module, "load_splits", lambda data: reads.append(data) or real(data))
    both = ", ".join(f'{{name="{name}", file="{tmp_path / name}"}}' for name in "ab")
    assert len(plan_of(f"baselines=[{both}]", "seeds=[0]").baselines) == 2
    assert len(reads) == 1
