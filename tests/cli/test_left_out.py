"""Layers of kinds that no method quantizes are told of by `isofire quantize`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CODE = """
import torch
from torch import nn
from isofire.neurons import LIF, PerStep, Repeat

def build():
    torch.manual_seed(3)
    return nn.Sequential(
        Repeat(2),
        PerStep(nn.Conv2d(1, 2, 3, bias=False)), LIF(),
        PerStep(nn.ConvTranspose2d(2, 2, 2, bias=False)), LIF(),
        PerStep(nn.Flatten(), nn.Linear(98, 4, bias=False)),
    )

def images(split):
    return [(torch.rand(24, 1, 8, 8), torch.arange(24) % 4)]
"""
SPEC = '[quant]\nfirst_layer = "quantize"\nlast_layer = "quantize"\n[quant.weights]\nmethod = "uniform"\nbits = 2\n'


def test_they_are_named_with_their_share(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_nets.py").write_text(CODE)
    (tmp_path / "spec.toml").write_text(SPEC)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ("quantize", "--model", "left_nets:build", "--data", "left_nets:images", "-c", "spec.toml")
    try:
        shown = run(*asked, "-o", "q")
        found = json.loads(run(*asked, "-o", "again", "--json").out)["not_quantized"]
    finally:
        sys.modules.pop("left_nets", None)
    assert shown.code == 0, shown.err
    # 18 + 392 of 18 + 16 + 392 weights are quantized
    assert [item["name"].split(".")[0] for item in found] == ["3"]
    assert found[0]["share"] == pytest.approx(16 / 426)
    (line,) = [line for line in shown.out.splitlines() if line.startswith("NOT QUANTIZED")]
    assert "ConvTranspose2d" in line
    assert "3.8%" in line
