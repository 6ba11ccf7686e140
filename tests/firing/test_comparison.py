"""What a comparison hands out: the table, dict, JSON, row and figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from isofire.errors import ModelError, OutputError, SpecError
from isofire.firing import Comparison, SpikeCounts
from isofire.firing.comparison import EMD_NOISE

OVERALL = {
    "accuracy", "accuracy_fp", "agreement", "mfr", "mfr_fp", "dead_00", "dead_01", "dead_05", "dead_00_fp",
    "dead_01_fp", "dead_05_fp", "emd_layer_mean", "emd_weighted", "emd_pooled", "emd_max", "paired_mae", "shift",
    "shape", "reshuffle", "spearman", "n_images", "T",
}  # fmt: skip
LAYER = {
    "layer", "neurons", "mfr", "mfr_fp", "dead_00", "dead_01", "dead_05", "dead_00_fp", "dead_01_fp", "dead_05_fp",
    "emd", "shift", "shape", "reshuffle", "paired_mae", "spearman", "transitions",
}  # fmt: skip


def make(layers: int = 3, silent: bool = False) -> Comparison:
    rng = np.random.default_rng(0)

    def recording(scale: float) -> SpikeCounts:
        names = ["stem.sn", *(f"layer{i}.0.some_very_long_block_name.sn{i}" for i in range(1, layers))]
        draws = {name: rng.binomial(200, rng.beta(0.5, 4, (1, 4, 5, 5)) * scale) for name in names}
        counts = {name: torch.tensor(draw, dtype=torch.int32) for name, draw in draws.items()}
        if silent:
            counts["stem.sn"] = torch.zeros_like(counts["stem.sn"])
        return SpikeCounts(counts, torch.tensor([12_345]), 4)

    return Comparison.of(recording(1), recording(0.7), accuracy=0.5, accuracy_fp=0.625, agreement=0.75)


def test_keys_are_these() -> None:
    result = make()
    assert set(result.overall) == OVERALL
    assert all(set(layer) == LAYER for layer in result.to_dict()["layers"])
    assert [result.overall[key] for key in ("accuracy", "accuracy_fp", "agreement")] == [0.5, 0.625, 0.75]
    assert (result.overall["n_images"], result.overall["T"]) == (12_345, 4)


@pytest.mark.parametrize("layers", [1, 3, 20])
def test_the_table_fits_and_shows_every_layer(layers: int) -> None:
    result = make(layers)
    lines = result.table().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("✗ accuracy fails: lost 12.50 points")
    assert any("n = 12,345 images, T = 4" in line for line in lines)
    rows = [line for line in lines if line.startswith(("stem", "layer1", "layer2"))]
    assert len([line for line in lines if ".sn" in line or "me.sn" in line]) == layers
    assert rows[0].split()[1] == "100"
    assert f"{result.layers[0].emd:.5f}" in rows[0]
    assert any(line.startswith("EMD: neuron-weighted " + f"{result.overall['emd_weighted']:.5f}") for line in lines)
    assert "at least 5 blocks, got 1" in " ".join(lines)


def test_json_is_strict_and_readable(tmp_path: Path) -> None:
    result = make(silent=True)
    text = result.to_json(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_text() == text

    def refuse(name: str) -> float:
        raise AssertionError(name)

    parsed = json.loads(text, parse_constant=refuse)
    assert parsed["layers"][0]["spearman"] is None
    assert parsed["layers"][1]["transitions"] == result.layers[1].transitions._asdict()
    assert parsed["overall"]["emd_max"] == result.overall["emd_max"]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        make().to_json(tmp_path / "file" / "result.json")


def test_a_row_is_labels_and_values() -> None:
    result = make()
    row = result.row(method="lq", bits=2)
    assert list(row)[:2] == ["method", "bits"]
    noise = dict.fromkeys(EMD_NOISE) | result.kept().columns()
    noise |= dict.fromkeys(
        ("firing_left_out", "synops", "synops_fp", "synops_bound", "synops_left_out", "synops_by_input")
    )
    assert row == {"method": "lq", "bits": 2, **result.overall, **noise}
    with pytest.raises(SpecError, match="got 'shape'"):
        result.row(shape="round")


def test_recordings_must_match() -> None:
    with pytest.raises(ModelError, match="is only in the second"):
        Comparison.of(make(2).baseline, make(3).quantized, accuracy=0, accuracy_fp=0, agreement=0)


@pytest.mark.parametrize("layers", [1, 3, 20])
def test_the_figure_shows_every_layer(layers: int, tmp_path: Path) -> None:
    result = make(layers)
    figure = result.figure()
    figure.savefig(tmp_path / "figure.png")
    panels, bars = [axis for axis in figure.axes if axis.get_visible() and axis.lines], figure.axes[-1]
    assert len(panels) == layers
    # baseline, quantized, dead cut; the drawn distribution functions are right at both ends and at the cut
    rates = result.quantized.rates("stem.sn").numpy()
    curve = panels[0].lines[1]
    middle = len(curve.get_xdata()) // 2
    at = np.asarray(curve.get_xdata())[middle]
    assert np.asarray(curve.get_ydata())[middle] == pytest.approx((rates <= at).mean())
    assert panels[0].lines[2].get_xdata()[0] == 0.05
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == pytest.approx([d.shift for d in result.layers] + [d.shape for d in result.layers])
    assert "spikes per neuron per step" in bars.get_xlabel()
    assert "n = 12,345 images" in figure.get_suptitle()
    assert "pyplot" not in str(type(figure.canvas))


def test_equal_networks_can_be_drawn(tmp_path: Path) -> None:
    record = make(silent=True).baseline
    same = Comparison.of(record, record, accuracy=1, accuracy_fp=1, agreement=1)
    figure = same.figure()
    figure.savefig(tmp_path / "figure.png")
    assert {bar.get_width() for bar in figure.axes[-1].patches} == {0.0}
    for panel in [axis for axis in figure.axes if axis.get_visible() and axis.lines]:
        before, after = panel.lines[:2]
        assert np.array_equal(before.get_ydata(), after.get_ydata())


def test_without_matplotlib_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OutputError, match="pip install"):
        make().figure()


def test_matplotlib_is_only_loaded_for_a_figure(counts: Callable[..., SpikeCounts]) -> None:
    import subprocess

    code = "import sys, isofire.firing; print('matplotlib' in sys.modules, 'scipy.stats' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
