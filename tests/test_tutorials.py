"""Every tutorial runs from its first block to its last, in a folder of its own, from what comes with the package."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from isofire.cli import main

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"


def blocks(page: Path, after: str) -> list[tuple[str, str]]:
    text = page.read_text(encoding="utf-8")
    return re.findall(r"```(python|sh)\n(.*?)```", text[text.index(after) :], re.DOTALL)


def run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str = "# ") -> dict:
    """Run Python and shell blocks of a page in their order, those behind a heading; commands run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.syspath_prepend(str(tmp_path))
    # workers of a sweep find nets.py by it
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    names: dict = {"__name__": "tutorial"}
    for kind, text in blocks(FOLDER / name, after):
        if kind == "python":
            exec(compile(text, name, "exec", dont_inherit=True), names)
            continue
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "isofire", line
            assert main(words[1:]) == 0, line
    return names


def test_which_bits(tmp_path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    names = run("which-bits.md", tmp_path, monkeypatch)
    folder = tmp_path / "which-bits"
    assert len(names["rows"]) == 9
    assert {"report.html", "report.tex", "report-scatter.pdf", "report.csv"} <= {path.name for path in folder.iterdir()}
    assert r"\toprule" in (folder / "report.tex").read_text()
    assert (folder / "report-scatter.pdf").read_bytes().startswith(b"%PDF")


def test_integers(tmp_path, monkeypatch) -> None:
    # what comes before needs snnTorch and a C compiler: tests/adapters/test_as_isofire.py
    names = run("integers.md", tmp_path, monkeypatch, "## A convolutional network")
    assert names["integers"] is not None
    assert (tmp_path / "c-program").is_dir()


def test_own_loop(tmp_path, monkeypatch) -> None:
    pytest.importorskip("torchmetrics")
    from isofire.quantizers.registry import MEMBRANES, WEIGHTS

    try:
        names = run("own-loop.md", tmp_path, monkeypatch)
    finally:
        WEIGHTS.unregister("powers")
        WEIGHTS.unregister("binary")
        MEMBRANES.unregister("fine")
    weight, full = (names[name].get_submodule("stages.0.0.conv1").weight for name in ("binary", "model"))
    assert torch.equal(weight[3].abs().unique(), full[3].abs().mean().reshape(1))
    levels = names["fine"].get_submodule("stages.0.0.sn1").membrane.quantizer.levels()[0]
    assert levels[[0, 8, 12, 15]].tolist() == [-1, 0, 0.75, 63 / 64]
    # the metric in the loop and the comparison are one number
    assert float(names["found"]["RateEMD"]) == pytest.approx(names["result"].overall["emd_weighted"])


def test_every_tutorial_has_a_test() -> None:
    assert {page.name for page in FOLDER.glob("*.md")} == {"which-bits.md", "integers.md", "own-loop.md"}
