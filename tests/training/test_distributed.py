"""Two real processes under torchrun on the loopback interface, compared with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isofire.errors import CheckpointError, SpecError
from isofire.training.checkpoint import read_note
from isofire.training.distributed import Group, join, pick_device

SCRIPT = """
import os, shutil, sys
from pathlib import Path
import torch
from torch import nn
from isofire.data import ImageSet
from isofire.training import Recipe, train

torch.set_num_threads(1)
out, world = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (70, 1, 4, 4), dtype=torch.uint8, generator=generator)
train_set = ImageSet("noise", "train", images[:50], torch.arange(50) % 3, ("a", "b", "c"), (0.5,), (0.3,))
valid_set = ImageSet("noise", "valid", images[50:], torch.arange(20) % 3, ("a", "b", "c"), (0.5,), (0.3,))

def build(*layers):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))

plain = Recipe(epochs=2, lr=0.1, batch_size=12 // world, clip_norm=1.0)
train(build(), train_set, valid_set, plain, out=out / "plain", device="cpu")
if world > 1:
    def copy(record):
        if record.epoch == 1:
            shutil.copytree(out / "whole", out / "resumed")
    recipe = Recipe(epochs=2, lr=0.1, batch_size=6, flip=True)
    for name, hook in (("whole", copy), ("resumed", None)):
        net = build(nn.BatchNorm2d(4), nn.Dropout(0.3))
        train(net, train_set, valid_set, recipe, out=out / name, device="cpu", progress=False, on_epoch=hook)
    torch.save({"net": net.state_dict()}, out / f"rank{os.environ['RANK']}.pt")
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder with the runs of one process under `one`, of two under `two`; and what the two printed."""
    folder = tmp_path_factory.mktemp("runs")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    torchrun += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    both = subprocess.run(
        [*torchrun, str(script), str(folder / "two")],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert both.returncode == 0, both.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(sys, "argv", [str(script), str(folder / "one")])
        exec(SCRIPT, {})
    return folder, both.stderr


def test_two_processes_equal_one_with_twice_the_batch(outputs: tuple[Path, str]) -> None:
    folder, _ = outputs
    paths = [folder / name / "plain" / "last.safetensors" for name in ("one", "two")]
    one, two = (load_file(path) for path in paths)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)
    histories = [read_note(path, "training")["position"]["history"] for path in paths]
    for first, second in zip(*histories, strict=True):
        for key in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr"):
            assert second[key] == pytest.approx(first[key], rel=1e-4)
    assert any(record["valid_accuracy"] > 0 for record in histories[0])


def test_resuming_two_processes_gives_the_same_weights_with_batch_norm_and_dropout(outputs: tuple[Path, str]) -> None:
    folder, _ = outputs
    whole, resumed = (load_file(folder / "two" / name / "last.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert read_note(folder / "two" / "resumed" / "last.safetensors", "training")["identity"]["processes"] == 2


def test_all_processes_end_with_the_same_weights_and_buffers(outputs: tuple[Path, str]) -> None:
    folder, _ = outputs
    first, second = (torch.load(folder / "two" / f"rank{rank}.pt", weights_only=True)["net"] for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_process_0_prints(outputs: tuple[Path, str]) -> None:
    _, printed = outputs
    assert printed.count("epoch 1/2") == 1
    assert printed.count("epoch 2/2") == 1


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = join("cpu")
    assert group == Group(torch.device("cpu"), 0, 1)
    assert group.leads
    assert group.gather(torch.ones(3)).shape == (1, 3)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join("cpu").world == 1


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(SpecError, match="WORLD_SIZE is 2 but MASTER_ADDR, MASTER_PORT is not set"):
        join("cpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda", 1) == torch.device("cuda:1")
    assert pick_device("cuda:0", 1) == torch.device("cuda:0")
    with pytest.raises(SpecError, match="device 'cuda:5' does not exist, torch finds cuda:0 to cuda:1; leave it out"):
        pick_device("cuda:5")


def test_a_run_of_two_processes_is_not_resumed_by_one(outputs: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = outputs
    note = read_note(folder / "two" / "whole" / "last.safetensors", "training")
    from isofire.training.resume import Identity, position_of

    here = Identity(**{**note["identity"], "processes": 1})
    with pytest.raises(CheckpointError, match="run of other processes: processes 2 there, 1 here"):
        position_of(tmp_path / "x", note, here)
