"""The ways in which the small cases are quantized."""

from __future__ import annotations

from typing import Any


def cells(post_reset: bool = True, bits: tuple[int, ...] = (8, 4, 3, 2)) -> list[dict[str, Any]]:
    """Weights alone, membranes alone at the placements that the library allows, and both."""
    pre: dict[str, Any] = {"placement": "pre_fire", "range": "minmax", "grid": "midtread"}
    post: dict[str, Any] = {**pre, "placement": "post_reset"}
    found = [{"weights": {"method": "lsq", "bits": b}} for b in bits]
    for membrane in (pre, post) if post_reset else (pre,):
        found += [{"membrane": {**membrane, "bits": b}} for b in bits]
    both = post if post_reset else pre
    return found + [{"weights": {"method": "lsq", "bits": b}, "membrane": {**both, "bits": b}} for b in bits]
