"""What torch's operations do to a weight: move it, multiply with it, pick of it, hand it out."""

from __future__ import annotations

import torch

MOVES = frozenset((
    "cat", "stack", "clone", "contiguous", "_to_copy", "copy", "index", "index_select", "gather", "roll", "flip",
    "repeat", "tile", "constant_pad_nd", "_unsafe_view", "_reshape_copy", "_reshape_alias", "unsafe_split",
    "split_with_sizes_copy", "lift_fresh_copy", "repeat_interleave", "to_mkldnn", "_to_dense", "_to_sparse",
    "_to_sparse_csr", "slice_scatter", "select_scatter", "unfold_copy", "alias", "detach", "zero",
))  # fmt: skip
"""Operations that give numbers to other places, as they are (in a type that holds them), or zeros."""
PRODUCTS = frozenset((
    "convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "linear", "mm", "bmm", "mv", "dot",
    "vdot", "addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation", "_trilinear", "_sparse_addmm", "_sparse_mm",
))  # fmt: skip
PICKS = frozenset((
    "mul", "index", "index_select", "gather", "take", "where", "masked_fill", "masked_select", "embedding",
    "embedding_bag",
))  # fmt: skip
"""Operations by which what depends on the input (spikes) multiplies weights, or picks some of them."""
REREADS = frozenset(("_conj", "_neg_view"))
"""Views that read the same memory as other numbers; `view` with a type is one too."""
LEAVES = frozenset(("numpy", "tolist", "__array__", "__dlpack__", "data_ptr"))
"""Methods of tensors that hand numbers to where no operation is seen."""
CASTS = frozenset(("to", "type", "type_as", "half", "bfloat16", "float", "double", "copy_"))
"""Methods by which a network itself asks for another type; any other cast in autocast is autocast's."""


def holds(kind: torch.dtype, other: torch.dtype) -> bool:
    """Whether a type has every number of another."""
    if kind == other:
        return True
    if not all(item.is_floating_point or item.is_complex for item in (kind, other)):
        return False
    wide, narrow = torch.finfo(kind), torch.finfo(other)
    fits = wide.max >= narrow.max and wide.eps <= narrow.eps and wide.tiny <= narrow.tiny
    return fits and (kind.is_complex or not other.is_complex)


def place_of_bias(name: str, count: int) -> int | None:
    """Which of so many operands a product adds; None for none."""
    place = 0 if "addmm" in name or "addbmm" in name or name == "addmv" else 2
    adds = place < count and (place == 0 or name == "linear" or "convolution" in name)
    return place if adds else None


def only_shapes(name: str) -> bool:
    """Whether an operation takes the shape and type of what it is given, and none of its numbers."""
    return name.endswith("_like") or name.startswith("new_")
