"""The compiled look-ups under AddressSanitizer and UndefinedBehaviorSanitizer, over many shapes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isofire.lookup import native

SOURCE = Path(native.__file__).with_name("_tables.cpp")
SCRIPT = """
import ctypes, functools, random, sys
import torch
from isofire.lookup import native
made = ctypes.CDLL(sys.argv[1])
made.isofire_lookup_sizes.restype = ctypes.c_int64
native.library = lambda: made
from tests.lookup.test_layers import _check, _large
random.seed(0)
pick = random.choice
for number in range(60):
    groups, kernel, dilation = pick((1, 1, 2)), (pick((1, 2, 3, 5, 7)), pick((1, 3))), pick((1, 2))
    _check({
        "conv": {"in_channels": groups * pick((1, 3, 5)), "out_channels": groups * pick((1, 2, 3)),
                 "kernel_size": kernel, "stride": (pick((1, 2, 3)), pick((1, 2))),
                 "padding": (pick((0, 1, 3)), pick((0, 2))), "dilation": dilation, "groups": groups,
                 "bias": pick((True, False))},
        "size": tuple((k - 1) * dilation + pick((1, 2, 5)) for k in kernel),
        "steps": pick((1, 2, 4, 5, 9)), "images": pick((1, 2, 7, 16, 17, 33, 64)), "bits": pick((1, 4, 8)),
        "weights": pick(("any", "odd", "lowest", "sparse")), "most": pick((1, 2, 3)), "inputs": pick(("any", "full")),
        "neuron": pick(("if", "lif", "lif3", "undecayed", "plif")), "reset": pick((0.0, None)),
        "membrane": pick(("none", "uniform_pre", "table_post")), "norm": pick((True, False)), "seed": number,
    })
_check(_large())
from tests.lookup import test_networks as nets
nets.test_frames_are_taken_as_images_are()
nets.test_recorders_and_comparisons_find_the_layers()
from hypothesis import HealthCheck, settings
settings.register_profile("slow", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("slow")
from tests.lookup import test_tiles as tiles
tiles.test_tiles_of_tiles_are_those_of_the_map()
print("clean")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux") or not SOURCE.exists(), reason="needs Linux and the source")
def test_nothing_is_read_or_written_out_of_bounds(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or native.library() is None:
        pytest.skip("needs g++ and the compiled look-ups")
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("g++ has no AddressSanitizer here")
    made = tmp_path / "_tables.so"
    flags = ["-O1", "-g", "-std=c++17", "-ffp-contract=off", "-fno-omit-frame-pointer", "-shared", "-fPIC"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    subprocess.run([compiler, *flags, *checks, SOURCE, "-o", made, "-ldl"], check=True)
    environment = os.environ | {
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "PYTHONPATH": os.pathsep.join([str(SOURCE.parents[2]), str(Path(__file__).parents[2])]),
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, made], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "clean"
