"""Numbers as settings may give them: within what seeds, sizes and 32-bit floats can be anywhere further on."""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta

FLOAT32_MAX = torch.finfo(torch.float32).max
"""Everything is computed in float32; a larger number has no value there."""

MOST_THREADS = 1024
"""More than any one machine has cores; thousands crash the libraries that start them."""

Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""Images, epochs, steps."""

Threads = Annotated[int, Meta(ge=1, le=MOST_THREADS)]
