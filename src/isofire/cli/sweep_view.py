"""How a sweep is shown: a panel on a terminal while it runs, a line a cell elsewhere, and its table in the end."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from isofire.cli.progress import clock
from isofire.firing.evidence.kept import doubt_of
from isofire.study import text_table
from isofire.sweep import Plan, Results, State
from isofire.sweep.runner import time_left
from isofire.text_table import WIDTH, counted

# two lines each on a narrow screen
_SHOWN_ROWS = 6
_SHOWN_RUNNING = 4
_LINE_EVERY = 60.0


class SweepView:
    """A context whose calls show the state of a run on stderr."""

    def __init__(self, plan: Plan) -> None:
        self._console = Console(stderr=True)
        self._name, self._last, self._spoke, self._told = plan.sweep.name, "", time.perf_counter(), 0
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._plain(
            f"{plan.sweep.name}: {counted(len(plan.cells), 'cell')}, {counted(len(plan.baselines), 'baseline')}"
        )
        for group in plan.left_out:
            self._console.print(f"{group}: nothing is left by exclude", soft_wrap=True, markup=False, highlight=False)

    def __enter__(self) -> SweepView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, state: State) -> None:
        """Show a state."""
        for sentence in state.damaged[self._told :]:
            self._console.print(f"{sentence}; it is computed again", soft_wrap=True, markup=False, highlight=False)
        self._told = len(state.damaged)
        if self._live is not None:
            self._live.update(_panel(self._name, state, self._console.width), refresh=True)
            return
        quiet = time.perf_counter() - self._spoke
        if state.last != self._last:
            self._last = state.last
            self._plain(f"[{state.done + state.failed}/{state.total}] {state.last}{_left(state)}")
        elif quiet > _LINE_EVERY:
            self._plain(f"[{state.done + state.failed}/{state.total}] running {_running(state)}{_left(state)}")

    def _plain(self, text: str) -> None:
        self._spoke = time.perf_counter()
        if self._live is None:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def status_document(results: Results) -> dict[str, Any]:
    """For `--json`."""
    return {
        "name": results.plan.get("name"),
        "cells": len(results.plan["cells"]),
        "done": len(results.rows),
        "failed": [
            {key: record.get(key) for key in ("key", "title", "reason", "attempts")} for record in results.failed
        ],
        "damaged": [{"key": key, "reason": reason} for key, reason in results.damaged.items()],
        "pending": results.pending,
        "running": list(results.running),
        "seconds_left": _seconds_left(results),
        "rows": list(results.rows),
    }


def results_text(results: Results) -> str:
    """How far a sweep is, and its table so far."""
    running = results.running
    lines = [text_table(results.rows)] if results.rows else []
    lines += _doubts(results)
    lines += _failures(results)
    titles = {cell["key"]: cell["title"] for cell in results.plan["cells"]}
    lines += [f"damaged: {titles[key]}: {reason}" for key, reason in results.damaged.items()]
    lines += [f"running: {item['title']} (process {item['pid']} on {item['host']})" for item in running]
    left = _seconds_left(results)
    waiting = max(0, results.pending - len(running))
    tail = ""
    if left is not None:
        tail = f", about {clock(left)} left" + (f" ({3600 * results.pending / left:.0f} cells/h)" if left else "")
    lines.append(
        f"{counted(len(results.plan['cells']), 'cell')}: {len(results.rows)} done, {len(running)} running, "
        f"{len(results.failed)} failed, {waiting} waiting{tail}"
    )
    return "\n".join(lines)


def _doubts(results: Results) -> list[str]:
    """A line for each baseline that is no reference."""
    told = {str(row["baseline"]): doubt for row in results.rows if (doubt := doubt_of(row)) is not None}
    return [f"! baseline {name}: {doubt}" for name, doubt in told.items()]


def _failures(results: Results) -> list[str]:
    """A line for each reason: a baseline that failed takes all of its cells with it."""
    by_reason: dict[str, list[str]] = {}
    for record in results.failed:
        by_reason.setdefault(f"{record.get('type')}: {record.get('reason')}", []).append(str(record.get("title")))
    return [
        f"failed: {titles[0]}{f' and {len(titles) - 1} more' if len(titles) > 1 else ''}: {reason}"
        for reason, titles in by_reason.items()
    ]


def _seconds_left(results: Results) -> float | None:
    ended = {str(row["cell"]) for row in results.rows} | {str(record["key"]) for record in results.failed}
    waiting = [cell["mode"] for cell in results.plan["cells"] if cell["key"] not in ended]
    return time_left(waiting, results.rows, len(results.running)) if waiting else None


def _panel(name: str, state: State, width: int) -> RenderableType:
    bar = ProgressBar(total=max(1, state.total), completed=state.done + state.failed, width=40)
    head = Table.grid(padding=(0, 1))
    counts = Text(
        f"{state.done} done  {len(state.running)} running  {state.failed} failed  of {state.total}{_left(state)}"
    )
    head.add_row(Text(name, style="bold"), bar, counts)
    parts: list[RenderableType] = [head, Text(f"now: {_running(state)}", style="dim")]
    if state.rows:
        parts.append(Text(text_table(state.rows[-_SHOWN_ROWS:], min(width, WIDTH)), no_wrap=True, overflow="crop"))
    if "failed" in state.last:
        parts.append(Text(state.last, style="red"))
    return Group(*parts)


def _running(state: State) -> str:
    titles = state.running[:_SHOWN_RUNNING]
    more = len(state.running) - len(titles)
    text = "; ".join(titles) or "nothing"
    text += f" and {more} more" if more else ""
    return text + (f"; {state.elsewhere} in other runs" if state.elsewhere else "")


def _left(state: State) -> str:
    rate = "" if state.rate is None else f"  {state.rate:.0f} cells/h"
    return rate + ("" if not state.left else f"  {clock(state.left)} left")
