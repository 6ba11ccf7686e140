"""What was chosen, beside what other rules would have chosen, and what came of each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from isofire.spec import QuantSpec
from isofire.study.allocation.budget import shown, title
from isofire.study.allocation.measure import MEASURE, Bits, Made, Option
from isofire.text_table import TableShown, TextTable


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network with bits of its own.

    Parameters
    ----------
    rule
        By what its bits were chosen.
    made
        It, on the test images.
    weight_bytes, state_bytes
        What its quantized layers keep.
    """

    rule: str
    made: Made
    weight_bytes: float
    state_bytes: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = self.made.comparison
        return {
            "rule": self.rule,
            "bits": {f"{name} {target}": bits for (target, name), bits in self.made.bits.items()},
            "weight_bytes": self.weight_bytes,
            "state_bytes": self.state_bytes,
            **{key: float(found.overall[key]) for key in (MEASURE, "paired_mae", "accuracy", "accuracy_fp")},
            "agreement": float(found.agreement),
            **self.made.cost,
        }


@dataclass(frozen=True, kw_only=True)
class Allocation(TableShown):
    """What was chosen, and what came of it.

    Parameters
    ----------
    chosen
        The network with the bits that were chosen, on the test images.
    expected
        What the choice was made by: "drift" and "accuracy_drop" as sums of what each layer does alone, with what is
        there before any; "synops" and "energy_uj" where they were limited.
    limits
        What had to be kept to.
    kept
        Whether the network keeps to each of them on the images that it was chosen on, as measured.
    others
        Beside it: equal bits everywhere, PTQ4SNN's rule.
    missing
        Rule -> why it is not among `others`.
    options
        All that was measured.
    """

    chosen: Candidate
    expected: Mapping[str, float]
    limits: Mapping[str, float]
    kept: Mapping[str, bool]
    others: tuple[Candidate, ...]
    missing: Mapping[str, str]
    options: tuple[Option, ...]

    @property
    def spec(self) -> QuantSpec:
        """A rule for every layer."""
        return self.chosen.made.spec

    @property
    def bits(self) -> Bits:
        """(target, module) -> bits."""
        return self.chosen.made.bits

    def table(self, width: int | None = None) -> str:
        """Plain text: a line a layer, then the network beside those of other rules."""
        layers = [[f"{name} {target}", f"{bits}"] for (target, name), bits in self.bits.items()]
        found = self.chosen.made.comparison
        rows = [_line(item) for item in (self.chosen, *self.others)]
        titles = ["chosen by", "weights KiB", "states KiB", "EMD", "accuracy", "agreement"]
        titles += [_TITLES[key] for key in self.chosen.made.cost]
        lines = [
            TextTable(["quantizer", "bits"], layers).text(width),
            "",
            *([] if found.doubt is None else textwrap.wrap(f"! baseline {found.doubt}", 100, subsequent_indent="    ")),
            f"n = {found.n_images:,} images, T = {found.T}; full precision: accuracy {found.accuracy_fp:.1%}",
            TextTable(titles, rows).text(width),
            "",
            f"expected EMD, the sum of what each layer does alone: {self.expected['drift']:.5f}",
            *(f"{title(name)} at most {shown(name, limit)}: {'kept' if self.kept[name] else 'NOT kept'}"
              for name, limit in self.limits.items()),
            *(f"{rule}: {reason}" for rule, reason in self.missing.items()),
        ]  # fmt: skip
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "spec": self.spec.to_dict(),
            "bits": {f"{name} {target}": bits for (target, name), bits in self.bits.items()},
            "limits": dict(self.limits),
            "kept": dict(self.kept),
            "expected": dict(self.expected),
            "measured": self.chosen.to_dict(),
            "others": [item.to_dict() for item in self.others],
            "missing": dict(self.missing),
            "options": [asdict(option) for option in self.options],
        }


_TITLES = {"synops": "SynOps", "energy_uj": "energy uJ"}


def _line(item: Candidate) -> list[str]:
    found = item.made.comparison
    return [
        item.rule,
        f"{item.weight_bytes / 1024:,.2f}",
        f"{item.state_bytes / 1024:,.2f}",
        f"{found.overall[MEASURE]:.5f}",
        f"{found.accuracy:.1%}",
        f"{found.agreement:.1%}",
        *(f"{value:,.0f}" if key == "synops" else f"{value:,.4g}" for key, value in item.made.cost.items()),
    ]
