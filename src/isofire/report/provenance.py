"""How the numbers came about: versions, machine, commit, baselines, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from isofire.report.numbers import DASH, percent

_FIRST = ("date", "git", "isofire", "torch", "python", "device", "gpu", "cuda", "cpu", "platform", "threads", "kernels")


def environment_lines(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a sweep was made with, the important first."""
    keys = [key for key in _FIRST if key in environment] + [key for key in environment if key not in _FIRST]
    return [(key, _text(key, environment[key])) for key in keys if environment[key] is not None]


def baseline_lines(
    found: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]], config: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """The baselines of a plan; of one without a finished cell only what the sweep's file says of it is known."""
    asked = {str(item.get("name")): item for item in (config or {}).get("baselines") or [] if isinstance(item, Mapping)}
    return [_baseline(planned, known, asked.get(str(planned.get("name")), {})) for planned, known in found]


def failed_lines(failed: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Title, reason and attempts of each failed cell, as text."""
    return [
        {
            "title": str(item.get("title") or item.get("key")),
            "reason": f"{item.get('type')}: {item.get('reason')}",
            "attempts": str(item.get("attempts") or DASH),
        }
        for item in failed
    ]


def config_text(config: Any) -> str:
    """The sweep's configuration as JSON."""
    return json.dumps(config, indent=2, ensure_ascii=False)


def _baseline(planned: Mapping[str, Any], known: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> dict[str, str]:
    line = {
        "name": str(planned.get("name")),
        "seed": DASH if planned.get("seed") is None else str(planned["seed"]),
        "test": DASH,
        "valid": DASH,
        "epochs": DASH,
    }
    if known is None:
        return line | {"model": _own(asked), "data": DASH}
    accuracy = known.get("accuracy") or {}
    for split in ("test", "valid"):
        score = accuracy.get(split)
        if score:
            line[split] = f"{percent(score['accuracy'])} % (n = {score['n']:,})"
    history = known.get("history") or []
    return line | {
        "model": _own(asked) if known.get("model") is None else _short(known["model"]),
        "data": _short(known.get("data")),
        "epochs": str(len(history)) if history else DASH,
    }


def _own(asked: Mapping[str, Any]) -> str:
    """A network that the sweep did not build by itself: its builder, file or name, as its file gives them."""
    parts = [str(asked[key]) for key in ("builder", "pretrained", "file") if asked.get(key) is not None]
    return ", ".join(parts) or DASH


def _short(value: Any) -> str:
    """A model's or data set's name, with the settings that a mapping holds."""
    if isinstance(value, Mapping):
        parts = [str(value.get("builder") or value.get("name") or "")]
        parts += [f"{key}={item}" for key, item in value.items() if key not in ("builder", "name") and _is_plain(item)]
        return " ".join(part for part in parts if part)
    return DASH if value is None else str(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _text(key: str, value: Any) -> str:
    if key == "git" and isinstance(value, Mapping):
        return f"{value.get('commit')}{', with uncommitted changes' if value.get('dirty') else ''}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value) if isinstance(value, list | dict) else str(value)
