"""Commands with a piece missing or misspelt name what to write in its place."""

from __future__ import annotations

import pytest

from isofire.cli import main

SWEEP = """
name = "s"
[data]
name = "digits"
[[baselines]]
name = "net"
file = "sew_resnet8-digits"
[[cells]]
mode = ["ptq"]
"""


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        (["sweep", "gptq.toml", "-o", "s"], "configs/studies/gptq.toml: name that"),
        (["sweep", "s.toml", "-o", "s"], 'write pretrained = "sew_resnet8-digits" in place of file'),
        (["export", "sew_resnet8-digits", "--to", "nirr"], 'Did you mean "nir"?'),
        (["export", "sew_resnet8-digits", "--to", "c"], "give --out c-program"),
        (["lower", "sew_resnet8-digits", "--data", "digits"], "isofire export --to c"),
    ],
)
def test_the_cure_is_named(command, cure, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SWEEP)
    assert main(command) == 2
    assert cure in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "s").exists()
