"""`isofire sweep` and `isofire status` as they are told, without running a cell in another process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isofire.cli.app import main
from isofire.cli.sweep_view import SweepView
from isofire.sweep import State, make_plan, read_sweep

TINY = str(Path(__file__).parents[1] / "sweep" / "tiny.toml")
ONE = ["--set", "seeds=[0]", "--set", 'cells=[{mode=["ptq"]}, {mode=["qat"], bits=[2], weights={method="lsq"}}]']


def test_a_dry_run_lists_cells_and_estimates_their_time(tmp_path, capsys) -> None:
    assert main(["sweep", TINY, *ONE, "--dry-run", "--workers", "2", "--json", "--out", str(tmp_path / "out")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [cell["finished"] for cell in document["cells"]] == [False, False]
    assert "lsq 2 bits" in document["cells"][1]["title"]
    assert [(kind["kind"], kind["number"]) for kind in document["kinds"]] == [
        ("baseline small", 1), ("small ptq none", 1), ("small qat weights lsq", 1)
    ]  # fmt: skip
    baseline, ptq, qat = (kind["seconds"] for kind in document["kinds"])
    # two workers cannot be faster than a cell after its baseline
    assert document["seconds"] == pytest.approx(max((baseline + ptq + qat) / 2, baseline + max(ptq, qat)))
    assert 0 < document["seconds"] < 600
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0", "--out", "OUT"], "--workers must lie in 1..1024"),
        (["--workers", "-3", "--out", "OUT"], "--workers must lie in 1..1024"),
        (["--set", "threads=0", "--out", "OUT"], "threads"),
        (["--address", "x", "--out", "OUT"], "--address is for --executor ray"),
        (["--option", "minutes=3", "--out", "OUT"], "--option is for --executor ray or slurm"),
        (["--executor", "slurm", "--option", "minutes", "--out", "OUT"], "--option takes key=value"),
        (["--executor", "ray", "--workers", "2", "--out", "OUT"], "--workers is not for --executor ray"),
        (["--baseline", "nowhere.safetensors", "--out", "OUT"], "nowhere.safetensors"),
    ],
)
def test_mistakes(tmp_path, capsys, options: list[str], message: str, more: list[str]) -> None:
    given = [str(tmp_path / "out") if word == "OUT" else word for word in options]
    assert main(["sweep", TINY, *ONE, *given, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_sweep_needs_a_folder_and_one_that_cannot_be_planned_makes_none(tmp_path, capsys) -> None:
    assert main(["sweep", TINY, *ONE]) == 2
    assert "give --out DIR" in capsys.readouterr().err
    assert main(["sweep", TINY, *ONE, "--model", "nowhere:build", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_status_of_a_folder_that_is_none(tmp_path, capsys) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "no plan.json" in capsys.readouterr().err


def test_what_is_found_damaged_is_told(capsys) -> None:
    plan = make_plan(read_sweep(Path(TINY), ["seeds=[0]", 'cells=[{mode=["ptq"]}]']), "nowhere")
    view = SweepView(plan)
    state = State(total=1, damaged=["cells/a was damaged, kept as damaged/a.1"])
    view(state)
    view(state)
    assert capsys.readouterr().err.count("cells/a was damaged, kept as damaged/a.1; it is computed again") == 1


def test_groups_of_which_nothing_is_left_are_named(tmp_path, capsys) -> None:
    left = ["--set", 'exclude=[{mode="qat"}]', "--dry-run", "--out", str(tmp_path / "out")]
    assert main(["sweep", TINY, *ONE, *left]) == 0
    assert "cells[1]: nothing is left by exclude" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "[]", '{"version": 1, "cells": [{"title": "a"}], "baselines": []}', '{"version": 1, "cells": "a"}', None,
        '{"version": 1, "cells": [{"key": "a", "title": "a", "mode": "ptq", "baseline": "b"}], "baselines": []}',
        '{"version": 1, "cells": [{"key": "a", "title": "a", "baseline": "b"}], '
        '"baselines": [{"key": "b", "name": "b"}]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["status", "report"])
def test_a_damaged_plan_is_told_with_its_cure(tmp_path, capsys, command: str, text: str | None) -> None:
    (tmp_path / "cells").mkdir()
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    assert main([command, str(tmp_path)]) == 2
    assert "give the same isofire sweep command again" in capsys.readouterr().err
