"""The same cells as jobs of submitit's local executor, which stands in for SLURM."""

from __future__ import annotations

import pytest

from isofire.errors import SpecError, WorkerError
from isofire.sweep import run_sweep
from isofire.sweep.executors.slurm import Slurm

pytest.importorskip("submitit", reason="submitit is not installed (extra `slurm`)")

FEW = ("seeds=[0]", 'cells=[{mode=["ptq"]}, {bits=[2], weights={method="lsq"}}]')


@pytest.mark.slow
def test_jobs_give_the_same_bits(tmp_path, expected, support) -> None:
    plan = support.plan_of(tmp_path, *FEW)
    results = run_sweep(plan, str(tmp_path), Slurm(tmp_path, jobs=2, cluster="local"))
    assert (len(results.rows), results.pending) == (3, 0)
    for key, found in support.contents(tmp_path).items():
        assert found == expected[key]


def test_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="nonsense"):
        Slurm(tmp_path, cluster="local", options={"slurm_nonsense": 1})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="run this where sbatch works"):
        Slurm(tmp_path)
