"""What a type checker says of code outside of the package."""

from __future__ import annotations

import json
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


@pytest.mark.slow
def test_the_packages_types_are_seen_from_outside(tmp_path: Path) -> None:
    program = shutil.which("pyright", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("pyright is not installed")
    assert (Path(str(find_spec("isofire").origin)).parent / "py.typed").exists()  # type: ignore[union-attr]
    (tmp_path / "outside.py").write_text(CODE, encoding="utf-8")
    command = [program, "--outputjson", "--pythonpath", sys.executable, "outside.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    told = json.loads(done.stdout)["generalDiagnostics"]
    lines = CODE.splitlines()
    wrong = [lines[item["range"]["start"]["line"]].split()[0] for item in told if item["severity"] == "error"]
    assert wrong == ["wrong:", "typo"], told
