"""Whole numbers in as many bits as they need: flat uint8, most significant bit first, number after number."""

from __future__ import annotations

import numpy as np


def pack(values: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Flat uint8 bits, the bits of a value, and the least value."""
    flat = values.reshape(-1).astype(np.int64)
    least = int(flat.min()) if flat.size else 0
    bits = max(1, (int(flat.max()) - least).bit_length()) if flat.size else 1
    above = (flat - least).astype(np.uint64)
    found = np.empty((flat.size, bits), dtype=np.uint8)
    for place in range(bits):
        found[:, place] = (above >> np.uint64(bits - 1 - place)) & np.uint64(1)
    return np.packbits(found.reshape(-1)), bits, least


def unpack(packed: np.ndarray, bits: int, least: int, shape: tuple[int, ...]) -> np.ndarray:
    """What `pack` packed, int64.

    Examples
    --------
    >>> packed, bits, least = pack(np.array([[-3, 4], [0, 1]]))
    >>> packed.nbytes, bits, unpack(packed, bits, least, (2, 2)).tolist()
    (2, 3, [[-3, 4], [0, 1]])
    """
    count = int(np.prod(shape))
    found = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    total = np.zeros(count, dtype=np.int64)
    for place in range(bits):
        total = (total << 1) | found[:, place]
    return (total + least).reshape(shape)
