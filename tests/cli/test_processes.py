"""The program as its users start it: a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from isofire.training.checkpoint import read_note

COMMAND = [sys.executable, "-m", "isofire"]


def start(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


def test_json_is_all_that_stdout_holds(trained, quantized, tmp_path):
    result = start("compare", trained / "model.safetensors", quantized / "model.safetensors", "--data", "digits",
                   "--n", 20, "--json", "--out", tmp_path / "c")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["row"]["n_images"] == 20


def test_mistake(tmp_path):
    result = start("train", "--config", tmp_path / "no.toml")
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot read")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def wait_until(done: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent otherwise there")
def test_interrupt_ends_with_130_and_the_run_goes_on_later(config, tmp_path):
    settings = ["--set", "train.epochs=60", "--set", "data.train_images=64", "--threads", "1"]
    command = ["train", "--config", str(config), *settings, "--out", str(tmp_path / "run"), "--device", "cpu"]
    # a shell starts what it puts in the background with interrupts ignored, and a child inherits that
    process = subprocess.Popen(
        [*COMMAND, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    last = tmp_path / "run" / "training" / "last.safetensors"
    try:
        wait_until(last.exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "run" / "model.safetensors").exists()
    behind = read_note(last, "training")["position"]["epoch"]
    assert 1 <= behind < 60

    resumed = start(*command)
    assert resumed.returncode == 0, resumed.stderr
    told = re.findall(r"epoch (\d+)/60", resumed.stderr)
    assert [int(epoch) for epoch in told] == list(range(behind + 1, 61))
    history = json.loads((tmp_path / "run" / "history.json").read_text())["history"]
    assert [record["epoch"] for record in history] == list(range(1, 61))
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_disk_that_fills_up_is_found_before_the_work(trained, config, tmp_path):
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    result = start("quantize", trained / "model.safetensors", "-c", config, "-o", tmp_path / "q", preexec_fn=limit)
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert "quantizing" not in result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "q").iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_stdout_on_a_full_disk(config, extra):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*COMMAND, "explain", "-c", str(config), *extra],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot write to standard output")
    assert "Exception ignored" not in result.stderr


def test_reader_that_has_gone(config):
    with subprocess.Popen(
        [*COMMAND, "explain", "-c", str(config), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=120) == 0
    assert err == b""
