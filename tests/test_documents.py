"""The documents say what the code does: README's example runs, tables are those of the stored runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from isofire.quantizers import MEMBRANES, WEIGHTS
from isofire.spec import QuantSpec

ROOT = Path(__file__).parents[1]


def test_the_ten_lines_of_the_readme_run(capsys) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    assert len(code[1].strip().splitlines()) <= 14
    exec(compile(code[1], "README.md", "exec"), {})
    assert "EMD" in capsys.readouterr().out


def test_the_examples_of_the_python_page_run(tmp_path, monkeypatch, capsys) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "docs/python.md", "exec"), names)
    assert (tmp_path / "counts.safetensors").exists()
    images, _ = next(iter(names["held_out"].batches(64)))
    assert bool((names["again"](images) == names["quantized"](images)).all())
    assert "EMD" in capsys.readouterr().out


@pytest.mark.parametrize(
    "script",
    [
        "scripts.readme",
        "scripts.findings",
        "scripts.keep_firing",
        "scripts.baseline",
        "scripts.chips.page",
        "scripts.look_ups",
        "scripts.evidence",
        "scripts.evidence.example",
        "scripts.coverage",
        "benchmarks.page",
    ],
)
def test_tables_in_documents_are_those_of_the_stored_runs(script: str) -> None:
    command = [sys.executable, "-m", script, "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_spec_page_shows_a_spec_and_names_every_key() -> None:
    page = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    import tomllib

    QuantSpec.from_dict(tomllib.loads(example[1])["quant"])
    for kind in (*WEIGHTS.values(), *MEMBRANES.values(), QuantSpec):
        for field in msgspec.structs.fields(kind):
            known = f"`{field.name}`" in page or f"{field.name} =" in page or field.name == "version"
            assert known, (kind.__name__, field.name)
