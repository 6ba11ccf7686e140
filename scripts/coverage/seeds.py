"""How often the interval over seeds and images holds the mean over all of both: `python -m scripts.coverage.seeds`.

Settings of a sweep in units of the standard error that images leave; the table goes into docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.seed_spread import over_seeds_and_images, seed_spread
from isofire.firing.evidence.seeds import over_seeds
from isofire.firing.evidence.student import LEVEL, z_value

PAGE = Path("docs/evidence.md")
START, END = "<!-- seeds -->", "<!-- /seeds -->"
SETTINGS = 12
SCENARIOS: dict[str, tuple[float, float, float]] = {
    "seeds change nothing": (0.0, 0.0, 0.0),
    "seeds change a third of what images do": (0.3, 0.0, 0.0),
    "as much": (1.0, 0.0, 0.0),
    "three times as much": (3.0, 0.0, 0.0),
    "as much, some settings twice, some half": (1.0, 0.7, 0.0),
    "a third, one setting in ten diverges": (0.3, 0.3, 0.1),
}
"""Standard deviation over seeds, that of its logarithm between settings, and the share of settings that do 20 times as
much."""

_Rule = Callable[[list[list[Interval]]], list[Interval]]


def pooled(settings: list[list[Interval]]) -> list[Interval]:
    """The rule."""
    common = seed_spread(settings)
    return [over_seeds_and_images(runs, common) for runs in settings]


def longer(settings: list[list[Interval]]) -> list[Interval]:
    """For each setting Student's t of its own seeds, or the interval over images where that is longer."""
    found = []
    for runs in settings:
        seeds = over_seeds([run.estimate for run in runs])
        half = max(seeds.half_width, runs[0].half_width)
        found.append(replace(seeds, low=seeds.estimate - half, high=seeds.estimate + half))
    return found


def coverage(scenario: str, seeds: int, common: bool, draws: int, rule: _Rule = pooled) -> tuple[float, float]:
    """Share of intervals that hold the truth, 0, and their mean half in units of half an interval over images.

    Parameters
    ----------
    common
        Whether what other images would change is the same for all seeds of a setting, or drawn for each.
    """
    spread, unlike, odd = SCENARIOS[scenario]
    random, half = np.random.default_rng(0), z_value(LEVEL)
    held, lengths = [], []
    for _ in range(draws):
        sizes = spread * np.exp(unlike * random.standard_normal(SETTINGS))
        diverged = random.random(SETTINGS) < odd
        sizes = np.where(diverged, 20 * np.maximum(sizes, 1), sizes)
        images = random.standard_normal((SETTINGS, 1 if common else seeds))
        values = sizes[:, None] * random.standard_normal((SETTINGS, seeds)) + images
        runs = [[_run(float(value), half) for value in row] for row in values]
        for found, out in zip(rule(runs), diverged, strict=True):
            held.append(found.low <= 0 <= found.high)
            if not out:
                lengths.append((found.high - found.low) / 2 / half)
    return float(np.mean(held)), float(np.mean(lengths))


def table(draws: int) -> str:
    """As Markdown."""
    lines = [
        "| seeds of a setting | seeds | held, % | length | longer of two: held, % | length |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in SCENARIOS:
        for seeds in (2, 3, 5):
            shown = []
            for rule in (pooled, longer):
                both = [coverage(name, seeds, common, draws, rule) for common in (True, False)]
                shown += [f"{100 * min(h for h, _ in both):.1f}", f"{max(size for _, size in both):.1f}"]
            lines.append(f"| {name} | {seeds} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _run(value: float, half: float) -> Interval:
    return Interval(estimate=value, low=value - half, high=value + half, level=LEVEL, error=1.0)


if __name__ == "__main__":
    text = PAGE.read_text()
    head, tail = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(f"{head}{START}\n{table(400)}\n{END}{tail}")
