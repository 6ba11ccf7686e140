"""Which paths can be tested here. Triton's kernels run in its interpreter, in the environment of `make test-triton`."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from isofire.neurons import native

TRITON = find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"
NO_KERNELS = pytest.mark.skipif(native.library() is None, reason="kernels not built")

KERNELS = [pytest.param("native", marks=NO_KERNELS), *(["triton"] if TRITON else [])]
FAST = ["torch", *KERNELS]
FAST_NAMES = ["torch", *(["native"] if native.library() is not None else []), *(["triton"] if TRITON else [])]
