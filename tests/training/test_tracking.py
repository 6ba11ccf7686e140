"""The callback of docs/training.md gives a tracker numbers, by epoch and of a comparison."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import isofire
from isofire.models import pretrained
from isofire.training import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_callback_of_the_page_logs_numbers_alone() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Following a run")[2]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    baseline = pretrained("sew_resnet8-digits")
    data = isofire.data.load("digits", "train").first(32)
    logged: list[tuple[dict, int]] = []
    names = {
        "isofire": isofire, "Recipe": Recipe, "baseline": baseline, "model": copy.deepcopy(baseline), "data": data,
        "log": lambda numbers, step: logged.append((numbers, step)),
    }  # fmt: skip
    exec(compile(code, "docs/training.md", "exec"), names)
    (epoch, first), (row, last) = logged
    assert (first, last) == (1, 1)
    assert {"train_loss", "lr", "seconds"} <= set(epoch)
    assert {"accuracy", "emd_weighted", "mfr"} <= set(row)
    assert all(isinstance(value, int | float) for numbers in (epoch, row) for value in numbers.values())
