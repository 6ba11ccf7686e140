"""The runner: what is missing is given out, deaths and failures are counted, damage is repaired."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch

from isofire.errors import ModelError, OutputError, WorkerError
from isofire.study import read_rows
from isofire.sweep import Results, State, load_results, run_sweep, runner, work
from isofire.sweep.runner import LIVES
from isofire.sweep.store import Store
from isofire.sweep.task import Outcome, Task

FEW = ("seeds=[0]", 'cells=[{mode=["ptq"]}, {mode=["ptq"], bits=[2, 4], weights={method="lsq"}}]')
BAD = 'cells=[{mode=["ptq"]}, {mode=["qat"], bits=[2], weights={method="lsq"}}]'


def test_a_second_run_gives_nothing_out(finished, support) -> None:
    before = (finished / "results.csv").read_bytes()
    results, executor = support.run_inline(finished)
    assert executor.given == []
    assert executor.closed
    assert (len(results.rows), results.pending, list(results.failed)) == (28, 0, [])
    assert (finished / "results.csv").read_bytes() == before


def test_results_are_read_back(finished) -> None:
    rows = load_results(finished)
    stored = read_rows(finished / "results.csv")
    assert [repr({name: row[name] for name in stored[0]}) for row in rows] == [repr(row) for row in stored]
    assert {row["baseline"] for row in rows} == {"small"}
    assert len((finished / "table.md").read_text().splitlines()) > 28
    assert json.loads((finished / "results.json").read_text())["environment"]["torch"]
    results, key = Results.open(finished), rows[3]["cell"]
    assert results.layers(key)[0]["layer"] == results.counts(key).layers[0] == results.baseline_counts(key).layers[0]
    assert results.baseline(key)["accuracy"]["test"] == {"accuracy": rows[3]["accuracy_fp"], "n": 20}
    assert results.distributions(key)[0]["target"] == "weights"
    assert results.running == []


def test_a_longer_file_in_the_same_folder_computes_what_is_new(support, tmp_path) -> None:
    support.run_inline(tmp_path, *FEW)
    results, executor = support.run_inline(tmp_path, FEW[0], FEW[1].replace("[2, 4]", "[2, 3, 4]"))
    assert len(executor.given) == 1
    assert [row["bits"] for row in results.rows] == [32, 2, 3, 4]


def test_cells_that_a_later_file_does_not_ask_for_are_told(support, tmp_path, caplog) -> None:
    """Their results are in no table any more; those of a longer file are."""
    support.run_inline(tmp_path, *FEW)
    support.run_inline(tmp_path, FEW[0], FEW[1].replace("[2, 4]", "[2, 3, 4]"))
    assert "does not ask for" not in caplog.text
    results, _ = support.run_inline(tmp_path, FEW[0], FEW[1].replace("[2, 4]", "[4]"))
    assert "holds 2 finished cells of" in caplog.text
    assert "results and reports are now of this file alone; another --out keeps both" in caplog.text
    assert [row["bits"] for row in results.rows] == [32, 4]


def test_damage_is_repaired_with_the_same_bits(support, tmp_path) -> None:
    results, _ = support.run_inline(tmp_path, *FEW)
    before, store = support.contents(tmp_path), Store(tmp_path)
    victims = [row["cell"] for row in results.rows[:2]]
    counts = store.path("cells", victims[0]) / "counts.safetensors"
    counts.write_bytes(counts.read_bytes()[:-1] + b"?")
    (store.path("cells", victims[1]) / "row.json").unlink()
    base = store.path("baselines", support.plan_of(tmp_path, *FEW).baselines[0].key)
    (base / "model.safetensors").write_bytes(b"half")
    _, executor = support.run_inline(tmp_path, *FEW)
    assert executor.given == [base.name, *victims]
    assert support.contents(tmp_path) == before
    assert len(list((tmp_path / "damaged").iterdir())) == 3


def test_failures_stay_until_they_are_to_be_retried(support, tmp_path) -> None:
    bad = ("seeds=[0]", BAD, "qat={epochs=1, batch_size=16, lr=1e30, warmup_epochs=0.0}")
    seen: list[State] = []
    results, executor = support.run_inline(tmp_path, *bad, watch=seen.append)
    assert (len(executor.given), len(results.rows), len(results.failed), results.pending) == (3, 1, 1, 0)
    assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (1, 1, 2)
    assert "failed" in seen[-1].last
    assert results.failed[0]["attempts"] == 1
    assert support.run_inline(tmp_path, *bad)[1].given == []
    results, executor = support.run_inline(tmp_path, *bad, retry_failed=True)
    assert len(executor.given) == 1
    assert results.failed[0]["attempts"] == 2


def test_if_a_baseline_fails_so_do_its_cells(support, tmp_path) -> None:
    broken = 'baselines=[{name="small", model={builder="sew_resnet8", width=0.125, T=1, in_channels=1}, '
    broken += "train={epochs=1, batch_size=16, lr=1e30, warmup_epochs=0.0}}]"
    results, executor = support.run_inline(tmp_path, *FEW, broken)
    assert (len(executor.given), len(results.failed)) == (1, 3)
    assert {record["type"] for record in results.failed} == {"Baseline"}
    assert "its baseline small failed" in results.failed[0]["reason"]
    assert "Traceback" in results.failed[0]["traceback"]


class Mortal:
    """Makes an executor whose processes die when they get certain tasks."""

    @staticmethod
    def of(support, dies) -> object:
        class Dying(support.Inline):
            def outcome(self, task):
                if dies(task, self.given.count(task.key)):
                    return Outcome(kind="lost", reason="its process ended by SIGKILL")
                return super().outcome(task)

        return Dying()


def test_a_cell_whose_process_died_runs_again(support, tmp_path, expected) -> None:
    plan = support.plan_of(tmp_path, *FEW)
    executor = Mortal.of(support, lambda task, times: times < LIVES)
    run_sweep(plan, str(tmp_path), executor)
    assert len(executor.given) == LIVES * 4
    found = support.contents(tmp_path)
    assert len(found) == 3
    assert all(expected[key] == value for key, value in found.items())


def test_a_cell_that_always_kills_its_process_fails(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path, *FEW)
    killer = plan.cells[1].key
    results = run_sweep(plan, str(tmp_path), Mortal.of(support, lambda task, times: task.key == killer))
    assert (len(results.rows), [record["key"] for record in results.failed]) == (2, [killer])
    assert results.failed[0]["reason"] == f"its process ended by SIGKILL, {LIVES} times"


def test_if_all_processes_die_the_run_ends(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path, FEW[0], FEW[1].replace("[2, 4]", "[2, 3, 4, 5, 6]"))
    executor = Mortal.of(support, lambda task, times: task.cell is not None)
    with pytest.raises(WorkerError, match="processes that were given a cell died"):
        run_sweep(plan, str(tmp_path), executor)
    assert executor.closed


def test_what_another_run_computes_is_waited_for(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path, *FEW)
    store, held = Store(tmp_path), plan.cells[1]
    claim = store.claim(held.key)
    assert claim is not None

    def finish(state: State) -> None:
        if state.done == 2:
            claim.release()

    executor = support.Inline()
    results = run_sweep(plan, str(tmp_path), executor, watch=finish)
    assert executor.given.count(held.key) == 2
    assert (len(results.rows), results.pending) == (3, 0)


def test_a_failure_of_another_run_is_not_tried_again(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path, *FEW)
    store, held = Store(tmp_path), plan.cells[1]
    claim = store.claim(held.key)
    assert claim is not None

    def fail(state: State) -> None:
        if state.done == 2 and store.failure(held.key) is None:
            store.fail(held.key, {"title": held.title, "type": "ModelError", "reason": "diverged", "traceback": ""})
            claim.release()

    executor = support.Inline()
    results = run_sweep(plan, str(tmp_path), executor, watch=fail)
    assert executor.given.count(held.key) == 1
    assert (len(results.rows), results.failed[0]["attempts"]) == (2, 1)


def test_a_disk_that_is_full_ends_the_run_and_keeps_what_there_is(support, tmp_path) -> None:
    plan = support.plan_of(tmp_path, *FEW)

    class Full(support.Inline):
        def outcome(self, task):
            if task.key == plan.cells[2].key:
                return Outcome(kind="stopped", reason="cannot write x: No space left on device")
            return super().outcome(task)

    executor = Full()
    with pytest.raises(OutputError, match="No space left"):
        run_sweep(plan, str(tmp_path), executor)
    assert executor.closed
    assert len(Results.open(tmp_path).rows) == 2
    assert len(support.run_inline(tmp_path, *FEW)[0].rows) == 3


def test_a_task_that_is_held_is_not_given_out_again_while_it_is(support, tmp_path, monkeypatch) -> None:
    """Each time would be a job in a queue."""
    monkeypatch.setattr(runner, "_REST", 0.0)
    monkeypatch.setattr(runner, "_TICK", 0.01)
    plan = support.plan_of(tmp_path, *FEW)
    held, looks = plan.cells[1], []
    claim = Store(tmp_path).claim(held.key)
    assert claim is not None

    def finish(state: State) -> None:
        looks.append(state.elsewhere)
        if sum(looks) == 50:
            claim.release()

    executor = support.Inline()
    run_sweep(plan, str(tmp_path), executor, watch=finish)
    assert sum(looks) >= 50
    assert executor.given.count(held.key) == 2


def test_a_damaged_baseline_is_noticed_although_all_cells_are_finished(support, tmp_path) -> None:
    support.run_inline(tmp_path, *FEW)
    before = support.contents(tmp_path)
    base = Store(tmp_path).path("baselines", support.plan_of(tmp_path, *FEW).baselines[0].key)
    (base / "counts.safetensors").write_bytes(b"half")
    seen: list[State] = []
    results, executor = support.run_inline(tmp_path, *FEW, watch=seen.append)
    assert executor.given == [base.name]
    assert [line.split(" was damaged, kept as ")[0] for line in seen[0].damaged] == [f"baselines/{base.name}"]
    assert Store(tmp_path).check("baselines", base.name)
    assert support.contents(tmp_path) == before
    assert results.pending == 0


def test_a_baseline_that_cannot_be_made_again_is_told(support, tmp_path, monkeypatch) -> None:
    support.run_inline(tmp_path, *FEW)
    base = Store(tmp_path).path("baselines", support.plan_of(tmp_path, *FEW).baselines[0].key)
    (base / "counts.safetensors").write_bytes(b"half")

    def fails(*_: object, **__: object) -> None:
        raise ModelError("diverged")

    monkeypatch.setattr(work, "train_baseline", fails)
    with pytest.raises(OutputError, match="baseline small cannot be made again: diverged"):
        support.run_inline(tmp_path, *FEW)
    # nor does the same command try again
    monkeypatch.undo()
    with pytest.raises(OutputError, match="--retry-failed"):
        support.run_inline(tmp_path, *FEW)
    results, executor = support.run_inline(tmp_path, *FEW, retry_failed=True)
    assert executor.given == [base.name]
    assert len(results.rows) == 3


def test_a_longer_file_does_not_train_a_failed_baseline_again(support, tmp_path) -> None:
    broken = 'baselines=[{name="small", model={builder="sew_resnet8", width=0.125, T=1, in_channels=1}, '
    broken += "train={epochs=1, batch_size=16, lr=1e30, warmup_epochs=0.0}}]"
    support.run_inline(tmp_path, *FEW, broken)
    longer = FEW[1].replace("[2, 4]", "[2, 3, 4]")
    results, executor = support.run_inline(tmp_path, FEW[0], longer, broken)
    assert executor.given == []
    assert len(results.failed) == 4
    _, executor = support.run_inline(tmp_path, FEW[0], longer, broken, retry_failed=True)
    assert len(executor.given) == 1


def _killed_between(task: bytes, step: str) -> None:
    """Does a task and dies where its claim is not yet given up."""
    torch.set_num_threads(1)
    setattr(Store, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    work.perform(Task.decode(task))


@pytest.mark.parametrize("step", ["forget_training", "forgive"])
def test_what_a_worker_left_that_was_killed_after_publishing_is_removed(support, tmp_path, step: str) -> None:
    settings = ("seeds=[0]", 'cells=[{mode=["qat"]}]')
    support.run_inline(tmp_path, *settings)
    plan, store = support.plan_of(tmp_path, *settings), Store(tmp_path)
    key, before = plan.cells[0].key, support.contents(tmp_path)
    shutil.rmtree(store.path("cells", key))
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_killed_between, args=(plan.cells[0].encode(), step))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "claims" / key).exists()
    support.run_inline(tmp_path, *settings)
    assert support.contents(tmp_path) == before
    assert not list((tmp_path / "claims").iterdir())
    assert not list((tmp_path / "training").iterdir())
    assert not list((tmp_path / "parts").iterdir())


def test_a_renamed_baseline_keeps_its_cells_and_its_control(support, tmp_path) -> None:
    """The name decides nothing, so the cells are not computed again, and rows carry the plan's name."""
    support.run_inline(tmp_path, *FEW)
    text = support.TINY.read_text().replace('name = "small"', 'name = "renamed"')
    plan = support.plan_of(tmp_path, *FEW, text=text)
    executor = support.Inline()
    results = run_sweep(plan, str(tmp_path), executor)
    assert executor.given == []
    assert {row["baseline"] for row in results.rows} == {"renamed"}
