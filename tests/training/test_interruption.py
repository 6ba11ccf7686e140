"""A process killed outright, and what the next one makes of what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isofire.training.checkpoint import read_note

SCRIPT = """
import sys, time
import torch
from torch import nn
from isofire.data import ImageSet
from isofire.training import Recipe, train

torch.set_num_threads(1)
torch.manual_seed(0)
images = torch.randint(0, 256, (60, 1, 6, 6), dtype=torch.uint8)
data = ImageSet("noise", "train", images, torch.arange(60) % 3, ("a", "b", "c"), (0.5,), (0.3,))
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3))
net.register_forward_pre_hook(lambda *_: time.sleep(float(sys.argv[2])))
recipe = Recipe(epochs=5, lr=0.1, batch_size=6, flip=True)
train(net, data, None, recipe, out=sys.argv[1], checkpoint_every=3, progress=False, device="cpu")
"""


def _run_here(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c", str(out), "0"])
    with torch.random.fork_rng():
        exec(SCRIPT, {})


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "killed" / "last.safetensors"
    killed = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), "0.05"])
    try:
        deadline = time.monotonic() + 300
        while not (last.exists() and read_note(last, "training")["position"]["epoch"] >= 1):
            assert killed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait(300) == -signal.SIGKILL
    finally:
        killed.kill()
    assert read_note(last, "training")["position"]["epoch"] < 5
    for name in ("whole", "killed"):
        _run_here(tmp_path / name, monkeypatch)
    one, two = load_file(tmp_path / "whole" / "last.safetensors"), load_file(last)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(name.startswith("optimizer/") for name in one)
