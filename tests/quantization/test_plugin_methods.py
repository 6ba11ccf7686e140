"""Methods of another package, in fresh processes that find nothing but its entry points."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

CONFIG = """
[data]
name = "digits"

[quant]
weights = { method = "signs" }
membrane = { method = "squares", bits = 3 }
thresholds = { method = "digits", digits = 1 }
"""

SWEEP = """
name = "outside"
data = { name = "digits" }
test_images = 60
calibration_images = 64

[[baselines]]
name = "tiny"
file = "fp.safetensors"

[[cells]]
mode = ["ptq"]
weights = { method = "signs" }

[[cells]]
mode = ["ptq"]
bits = [2, 4]
membrane = { method = "squares" }
"""

MAKE = """
import torch
from isofire.models import build, save_model
from isofire import data
torch.manual_seed(0)
model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
images = next(iter(data.load("digits", "train").batches(128)))[0]
for _ in range(20):
    model.train()(images)
save_model("fp.safetensors", model.eval())
"""

LOAD = """
import torch
from isofire.models import load_model
from isofire.quantization import spec_of
model, note = load_model("out/model.safetensors")
spec = spec_of(model)
print(spec.weights, spec.membrane.describe(), note["row"]["method"], note["row"]["bits"], sep="|")
for layer in model.modules():
    if isinstance(layer, torch.nn.Conv2d) and layer.weight[0].abs().unique().numel() == 1:
        break
else:
    raise SystemExit("no layer has one magnitude a channel")
"""


def run(script: str, path: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "160"}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(*arguments: str) -> str:
    return f"from isofire.cli import main\nraise SystemExit(main({[*arguments]!r}))"


def test_quantize_and_a_saved_file(plugin_path: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    run(MAKE, plugin_path, tmp_path)
    run(command("quantize", "fp.safetensors", "-c", "c.toml", "-o", "out", "--device", "cpu"), plugin_path, tmp_path)
    (row,) = csv.DictReader((tmp_path / "out" / "row.csv").open())
    assert row["target"] == "both+thresholds"
    assert row["method"] == "signs | squares | digits"
    assert row["bits"] == "1 | 2.807 | 3.322"
    assert run(LOAD, plugin_path, tmp_path).split("|") == [
        "SignWeights()", "squares 2.807 bit post_reset per layer", "signs ", " squares ", " digits", "1 ", " 2.807 ",
        " 3.322\n",
    ]  # fmt: skip
    shown = run(command("explain", "out/model.safetensors"), plugin_path, tmp_path)
    assert "signs 1 bit per channel" in shown
    assert "digits 3.322 bit" in shown


def test_sweep_and_report(plugin_path: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SWEEP)
    run(MAKE, plugin_path, tmp_path)
    run(command("sweep", "s.toml", "-o", "swept", "--device", "cpu", "--workers", "1"), plugin_path, tmp_path)
    run(command("report", "swept"), plugin_path, tmp_path)
    rows = list(csv.DictReader((tmp_path / "swept" / "results.csv").open()))
    assert {row["method"] for row in rows if row["target"] != "none"} == {"signs", "squares"}
    plan = json.loads((tmp_path / "swept" / "plan.json").read_text())
    assert {"method": "squares", "bits": 2, "top": 1.0, "placement": "post_reset", "granularity": "tensor"} in [
        cell["spec"]["membrane"] for cell in plan["cells"]
    ]


def test_without_the_package_its_method_is_told(plugin_path: str, tmp_path: Path) -> None:
    script = "from isofire.errors import SpecError\nfrom isofire.spec import QuantSpec\ntry:\n    "
    script += "QuantSpec(weights={'method': 'signs'})\nexcept SpecError as error:\n    print(error)"
    bare = plugin_path.split(os.pathsep)[-1]
    assert "unknown weight method 'signs'; known: gptq, levels, lqnet, lsq, tawq, uniform" in run(
        script, bare, tmp_path
    )
