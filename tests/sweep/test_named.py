"""A sweep over a network and data of the user's own code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from isofire.cli.app import main
from isofire.errors import DataError, OutputError, SpecError
from isofire.sweep import Results, make_plan, read_sweep, run_sweep
from isofire.sweep.store import Store

TINY = str(Path(__file__).with_name("tiny.toml"))
FEW = (
    "seeds=[0]", 'cells=[{mode=["ptq"]}, {mode=["ptq", "qat"], bits=[3], weights={method="lsq"}, '
    'membrane={range=[-1, 1], placement="pre_fire"}, spec={last_layer="quantize"}}]',
)  # fmt: skip
NETS = """
import isofire
import torch
from torch import nn
from {neurons}

def build():
    torch.manual_seed(0)
    return {net}

def load(split):
    return isofire.data.load("digits", split).first(100)

def pair(split):
    data = load(split)
    return data.normalize(data.images), data.labels

def batches(split):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*pair(split)), batch_size=30)

def samples(split):
    return torch.utils.data.TensorDataset(*pair(split))

def shuffled(split):
    return torch.utils.data.DataLoader(samples(split), batch_size=30, shuffle=True)
"""
OWN = (
    "isofire.neurons import LIF, PerStep, Repeat",
    "nn.Sequential(Repeat(2), PerStep(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), LIF(), PerStep(nn.Flatten(), "
    "nn.Linear(144, 10)))",
)
SPIKINGJELLY = (
    "spikingjelly.activation_based import layer, neuron\nfrom isofire.neurons import Repeat",
    "nn.Sequential(Repeat(2), layer.Conv2d(1, 4, 3, step_mode='m'), neuron.LIFNode(step_mode='m'), "
    "layer.Flatten(step_mode='m'), layer.Linear(144, 10, step_mode='m'))",
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Makes nets.py in the working directory."""
    monkeypatch.chdir(tmp_path)

    def made(neurons: str, net: str) -> None:
        (tmp_path / "nets.py").write_text(NETS.format(neurons=neurons, net=net))
        sys.modules.pop("nets", None)
        importlib.invalidate_caches()

    yield made
    sys.modules.pop("nets", None)


@pytest.mark.parametrize("kind", [OWN, SPIKINGJELLY], ids=["isofire", "spikingjelly"])
def test_cells_of_such_a_network(write, support, tmp_path, kind) -> None:
    if kind is SPIKINGJELLY:
        pytest.importorskip("spikingjelly")
    write(*kind)
    folder = tmp_path / "out"
    plan = make_plan(read_sweep(TINY, FEW, builder="nets:build", data={"name": "nets:load"}), folder)
    results = run_sweep(plan, str(folder), support.Inline())
    assert [record["reason"] for record in results.failed] == []
    assert [row["mode"] for row in results.rows] == ["ptq", "ptq", "qat"]
    assert all(row["emd_layer_mean"] > 0 for row in results.rows[1:])
    assert {row["data"] for row in results.rows} == {"digits"}
    again = support.Inline()
    run_sweep(
        make_plan(read_sweep(TINY, FEW, builder="nets:build", data={"name": "nets:load"}), folder), str(folder), again
    )
    assert again.given == []
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert Results.open(folder).distributions(results.rows[1]["cell"])


def test_tensors_batches_and_samples_of_the_same_images_give_the_cells_of_an_image_set(
    write, support, tmp_path
) -> None:
    write(*OWN)
    rows = {}
    for loader in ("load", "pair", "batches", "samples"):
        plan = make_plan(
            read_sweep(TINY, FEW, builder="nets:build", data={"name": f"nets:{loader}"}), tmp_path / loader
        )
        results = run_sweep(plan, str(tmp_path / loader), support.Inline())
        assert [record["reason"] for record in results.failed] == []
        rows[loader] = [
            {key: row[key] for key in ("mode", "accuracy", "accuracy_fp", "emd_weighted", "synops", "weight_kib")}
            for row in results.rows
        ]
    assert len(rows["load"]) == 3
    assert rows["pair"] == rows["batches"] == rows["samples"] == rows["load"]


def test_its_code_its_weights_and_its_data_are_part_of_its_name(write, tmp_path) -> None:
    def keys(weights: str | None = None) -> list[str]:
        sweep = read_sweep(TINY, FEW, baseline=weights, builder="nets:build", data={"name": "nets:load"})
        return [task.key for task in make_plan(sweep, tmp_path / "out").cells]

    write(*OWN)
    first = keys()
    assert keys() == first
    state = sys.modules["nets"].build().state_dict()
    save_file(state, tmp_path / "same.safetensors")
    assert keys("same.safetensors") == first
    save_file({**state, "3.1.bias": state["3.1.bias"] + 1}, tmp_path / "other.safetensors")
    other = keys("other.safetensors")
    write(OWN[0], OWN[1].replace("LIF()", "LIF(detach_reset=True)"))
    assert len({first[0], other[0], keys()[0]}) == 3


def test_a_file_that_names_the_code_gives_the_same_cells_once_it_may(write, tmp_path) -> None:
    write(*OWN)
    text = Path(TINY).read_text()
    before, after = text.split("[[baselines]]")[0], text[text.index("[qat]") :]
    file = tmp_path / "own.toml"
    file.write_text(f"{before}[[baselines]]\nname = 'build'\nbuilder = 'nets:build'\n{after}")
    with pytest.raises(SpecError, match="--allow-code"):
        read_sweep(file, FEW)
    own = make_plan(read_sweep(file, FEW, allow_code=True), tmp_path / "out")
    named = make_plan(read_sweep(TINY, FEW, builder="nets:build"), tmp_path / "out")
    assert [task.key for task in own.cells] == [task.key for task in named.cells]


def test_mistakes(write, tmp_path, capsys) -> None:
    write(*OWN)
    with pytest.raises(DataError, match=r"nets:shuffled \(train\) was another the second time; give shuffle=False"):
        make_plan(read_sweep(TINY, FEW, builder="nets:build", data={"name": "nets:shuffled"}), tmp_path / "out")
    with pytest.raises(SpecError, match="nowhere"):
        make_plan(read_sweep(TINY, FEW, builder="nets:nowhere", data={"name": "nets:load"}), tmp_path / "out")
    with pytest.raises(SpecError, match="is a loader of yours"):
        make_plan(read_sweep(TINY, (*FEW, "data.name=nets:load", "data.root=there")), tmp_path / "out")
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    words = ["sweep", TINY, "--model", "nets:build", "--weights", "wrong.safetensors", "--out", "out"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "a" in message
    assert "1.0.weight" in message
    assert main(["sweep", TINY, "--weights", "wrong.safetensors", "--out", "out"]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["sweep", TINY, "--data", "didgits", "--out", "out"]) == 2
    assert "no data set is called 'didgits'" in capsys.readouterr().err


def test_changed_code_is_not_computed_under_the_old_name(write, tmp_path, support) -> None:
    write(*OWN)
    plan = make_plan(read_sweep(TINY, FEW, builder="nets:build", data={"name": "nets:load"}), tmp_path / "out")
    (tmp_path / "nets.py").write_text((tmp_path / "nets.py").read_text() + "# changed\n")
    with pytest.raises(OutputError, match="the network of baseline"):
        run_sweep(plan, str(tmp_path / "out"), support.Inline())
    assert not Store(tmp_path / "out").path("baselines", plan.baselines[0].key).exists()
