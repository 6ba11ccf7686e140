"""What the page says in numbers that no single cell holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from scripts.findings.cells import Cells, Row, Setting, emd, rank_correlation

from isofire.study import read_rows

CUTS = {"0": "00", "0.01": "01", "0.05": "05"}


def dead_change(row: Row, cut: str) -> float:
    """Change of the dead share at a cut ("00", "01", "05"), in points."""
    return 100 * (row[f"dead_{cut}"] - row[f"dead_{cut}_fp"])


def dead_against_emd(rows: Sequence[Row], cut: str) -> tuple[float, int, int]:
    """Spearman's correlation of |dead change| with EMD, and how many cells lost and gained firing neurons."""
    changes = [dead_change(row, cut) for row in rows]
    correlation = rank_correlation(map(abs, changes), map(emd, rows))
    return correlation, sum(change > 0 for change in changes), sum(change < 0 for change in changes)


def at_equal_accuracy(rows: Sequence[Row]) -> list[Row]:
    """Cells that lose no more than one standard error of accuracy, by EMD."""
    kept = [row for row in rows if 100 * (row["accuracy_fp"] - row["accuracy"]) <= standard_error(row)]
    return sorted(kept, key=emd)


def worst_pair(cells: Cells, first: Setting, second: Setting, mode: str) -> tuple[float, float]:
    """Largest difference in EMD, relative to the larger, and in accuracy (points) of two settings at equal bits."""
    left, right = cells.of(first, mode), cells.of(second, mode)
    shared = [bits for bits in left if bits in right]
    drift = max(abs(emd(left[b]) - emd(right[b])) / max(emd(left[b]), emd(right[b])) for b in shared)
    accuracy = max(abs(left[b]["accuracy"] - right[b]["accuracy"]) for b in shared)
    return drift, 100 * accuracy


def shift_share(rows: Sequence[Row]) -> tuple[float, float]:
    """Least and greatest share of the neuron-weighted EMD that is a shift of the mean rate."""
    shares = [row["shift"] / (row["shift"] + row["shape"]) for row in rows if row["shift"] + row["shape"] > 0]
    return min(shares), max(shares)


def standard_error(row: Row) -> float:
    """Of the accuracy, in points."""
    return 100 * math.sqrt(row["accuracy"] * (1 - row["accuracy"]) / row["n_images"])


def require_equal(cells: Cells, setting: Setting, bits: Sequence[int], mode: str) -> None:
    """Stop where prose says that cells are one network and their drifts differ by more than rounding.

    Raises
    ------
    SystemExit
        If they do.
    """
    drifts = [emd(cells.get(setting, width, mode)) for width in bits]
    if max(drifts) > (1 + 1e-3) * min(drifts):
        raise SystemExit(f"{setting.name} of {list(bits)} bits is said to be one network, but drifts by {drifts}")


def crossing(cells: Cells, unsigned: Setting, signed: Setting, mode: str) -> list[float]:
    """Bits at which the signed range drifts less than the unsigned one."""
    left, right = cells.of(unsigned, mode), cells.of(signed, mode)
    return [bits for bits in left if bits in right and emd(right[bits]) < emd(left[bits])]


def replicates(path: Path) -> list[tuple[str, str, int, float, float, float, float]]:
    """Name, mode, n, mean and standard deviation of EMD, mean and standard deviation of accuracy (%) over seeds."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in read_rows(path):
        name = str(row["method"]) if row["target"] == "none" else _name(row)
        groups[name, row["mode"]].append(row)
    found = []
    for (name, mode), rows in groups.items():
        drift, accuracy = [emd(row) for row in rows], [100 * row["accuracy"] for row in rows]
        found.append((name, mode, len(rows), mean(drift), stdev(drift), mean(accuracy), stdev(accuracy)))
    return found


def _name(row: Row) -> str:
    return f"{row['target']} {row['method']} {row['range']} {row['placement'] or ''} {row['bits']:g} bit".replace(
        "  ", " "
    )
