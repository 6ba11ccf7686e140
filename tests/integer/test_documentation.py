"""What docs/chips.md shows runs, and shows equal spikes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "chips.md"


def test_the_document_runs(capsys: Any) -> None:
    # how to come from snnTorch is shown, and run, elsewhere: tests/adapters/test_as_isofire.py
    first, second, third, *_ = re.findall(
        r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    exec(compile(first, "docs/chips.md", "exec"), {})
    names: dict[str, Any] = {}
    exec(compile(second, "docs/chips.md", "exec"), names)
    assert names["differences"](names["quantized"], names["integers"], [names["images"]]).total <= 3
    assert "agreement 1.0000" in capsys.readouterr().out
    names = {}
    exec(compile(third, "docs/chips.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "weights are rounded to codes of 8 bits" in shown
    assert "fan-out of a hidden neuron" in shown
    steps = names["steps"]
    assert set(steps.alone) == {"weights", "thresholds"}
    # what it learned in a few seconds, the chip does too
    assert steps.everything.accuracy_fp > 0.3
    assert steps.everything.agreement > 0.9
