"""The pages about other libraries: their code runs, and its last ten lines are the same on all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from isofire.adapters import adapter_of, unregister

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "adapters").glob("*.md"))
NEEDS = {"spikingjelly": "spikingjelly.activation_based.neuron", "norse": "norse.torch", "sinabs": "sinabs.layers"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_ten_lines_are_the_same_on_all_pages() -> None:
    assert {page.stem for page in PAGES} == {"nir", "norse", "sinabs", "snntorch", "spikingjelly"}
    ten = {blocks(page)[-1] for page in PAGES}
    assert len(ten) == 1
    assert len([line for line in ten.pop().splitlines() if line]) == 10


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip(NEEDS.get(page.stem, page.stem), reason=f"{page.stem} is not installed", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for code in blocks(page):
        exec(compile(code, str(page), "exec"), names)
    out = capsys.readouterr().out
    assert "EMD" in out
    assert "lsq" in out
    counts = names["recorder"].counts
    assert counts.n_images == 100
    assert counts.total() > 0


def test_a_neuron_of_ones_own_as_the_page_registers_it() -> None:
    import isofire

    names: dict[str, Any] = {}
    exec(compile(blocks(DOCS / "adapters.md")[0], "docs/adapters.md", "exec"), names)
    try:
        neuron = names["MyLIF"]()
        adapter = adapter_of(neuron)
        assert adapter is not None
        x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0)) * 2
        for placement in ("pre_fire", "post_reset"):
            own = isofire.neurons.LIF(2.0, decay_input=False, v_reset=None)
            own.membrane = _membrane(placement)
            adapter.attach(neuron, _membrane(placement))
            assert torch.equal(neuron(x), own(x))
        spec = isofire.QuantSpec(membrane={"bits": 3, "range": [-1, 1.5]})
        fresh = torch.nn.Sequential(names["MyLIF"]())
        assert isofire.FiringRecorder(isofire.quantize_(fresh, spec)) is not None
    finally:
        unregister(names["MyLIF"])
    assert adapter_of(names["MyLIF"]()) is None


def _membrane(placement: Any) -> Any:
    from isofire.neurons import MembraneQuantizer
    from isofire.quantizers import Uniform

    return MembraneQuantizer(Uniform(3, range=(-1.0, 1.5)), placement)
