"""What a type checker says of code outside of the package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CODE = """
import isofire
from isofire.models import pretrained
from isofire.spec import Rule

model = pretrained("sew_resnet8-digits")
test = isofire.data.load("digits", "test")
rule = Rule(match="conv1", weights={"method": "lsq", "bits": 8})
spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, rules=[rule, {"match": "fc", "weights": "float"}])
quantized = isofire.quantize_(model, spec, test)
found = isofire.compare(model, quantized, test)
share: float = found.accuracy
text: str = found.kept().words
rows: list[dict] = isofire.load_results("runs/sweep")
wrong: int = found.kept().words
typo = isofire.QuantSpec(wieghts=None)
"""


ROOT = Path(__file__).parents[1]


def check(folder: Path, files: dict[str, str]) -> list[dict]:
    """What pyright tells of files outside of the package."""
    program = shutil.which("pyright", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("pyright is not installed")
    for name, code in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
    command = [program, "--outputjson", "--pythonpath", sys.executable, *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return [item for item in json.loads(done.stdout)["generalDiagnostics"] if item["severity"] == "error"]


@pytest.mark.slow
def test_what_the_pages_show_to_be_written_has_no_type_errors(tmp_path: Path) -> None:
    files = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL))
    for page, begins in (
        ("training", "from torch import Tensor, stack"),
        ("adapters", "import torch\nfrom isofire.adap"),
    ):
        found = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
        (files[f"{page}.py"],) = [code for code in found if code.startswith(begins)]
    assert len(files) == 8
    assert check(tmp_path, files) == []


@pytest.mark.slow
def test_the_packages_types_are_seen_from_outside(tmp_path: Path) -> None:
    assert (Path(str(find_spec("isofire").origin)).parent / "py.typed").exists()  # type: ignore[union-attr]
    told = check(tmp_path, {"outside.py": CODE})
    lines = CODE.splitlines()
    wrong = [lines[item["range"]["start"]["line"]].split()[0] for item in told]
    assert wrong == ["wrong:", "typo"], told
