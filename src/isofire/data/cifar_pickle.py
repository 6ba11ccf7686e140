"""Opening a CIFAR pickle without running what it says."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from isofire.errors import DataError

# how NumPy itself rebuilds a pickled array; asking an array for it avoids naming a private module
_RECONSTRUCT = np.empty(0, np.uint8).__reduce__()[0]

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Knows the three names that a pickled NumPy array needs, and refuses every other."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR batch needs") from None


def open_batch(data: bytes, place: str) -> dict[bytes, Any]:
    """Read a pickled dictionary of numbers, strings, lists and NumPy arrays.

    The caller checks the published checksum first; this is the second lock. The archive was written by Python 2, so
    keys and text come back as bytes.

    Parameters
    ----------
    data
        The pickle.
    place
        The file, for the message.

    Raises
    ------
    DataError
        If the pickle asks for any other class or function, is damaged, or holds no dictionary.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"refused to open {place}: {error}; unpack the published archive again") from error
    if not isinstance(batch, dict):
        raise DataError(f"a CIFAR batch is a dictionary, got {type(batch).__name__} ({place})")
    return batch
