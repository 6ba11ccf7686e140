"""The same sweep on a Ray cluster of two nodes, with a worker killed while it computes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from isofire.sweep import State, run_sweep
from isofire.sweep.executors.ray import Ray

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    # nothing is reported to anybody, and threads are those that a task asks for
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # a node that is slow since other programs use the cores is not dead
    monkeypatch.setenv("RAY_health_check_failure_threshold", "50")
    node = {
        "num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000, "include_log_monitor": False, "no_monitor": True,
    }  # fmt: skip
    made = _started(Cluster, {**node, "include_dashboard": False})
    made.add_node(**node)
    yield made
    ray.shutdown()
    made.shutdown()


def _started(cluster: type, head: dict[str, Any]) -> Any:
    """Ray gives its head 30 seconds to start, which can be too few while other programs use the cores."""
    for _ in range(2):
        try:
            return cluster(initialize_head=True, head_node_args=head)
        except Exception as error:
            if "timed out" not in str(error):
                raise
    return cluster(initialize_head=True, head_node_args=head)


@pytest.mark.slow
def test_two_nodes_and_a_killed_worker(cluster, tmp_path, expected, support) -> None:
    killed: list[int] = []

    def kill_one(state: State) -> None:
        """Once some cells are done, whoever holds the claim of a running one is killed."""
        if killed or state.done < 4:
            return
        for owner in support.Store(tmp_path).owners().values():
            os.kill(owner["pid"], signal.SIGKILL)
            killed.append(owner["pid"])
            return

    ray.init(address=cluster.address, log_to_driver=False)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    results = run_sweep(support.plan_of(tmp_path), str(tmp_path), Ray(), watch=kill_one)
    assert len(killed) == 1
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [event for event in events if event["event"] == "lost"], "the runner saw the death"
    assert len({event["pid"] for event in events if event["event"] == "finished"}) > 1, "several workers took part"
    assert not results.failed
    assert support.contents(tmp_path) == expected
