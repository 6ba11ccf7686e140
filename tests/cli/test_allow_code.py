"""Code that a file names runs only if that was allowed, and is told before it does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isofire.config import parse_config, read_config
from isofire.errors import SpecError
from isofire.sweep import read_sweep

CODE = """
from pathlib import Path
Path("ran").touch()
import isofire.data

def load(split):
    return isofire.data.load("digits", split)
"""
CONFIG = "[data]\nname = 'traces:load'\n[quant.weights]\nmethod = 'lsq'\nbits = 4\n"
SWEEP = """
name = "s"
[data]
name = {data}
[[baselines]]
name = "b"
{baseline}
[[cells]]
bits = [4]
weights = {{ method = "lsq" }}
mode = ["ptq"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    paths = list(sys.path)
    (tmp_path / "traces.py").write_text(CODE)
    (tmp_path / "c.toml").write_text(CONFIG)
    yield tmp_path
    sys.path[:] = paths
    sys.modules.pop("traces", None)


def test_a_configuration(folder: Path, run: Callable[..., Any]) -> None:
    words = ("eval", "sew_resnet8-cifar10", "-c", "c.toml")
    refused = run(*words)
    assert refused.code == 2
    assert "data.name = 'traces:load' is code to import and run" in refused.err
    assert "(c.toml)" in refused.err
    assert "--allow-code" in refused.err
    assert not (folder / "ran").exists()
    # digits have one channel, the network takes three; what matters is that the loader ran, and was told
    allowed = subprocess.run(
        [sys.executable, "-m", "isofire", *words, "--allow-code"], capture_output=True, text=True, timeout=120
    )
    assert allowed.stderr.startswith("c.toml names code that is run now: traces:load (data.name)\nerror: this network")
    assert (folder / "ran").exists()


@pytest.mark.parametrize("command", ["train", "quantize", "blame", "demo", "explain", "compare", "check"])
def test_every_command_that_reads_a_configuration_asks(folder: Path, run: Callable[..., Any], command: str) -> None:
    files = {"quantize": ("a",), "blame": ("a",), "compare": ("a", "b"), "check": ("a", "b", "--max-drift", "1")}
    assert run(command, *files.get(command, ()), "-c", "c.toml").code == 2
    assert not (folder / "ran").exists()
    assert "--allow-code" in run(command, "--help").out


def test_the_command_line_needs_no_permission(folder: Path) -> None:
    for setting in ("data.name=traces:load", "data={name='traces:load'}"):
        assert parse_config({"data": {"name": "digits"}}, "a.toml", [setting]).data.name == "traces:load"
    # a setting beside it gives none
    with pytest.raises(SpecError, match="is code to import"):
        parse_config({"data": {"name": "os:system"}}, "a.toml", ["data.valid=3"])


def test_permission_from_python(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SpecError, match="allow_code=True"):
        read_config(folder / "c.toml")
    assert read_config(folder / "c.toml", allow_code=True).data.name == "traces:load"
    assert "traces:load" in caplog.text


@pytest.mark.parametrize(
    ("data", "baseline", "key"),
    [
        ("'os:system'", "pretrained = 'sew_resnet8-cifar10'", r"data\.name"),
        ("'digits'", "builder = 'os:getcwd'", r"baselines\[0\]\.builder"),
        ("'digits'", "builder = 'os.getcwd'", r"baselines\[0\]\.builder"),
        ("'digits'", "file = 'm'\ndata = { name = 'os:system' }", r"baselines\[0\]\.data\.name"),
    ],
)
def test_a_sweep(folder: Path, data: str, baseline: str, key: str) -> None:
    path = folder / "s.toml"
    path.write_text(SWEEP.format(data=data, baseline=baseline))
    with pytest.raises(SpecError, match=f"{key} = 'os.* is code to import .*s.toml"):
        read_sweep(path)
    assert read_sweep(path, allow_code=True).name == "s"


def test_a_sweep_with_code_from_the_command_line(folder: Path) -> None:
    path = folder / "s.toml"
    path.write_text(SWEEP.format(data="'os:system'", baseline="builder = 'os:getcwd'"))
    found = read_sweep(path, builder="nets:build", data={"name": "nets:load"})
    assert (found.baselines[0].builder, found.data.name) == ("nets:build", "nets:load")
    found = read_sweep(path, ["baselines.0.builder=nets:build", "data.name=digits"])
    assert found.baselines[0].builder == "nets:build"
    # one of the two is not enough
    with pytest.raises(SpecError, match=r"data\.name"):
        read_sweep(path, builder="nets:build")
    with pytest.raises(SpecError, match=r"baselines\[0\]\.builder"):
        read_sweep(path, data={"name": "nets:load"})
