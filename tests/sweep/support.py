"""What the tests of sweeps share; also the program that the kill test starts and kills."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from isofire.sweep import Plan, Results, make_plan, read_sweep, run_sweep
from isofire.sweep.executors import Processes
from isofire.sweep.store import Store, read_json
from isofire.sweep.task import Outcome, Task
from isofire.sweep.work import perform

TINY = Path(__file__).with_name("tiny.toml")


class Inline:
    """An executor that does each task at once, in this process."""

    def __init__(self) -> None:
        self.ended: list[tuple[Task, Outcome]] = []
        self.given: list[str] = []
        self.closed = False

    @property
    def free(self) -> int:
        return 1 - len(self.ended)

    def submit(self, task: Task) -> None:
        # as it would travel
        self.given.append(task.key)
        self.ended.append((task, self.outcome(Task.decode(task.encode()))))

    def outcome(self, task: Task) -> Outcome:
        return perform(task)

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        self.closed = True


def plan_of(folder: Path, *settings: str, text: str | None = None) -> Plan:
    """The tiny sweep, changed by settings such as "seeds=[0]"."""
    file = TINY
    if text is not None:
        file = folder.parent / f"{folder.name}.toml"
        file.write_text(text)
    return make_plan(read_sweep(file, settings), folder)


def run_inline(folder: Path, *settings: str, **options: Any) -> tuple[Results, Inline]:
    executor = Inline()
    return run_sweep(plan_of(folder, *settings), str(folder), executor, **options), executor


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """All of a sweep's finished cells that must not depend on how it was run; times and dates are left out."""
    store = Store(folder)
    found = {}
    for row in Results.open(folder).rows:
        key = row["cell"]
        assert store.check("cells", key)
        place = store.path("cells", key)
        files = read_json(place / "manifest.json")["files"]
        found[key] = {
            # text, since NaN is not equal to itself
            "row": repr({name: value for name, value in row.items() if name != "seconds"}),
            "files": {name: files[name]["sha256"] for name in ("counts.safetensors", "comparison.json")},
            "distributions": read_json(place / "distributions.json"),
            "weights": {name: value.tolist() for name, value in load_file(place / "model.safetensors").items()},
        }
    return found


def serve() -> None:
    """For every folder on stdin, run the tiny sweep in its own process group; print the group and then the status."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            folder = Path(line.strip())
            run_sweep(plan_of(folder), str(folder), Processes(2, start="fork"))
            os._exit(0)
        # until we wait for it its number is its own, so that whoever kills the group hits no other
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
