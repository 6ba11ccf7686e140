"""The compiled kernels: optional, so that an install without a C++ compiler still works (slower)."""

import sys
from glob import glob

from setuptools import Extension, setup

WINDOWS = sys.platform == "win32"
# no contraction to fused multiply-add: spikes must equal the reference bit for bit
FLAGS = (
    ["/O2", "/std:c++17", "/fp:precise"]
    if WINDOWS
    else [
        "-O3",
        "-std=c++17",
        "-ffp-contract=off",
        "-fno-trapping-math",
        "-fno-math-errno",
    ]
)

LIBRARIES = [] if sys.platform != "linux" else ["dl"]


def kernels(module: str, source: str) -> Extension:
    """An extension that an installation can do without."""
    return Extension(
        module,
        [source],
        depends=glob("src/isofire/*/_*.h"),
        extra_compile_args=FLAGS,
        libraries=LIBRARIES,
        optional=True,
    )


setup(
    ext_modules=[
        kernels("isofire.neurons._kernels", "src/isofire/neurons/_kernels.cpp"),
        kernels("isofire.lookup._tables", "src/isofire/lookup/_tables.cpp"),
    ]
)
