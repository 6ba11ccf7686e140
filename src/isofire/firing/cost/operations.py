"""Torch operations of which it is known whether they hold synapses; what is not here, and no elementwise operation, is
reported as not counted."""

from __future__ import annotations

from isofire.firing.cost.contacts import ATTENTIONS, CONVOLUTIONS, PRODUCTS, RNNS
from isofire.firing.cost.propagation import (
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    COUNTED_ANEW,
    FACTORLESS,
    MEANS,
    MOVES,
    NORMS,
    PLACED,
    SUMS,
)

_WITHOUT_SYNAPSES = frozenset((
    "_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", "native_layer_norm", "native_group_norm",
    "native_dropout", "_fused_rms_norm", "argmax", "argmin", "any", "all", "var", "std", "var_mean", "norm",
    "linalg_vector_norm", "cummax", "cummin", "logcumsumexp", "logsumexp", "median", "mode", "kthvalue", "argsort",
    "nonzero", "unique_dim", "_unique2", "count_nonzero", "embedding", "one_hot", "bernoulli", "poisson", "multinomial",
    "normal", "rand_like", "randn_like", "empty_like", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_empty_strided", "_local_scalar_dense", "item", "equal", "is_same_size", "isfinite",
    "bernoulli_", "upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d",
    "max_unpool2d", "searchsorted", "bucketize", "histc", "bincount", "record_stream", "set_", "resize_", "unfold",
    "fill", "zero", "copy", "random", "uniform", "cumprod",
    "fractional_max_pool2d", "dim_order", "_aminmax", "aminmax", "isnan", 
    "_to_sparse", "_to_sparse_csr", "_to_sparse_csc", "_to_sparse_bsr", "_to_dense", "_coalesce", "_values", "_indices",
    "glu", "prelu", "_prelu_kernel", "rrelu_with_noise", "sort", "msort",
))  # fmt: skip
KNOWN = frozenset().union(
    _WITHOUT_SYNAPSES, MOVES, SUMS, MEANS, AVERAGE_POOLS, ADAPTIVE_POOLS, NORMS, PLACED, COUNTED_ANEW, FACTORLESS,
    CONVOLUTIONS, PRODUCTS, RNNS, ATTENTIONS, ("linear", "_trilinear"),
)  # fmt: skip
