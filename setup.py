"""The compiled neuron kernels: optional, so that an install without a C++ compiler still works (slower)."""

import sys

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

setup(
    ext_modules=[
        Extension(
            "isofire.neurons._kernels",
            ["src/isofire/neurons/_kernels.cpp"],
            extra_compile_args=FLAGS,
            libraries=[] if sys.platform != "linux" else ["dl"],
            optional=True,
        )
    ]
)
