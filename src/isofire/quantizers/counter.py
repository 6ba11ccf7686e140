"""A count that travels in a state dict, yet is read without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Counter(nn.Module):
    """A whole number kept in Python and written into the int64 buffer `stored` only when a state dict is made.

    Reading a buffer on an accelerator stalls the caller until the device is idle, once per layer and forward; this
    does not.
    """

    stored: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.value = 0
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.stored.fill_(self.value)
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.stored.fill_(self.value)
        super()._load_from_state_dict(*args, **kwargs)
        self.value = int(self.stored)

    def extra_repr(self) -> str:
        return str(self.value)
