"""One task: the bits that `run_cell` gives, whatever ran before; failures recorded, never half a result."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest
import torch

from isofire.firing import Observation
from isofire.models import build, load_model, save_model
from isofire.study import load_splits, run_cell
from isofire.sweep import work
from isofire.sweep.manifest import FILES
from isofire.sweep.store import Store, read_json
from isofire.sweep.task import Task
from isofire.sweep.work import perform

ONE = ("seeds=[0]", 'cells=[{mode=["qat"], bits=[2], weights={method="lsq"}}]')


@pytest.fixture
def one(support, tmp_path):
    plan = support.plan_of(tmp_path, *ONE)
    assert perform(plan.baselines[0]).kind == "done"
    return plan.cells[0]


def test_a_cell_is_what_run_cell_gives(finished, support) -> None:
    """From the stored baseline, without what the sweep shares between cells."""
    plan, store = support.plan_of(finished), Store(finished)
    task = next(task for task in plan.cells if task.cell.mode == "qat" and task.cell.spec is not None)
    splits = load_splits(task.baseline.data)
    folder = store.path("baselines", task.baseline.key)
    model, _ = load_model(folder / "model.safetensors")
    cell = run_cell(
        model, task.cell.spec, mode="qat", train_set=splits.train, test_set=splits.test, recipe=task.cell.recipe,
        seed=task.cell.seed, calibration_images=16, max_images=20, device="cpu",
    )  # fmt: skip
    row = read_json(store.path("cells", task.key) / "row.json")
    for name, value in cell.row.items():
        assert name == "seconds" or row[name] == value, name
    kept, note = load_model(store.path("cells", task.key) / "model.safetensors")
    assert all(bool((value == kept.state_dict()[name]).all()) for name, value in cell.model.state_dict().items())
    assert note["row"]["cell"] == task.key
    assert Observation.load(folder).accuracy == row["accuracy_fp"] == cell.comparison.accuracy_fp


def test_order_does_not_matter(expected, support, tmp_path) -> None:
    plan = support.plan_of(tmp_path)
    for task in (*plan.baselines, *reversed(plan.cells[:8])):
        assert perform(task).kind == "done"
    (tmp_path / "plan.json").write_text(plan.to_json())
    found = support.contents(tmp_path)
    assert len(found) == 8
    assert all(expected[key] == value for key, value in found.items())


def test_a_finished_task_is_not_done_again(one, monkeypatch: pytest.MonkeyPatch) -> None:
    assert perform(one).seconds > 0
    monkeypatch.setattr(work, "run_cell", None)
    assert perform(one) == msgspec.structs.replace(perform(one), kind="done", seconds=0.0)


def test_a_claimed_task_is_left_alone(one, tmp_path) -> None:
    claim = Store(tmp_path).claim(one.key)
    assert claim is not None
    with claim:
        assert perform(one).kind == "held"
    assert perform(one).kind == "done"


@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_who_lost_its_claim_leaves_the_cell_to_the_new_owner(
    one, tmp_path, monkeypatch: pytest.MonkeyPatch, ends
) -> None:
    """As on a machine that stood still for so long that another one took the cell over."""
    store, run = Store(tmp_path), work.run_cell
    claims = []

    def lose(*args, **options):
        (tmp_path / "claims" / one.key).unlink()
        claims.append(store.claim(one.key))
        if ends == "in an error":
            raise FileNotFoundError("the state of the training")
        return run(*args, **options)

    monkeypatch.setattr(work, "run_cell", lose)
    assert perform(one).kind == "held"
    assert not store.exists("cells", one.key)
    assert store.failure(one.key) is None
    assert claims[0].is_held, "the new owner's claim is not given up by the old one"
    claims[0].release()
    assert not claims[0].is_held
    monkeypatch.setattr(work, "run_cell", run)
    assert perform(one).kind == "done"


def test_the_files_that_a_part_needs_are_those_that_are_written(finished) -> None:
    for kind, needed in FILES.items():
        for folder in (finished / kind).iterdir():
            optional = {"manifest.json", "model.safetensors"}
            assert needed <= {path.name for path in folder.iterdir()} <= needed | optional


def test_a_cell_that_diverges_is_recorded(one, tmp_path) -> None:
    recipe = msgspec.structs.replace(one.cell.recipe, lr=1e30)
    task = Task(folder=one.folder, baseline=one.baseline, cell=msgspec.structs.replace(one.cell, recipe=recipe))
    outcome = perform(task)
    assert outcome.kind == "failed"
    record = Store(tmp_path).failure(one.key)
    assert record["type"] == "ModelError"
    assert record["reason"] == outcome.reason
    assert "stopped being finite at epoch 1" in record["reason"]
    assert "train" in record["traceback"]
    assert record["attempts"] == 1
    assert not Store(tmp_path).exists("cells", one.key)
    assert perform(one).kind == "done"
    assert Store(tmp_path).failure(one.key) is None


@pytest.mark.parametrize("error", [MemoryError("out of memory"), RuntimeError("DefaultCPUAllocator"), OSError("odd")])
def test_any_error_of_a_cell_is_recorded(one, tmp_path, monkeypatch: pytest.MonkeyPatch, error) -> None:
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(work, "run_cell", fail)
    assert perform(one).kind == "failed"
    assert Store(tmp_path).failure(one.key)["type"] == type(error).__name__


def test_a_full_disk_is_no_failure_of_the_cell(one, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args, **_options):
        raise RuntimeError("in some library") from OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(work, "save_model", full)
        outcome = perform(one)
    assert outcome.kind == "stopped"
    assert Store(tmp_path).failure(one.key) is None
    assert not list((tmp_path / "parts").iterdir())
    assert not Store(tmp_path).owners()
    assert perform(one).kind == "done"


def test_events_are_noted(one, tmp_path) -> None:
    perform(one)
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [(event["event"], event["key"]) for event in events] == [
        (event, key) for key in (one.baseline.key, one.key) for event in ("started", "finished")
    ]


def test_a_network_that_is_not_the_planned_one_is_not_computed_under_its_key(support, tmp_path) -> None:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.125, "T": 1, "in_channels": 1})
    save_model(tmp_path / "net", model)
    plan = support.plan_of(tmp_path / "out", *ONE, f'baselines=[{{name="given", file="{tmp_path / "net"}"}}]')
    with torch.no_grad():
        model.fc.bias += 1.0
    save_model(tmp_path / "net", model)
    found = perform(Task.decode(plan.baselines[0].encode()))
    assert found.kind == "stopped"
    assert "the network of baseline 'given' must be what the sweep was planned with" in found.reason
    assert not (tmp_path / "out" / "baselines").exists()
    assert not (tmp_path / "out" / "failed").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"versions": {"isofire": "0", "torch": "1.0"}}, "the versions"),
        ({"fingerprints": {"train": "a"}}, "the images"),
    ],
)
def test_other_versions_and_images_stop_baselines_and_cells(one, tmp_path, change, what: str) -> None:
    baseline = msgspec.structs.replace(one.baseline, **change)
    for task in (Task(folder=one.folder, baseline=baseline, cell=one.cell),
                 Task(folder=str(tmp_path / "new"), baseline=baseline)):  # fmt: skip
        found = perform(task)
        assert (found.kind, what in found.reason) == ("stopped", True), found
    assert Store(tmp_path).failure(one.key) is None


def test_equal_cells_have_equal_files(one, tmp_path) -> None:
    assert perform(one).kind == "done"
    place = Store(tmp_path).path("cells", one.key)
    before = (place / "model.safetensors").read_bytes()
    shutil.rmtree(place)
    assert perform(one).kind == "done"
    assert (place / "model.safetensors").read_bytes() == before
