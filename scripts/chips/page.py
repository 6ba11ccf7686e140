"""`python -m scripts.chips.page`: docs/chips.md's tables of stored trained networks; `--check` compares."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from scripts.chips.networks import NAMES
from scripts.chips.packaged import FILE as PACKAGED
from scripts.chips.trained import FOLDER
from scripts.evidence.run import ROOT
from scripts.page import keep
from scripts.readme import section

PAGE = ROOT / "docs" / "chips.md"
CHANGES = ("weights", "decays", "thresholds", "states", "all")
Run = dict[str, Any]


def stored() -> list[dict[str, Any]]:
    """What `scripts.chips.trained` wrote, in its order."""
    return [json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES]


def _mean(runs: list[Run], value: Callable[[Run], float]) -> float:
    return sum(value(run) for run in runs) / len(runs)


def accuracies(networks: list[dict[str, Any]]) -> str:
    """A line a network: accuracy in floats, fake-quantized and in integers, and its simulator's agreement."""
    lines = [
        "| network | chip | test | float % | fake-quantized % | integers % | simulator | numbers compared | differ |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|",
    ]
    for network in networks:
        runs = network["runs"]
        shown = [f"{100 * _mean(runs, lambda run, key=key: run['accuracy'][key]):.2f}" for key in _KINDS]
        numbers = sum(sum(run["oracle"]["numbers"].values()) for run in runs)
        differ = sum(sum(run["oracle"]["differ"].values()) for run in runs)
        about = f"{network['network']}: {network['about']}"
        images, simulator = runs[0]["images"]["test"], runs[0]["oracle"]["simulator"]
        cells = [about, network["hardware"], str(images), *shown, simulator, f"{numbers:,}", f"{differ:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_KINDS = ("float", "fake-quantized", "integer")


def drift(networks: list[dict[str, Any]]) -> str:
    """A line a change: drift over the noise floor, and what accuracy becomes, of each network."""
    names = [network["network"] for network in networks]
    lines = [f"| change | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for change in CHANGES:
        title = {"states": "states, on top of all others", "all": "all: the chip"}.get(change, f"{change} alone")
        lines.append(f"| {title} | {' | '.join(_drift(network['runs'], change) for network in networks)} |")
    floors = [f"{1000 * _mean(n['runs'], lambda run: run['steps']['all']['emd_weighted_floor']):.2f}" for n in networks]
    lines.append(f"| noise floor, EMD × 1000 | {' | '.join(floors)} |")
    return "\n".join(lines)


def _drift(runs: list[Run], change: str) -> str:
    if change not in runs[0]["steps"]:
        return "exact"

    def moved(run: Run) -> float:
        return run["steps"][change]["emd_weighted"]

    def against(run: Run) -> float:
        return moved(run) / run["steps"][change]["emd_weighted_floor"]

    accuracy = _mean(runs, lambda run: run["steps"][change]["accuracy"])
    return f"{1000 * _mean(runs, moved):.2f}; {_mean(runs, against):.2f}×; {100 * accuracy:.1f} %"


def cures(networks: list[dict[str, Any]]) -> str:
    """Of networks whose firing the chip changes: what does it, and other ways of lowering, by seed."""
    lines = ["| network | seed | layer | cause | rate: float, chip | accuracy: float, chip | other ways |", _RULE]
    for network in networks:
        for run in network["runs"]:
            found = run["finding"]
            if found is None:
                continue
            ways = [
                f"`{' '.join(f'{key}={value}' for key, value in cure['options'].items())}`: rate {cure['rate']:.3f}, "
                f"accuracy {100 * cure['accuracy']:.1f} %"
                for cure in found["cures"]
            ]
            rates = f"{found['float_rate']:.3f}, {found['chip_rate']:.3f}"
            scores = ", ".join(f"{100 * run['accuracy'][key]:.1f} %" for key in ("float", "integer"))
            about = [network["network"], str(run["seed"]), f"`{found['layer']}`", found["cause"], rates, scores]
            lines.append(f"| {' | '.join([*about, '; '.join(ways) or 'none is nearer'])} |")
    return "\n".join(lines)


_RULE = "|---|---:|---|---|---|---|---|"


def packaged() -> str:
    """The packaged network in integers of its own, layer by layer, and its C program."""
    found = json.loads(PACKAGED.read_text(encoding="utf-8"))
    lines = [
        "| layer | neuron-steps | differ from float32 | from float64 | begin here |",
        "|---|---:|---:|---:|---:|",
    ]
    layers = found["layers"]
    total = {key: sum(layer[key] for layer in layers.values()) for key in _COUNTED}
    for name, layer in (*((f"`{name}`", layer) for name, layer in layers.items()), ("all", total)):
        lines.append(f"| {name} | {' | '.join(f'{layer[key]:,}' for key in _COUNTED)} |")
    program = found["c_program"]
    lines += ["", f"C program against the integers: {program['differ']:,} differ. {program['about']}"]
    return "\n".join(lines)


_COUNTED = ("places", "differ", "beyond_float32", "begun")


def page(text: str) -> str:
    """The document with its tables."""
    networks = stored()
    for name, table in (("accuracy", accuracies), ("drift", drift), ("cures", cures)):
        text = section(f"chips-{name}", table(networks), text)
    return section("chips-packaged", packaged(), text)


if __name__ == "__main__":
    raise SystemExit(keep(PAGE, page(PAGE.read_text(encoding="utf-8")), "python -m scripts.chips.page"))
