"""The same sweep on a Ray cluster of two nodes, with a worker killed while it computes."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from isofire.errors import SpecError
from isofire.sweep import run_sweep
from isofire.sweep.executors.ray import Ray

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    from ray._private import services
    from ray.cluster_utils import Cluster

    # nothing is reported to anybody, and threads are those that a task asks for
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # what is slow since other programs use the cores is not dead
    monkeypatch.setenv("RAY_health_check_failure_threshold", "50")
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "300")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "300")
    monkeypatch.setattr(services, "get_node", _patiently(services.get_node))
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000}
    node |= {"include_log_monitor": False, "no_monitor": True}
    made = Cluster(initialize_head=True, head_node_args={**node, **_ports(), "include_dashboard": False})
    made.add_node(**node, **_ports())
    yield made
    ray.shutdown()
    made.shutdown()


def _ports() -> dict[str, int]:
    """A node that is told its agents' ports does not wait 15 seconds, and then die, for them to tell theirs."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("", 0)) for _ in names]
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(names, found, strict=True))


def _patiently(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ray gives a node 30 seconds to start, which are too few while other programs use the cores."""

    def found(*arguments: Any) -> Any:
        end = time.monotonic() + 240
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:
                if time.monotonic() > end:
                    raise

    return found


@pytest.mark.slow
def test_an_option_that_ray_does_not_know_is_told_before_anything_starts() -> None:
    with pytest.raises(SpecError, match=r"--option must be what Ray's tasks take, got \['a'\]"):
        Ray(options={"a": "b"})
    assert not ray.is_initialized()


def test_two_nodes_and_a_killed_worker(cluster, tmp_path, expected, support) -> None:
    killed: list[int] = []
    over = threading.Event()

    def kill_one() -> None:
        """Once some cells are done, whoever claims a part next is killed; a runner's look now and then may miss it."""
        store = support.Store(tmp_path)
        while not over.wait(0.002):
            if len(list((tmp_path / "cells").glob("*"))) < 3:
                continue
            for owner in store.owners().values():
                os.kill(owner.pid, signal.SIGKILL)
                killed.append(owner.pid)
                return

    ray.init(address=cluster.address, log_to_driver=False)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        results = run_sweep(support.plan_of(tmp_path), str(tmp_path), Ray())
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [event for event in events if event["event"] == "lost"], "the runner saw the death"
    assert len({event["pid"] for event in events if event["event"] == "finished"}) > 1, "several workers took part"
    assert not results.failed
    assert support.contents(tmp_path) == expected
