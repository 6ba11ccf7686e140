"""The tables of docs/evidence.md, from what a run stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.coverage.network import about

EMD = "emd_layer_mean"


def section_text(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables, with how often was simulated and how sure that is.

    Parameters
    ----------
    stored
        Part -> what its file holds: "simulations" and "cells".
    """
    simulations = stored["noise"]["simulations"]
    error = 100 * (0.95 * 0.05 / simulations) ** 0.5
    said = (
        f"{simulations:,} simulations a cell, so a coverage of 95 % is known to ±{error:.1f} (one standard error). "
        "The first columns are of EMD, mean over layers, as n images show it; *true* is the least often that the range "
        "for true rates held the true EMD, over all n and all ways to combine layers; *lowest* is the measure that was "
        'held least often, of all measures of the whole network and all n. "Own noise": the chance of a spike is '
        "drawn for each network by itself; in all other scenarios it is common to both."
    )
    cells = {part: found["cells"] for part, found in stored.items()}
    scenarios = [cell for part, found in cells.items() if part.startswith("scenarios") for cell in found]
    parts = [said, _scenarios(scenarios), _measures(scenarios)]
    if "network" in cells:
        parts += [_network(), _scenarios(cells["network"], "packaged network, quantized by")]
    return "\n\n".join([*parts, _decisions(cells["noise"]), _checks(cells["check"])])


def _scenarios(cells: Sequence[Mapping[str, Any]], heading: str = "what the quantizer does") -> str:
    numbers = sorted({cell["images"] for cell in cells})
    lines = [
        f"| {heading} | {' | '.join(f'n = {n:,}' for n in numbers)} | true | lowest |",
        f"|---|{'---:|' * (len(numbers) + 1)}---|",
    ]
    for name in dict.fromkeys(cell["scenario"] for cell in cells):
        mine = [cell for cell in cells if cell["scenario"] == name]
        by_images = {cell["images"]: cell for cell in mine}
        shown = [_percent(by_images[n]["coverage"][EMD]) if n in by_images else "" for n in numbers]
        least, measure, images = min((value, key, c["images"]) for c in mine for key, value in c["coverage"].items())
        true = min(value for cell in mine for value in cell["of_true"].values())
        lines.append(
            f"| {name} | {' | '.join(shown)} | {_percent(true)} | {_percent(least)} `{measure}`, n = {images:,} |"
        )
    return "\n".join(lines)


def _measures(cells: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| measure | mean coverage | lowest of all cells | cells below 93 % |", "|---|---:|---:|---:|"]
    for key in dict.fromkeys(key for cell in cells for key in cell["coverage"]):
        found = [cell["coverage"][key] for cell in cells if key in cell["coverage"]]
        below = sum(value < 0.93 for value in found)
        lines.append(
            f"| `{key}` | {_percent(sum(found) / len(found))} | {_percent(min(found))} | {below} of {len(found)} |"
        )
    return "\n".join(lines)


def _network() -> str:
    return f"A real network: {about()}. They are the population, from which sets of n are drawn with replacement."


def _decisions(found: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "How often EMD is called more than noise: its interval of EMD ÷ noise floor lies above 1. Where it is no more "
        "than the floor that is nominally at most 2.5 %; one run of a control does not tell how runs differ.",
        "",
        "| the quantized network | chance | images | more than noise |",
        "|---|---|---:|---:|",
    ]
    for item in found:
        chance = "common" if item["common"] else "own"
        lines.append(f"| {item['name']} | {chance} | {item['images']:,} | {_percent(item['share'])} |")
    return "\n".join(lines)


def _checks(found: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "What `isofire check --max-drift 3` says:",
        "",
        "| the quantized network | images | EMD ÷ noise floor on most images | keeps | fails | undecided |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for item in found:
        # what was stored by isofire 0.1 says "holds"
        kept = item.get("keeps", item.get("holds"))
        ends = " | ".join(map(_percent, (kept, item["fails"], item["undecided"])))
        lines.append(f"| {item['name']} | {item['images']:,} | {item['ratio']:.1f} | {ends} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
