"""How far a command is, on stderr."""

from __future__ import annotations

import sys


def count_networks(done: int, total: int) -> None:
    """Show on the terminal how many of the networks that a command makes and compares are done."""
    print(f"\rnetwork {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
