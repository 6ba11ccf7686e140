"""`python -m scripts.look_ups`: the table of docs/fast.md from what was counted; `--check` compares."""

from __future__ import annotations

import json

from scripts.evidence.run import ROOT
from scripts.look_ups.count import FILE
from scripts.page import keep
from scripts.readme import section

PAGE = ROOT / "docs" / "fast.md"


def table() -> str:
    """A line a setting."""
    lines = [
        "| | images | neuron-steps | differ from the definition | differ from the fake-quantized network | in images | other class |",  # noqa: E501
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in json.loads(FILE.read_text(encoding="utf-8"))["rows"]:
        first = f" ({row['first_layer']} in the first layer)" if row["first_layer"] else ""
        lines.append(
            f"| {row['name']} | {row['images']:,} | {row['neuron_steps']:,} | {row['definition']:,} | "
            f"{row['float32']:,}{first} | {row['in_images']:,} | {row['classes']:,} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    text = section("look-ups", table(), PAGE.read_text(encoding="utf-8"))
    raise SystemExit(keep(PAGE, text, "python -m scripts.look_ups"))
