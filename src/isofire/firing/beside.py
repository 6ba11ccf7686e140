"""Several networks beside each other: each against the first, and against the one before it, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from isofire.batches import Data
from isofire.errors import SpecError
from isofire.firing.compare import observe_together, require_order
from isofire.firing.comparison import Comparison
from isofire.firing.evidence.kept import words_of
from isofire.firing.evidence.noise_floor import NoiseFloor
from isofire.firing.evidence.outcome import HEADLINE, MARKS, Margins
from isofire.firing.observation import Observation
from isofire.firing.table import left_out_lines
from isofire.text_table import TableShown, TextTable


@dataclass(frozen=True, eq=False)
class Beside(TableShown):
    """Networks on the same images, such as one in full precision, with fake-quantized weights, and in integers.

    Parameters
    ----------
    pairs
        (baseline, network) -> comparison: every network against the first, then each after the second against the one
        before it, which is what that step alone does.
    """

    pairs: dict[tuple[str, str], Comparison]

    @classmethod
    def of(cls, seen: Mapping[str, Observation], *, floor: NoiseFloor | None = None) -> Beside:
        """Of what the networks did on the same images, see `isofire.firing.observe`; as `compare_several`."""
        pairs = _pairs(list(seen))
        return cls({pair: Comparison.observed(seen[pair[0]], seen[pair[1]], floor=floor) for pair in pairs})

    def rows(self, margins: Margins | None = None) -> list[dict[str, Any]]:
        """`Comparison.row` of every pair, with "network" and "against"."""
        return [found.row(margins, network=name, against=first) for (first, name), found in self.pairs.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what every `Comparison` says, pair by pair."""
        return {
            "pairs": [
                {"network": name, "against": first, **found.to_dict()} for (first, name), found in self.pairs.items()
            ]
        }

    def table(self, width: int | None = None, margins: Margins | None = None) -> str:
        """A line a pair: accuracy, drift (EMD) and its multiple of the noise floor, mean rate, and what is kept."""
        start = next(iter(self.pairs.values()))
        first = next(iter(self.pairs))[0]
        lines = [[first, "", f"{100 * start.accuracy_fp:.2f}", "", "", "", f"{start.overall['mfr_fp']:.4f}", ""]]
        for row in self.rows(margins):
            ratio, low, high = (row[f"drift_over_floor{end}"] for end in ("", "_low", "_high"))
            span = "" if low is None or high is None else f" ({low:.1f}-{high:.1f})"
            lines.append([
                row["network"], row["against"], f"{100 * row['accuracy']:.2f}", f"{100 * row['agreement']:.1f}",
                f"{row[HEADLINE]:.5f}", "-" if ratio is None else f"{ratio:.1f}{span}", f"{row['mfr']:.4f}",
                f"{MARKS[row['kept']]} {words_of(row)}",
            ])  # fmt: skip
        titles = ["network", "against", "acc %", "agree %", "EMD", "÷floor", "rate", "kept"]
        text = TextTable(titles, lines, texts=frozenset({0, 1, 7}), rules=frozenset({1, len(lines)})).text(width)
        doubt = "" if start.doubt is None else f"! baseline {start.doubt}\n"
        floor = "" if start.evidence is None else f"; floor: {start.evidence.floor.about}"
        unknown = left_out_lines(
            {item.name: item for found in self.pairs.values() for item in found.unknown_neurons}.values()
        )
        return "\n".join([f"{doubt}n = {start.n_images:,} images, T = {start.T}{floor}", *unknown, "", text])


def compare_several(
    networks: Mapping[str, nn.Module],
    data: Data,
    *,
    max_images: int | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = False,
    floor: NoiseFloor | None = None,
) -> Beside:
    """`compare` for a chain of networks, in one pass over the images.

    Parameters
    ----------
    networks
        Name -> network, two at least: the baseline, then what was made of it, step by step.
    data, max_images, batch_size, device, progress
        As in `compare`.
    floor
        What all drift is shown beside; None takes each pair's baseline on other images.

    Raises
    ------
    SpecError
        If there are fewer than two networks.
    ModelError, DataError
        As `compare`.

    Examples
    --------
    >>> networks = {"full precision": model, "fake-quantized": quantized, "integers": integers}  # doctest: +SKIP
    >>> print(compare_several(networks, test_set).table())  # doctest: +SKIP
    """
    for first, name in _pairs(list(networks)):
        require_order(networks[first], networks[name], (first, name))
    seen = observe_together(
        list(networks.values()), data, max_images=max_images, batch_size=batch_size, device=device, progress=progress,
        probe=True,
    )  # fmt: skip
    return Beside.of(dict(zip(networks, seen, strict=True)), floor=floor)


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    if len(names) < 2:
        raise SpecError(f"a comparison needs two networks at least, got {len(names)}")
    return [(names[0], name) for name in names[1:]] + list(pairwise(names[1:]))
