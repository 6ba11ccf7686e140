"""Memory that is freed is kept for the next batch instead of going back to the system.

glibc gives each large tensor fresh pages and takes them back when it is freed: tens of thousands of page faults a batch
(docs/benchmarks.md). Processes of isofire's own do that when they start, see `isofire.own_process`.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's M_TRIM_THRESHOLD and M_MMAP_MAX (malloc.h)."""

_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Tell the C library to keep what this process frees; before the first large allocation, if it is to help fully.

    The process holds its largest use of memory until it ends. Nothing is done where the C library is not glibc, where
    another allocator has taken malloc's place (LD_PRELOAD), or where the environment sets malloc's thresholds itself.

    Returns
    -------
    bool
        Whether it was done.
    """
    if sys.platform != "linux" or os.environ.get("LD_PRELOAD") or any(name in os.environ for name in _OWN):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    process = ctypes.CDLL(None)
    if not hasattr(process, "gnu_get_libc_version"):
        return False
    # no mapping of its own for a large block, and no page goes back
    return bool(process.mallopt(_MMAP_MAX, 0)) and bool(process.mallopt(_TRIM_THRESHOLD, -1))
