"""Torch's operations by what they do to events, and whether they hold synapses; what is not here, and no elementwise
operation, is reported as not counted."""

from __future__ import annotations

RNNS = frozenset(("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"))
ATTENTIONS = frozenset((
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention",
))  # fmt: skip
CONVOLUTIONS = frozenset(("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution"))
PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1,
             "_addmm_activation": 1}  # fmt: skip
"""Operation -> place of its left factor."""
MOVES = frozenset((
    "cat", "stack", "clone", "contiguous", "_to_copy", "_copy_from", "copy", "index", "index_select", "gather",
    "take", "roll", "flip", "repeat", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
    "replication_pad1d", "replication_pad2d", "replication_pad3d", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "im2col", "unsafe_split",
    "unsafe_split_with_sizes", "split_with_sizes_copy", "tril", "triu", "unfold_copy", "lift_fresh_copy",
    "repeat_interleave", "_reshape_copy", "_unsafe_view", "_reshape_alias", "masked_select",
))  # fmt: skip
"""Elements come to other places, as they are."""
PLACED = {
    "index_put": 2, "_unsafe_index_put": 2, "_index_put_impl": 2, "put": 2, "scatter": 3, "scatter_add": 3,
    "index_add": 3, "index_copy": 3, "masked_scatter": 2, "slice_scatter": 1, "select_scatter": 1,
    "diagonal_scatter": 1, "as_strided_scatter": 1,
}  # fmt: skip
"""Operation that writes or adds one tensor's elements into another -> place of what is written."""
SUMS = frozenset(("sum", "cumsum", "col2im", "trace"))
MEANS = frozenset(("mean",))
AVERAGE_POOLS = frozenset(("avg_pool1d", "avg_pool2d", "avg_pool3d"))
ADAPTIVE_POOLS = frozenset(
    ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
)
NORMS = frozenset((
    "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "batch_norm", "_batch_norm_with_update", "_batch_norm_no_update",
))  # fmt: skip
"""In eval mode a factor and an offset a channel, which fold into the weights that follow."""
CHOOSING = frozenset(("mul", "where", "masked_fill", "logical_and", "bitwise_and", "scatter", "index_fill"))
"""By a mask or by places that are no events themselves."""
ROUNDING = frozenset(("sign", "round", "floor", "ceil", "trunc", "heaviside", "bernoulli", "poisson", "floor_divide"))
"""What they give is whole numbers, whatever they are given."""
CLOSED = MOVES | frozenset(PLACED) | CHOOSING | frozenset((
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "max_pool1d_with_indices", "mkldnn_max_pool2d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "fractional_max_pool2d", "max_unpool2d", "max_unpool3d", "amax", "amin", "max", "min", "maximum", "minimum", "fmax",
    "fmin", "_aminmax", "aminmax", "cummax", "cummin", "_cummax_helper", "_cummin_helper", "topk", "sort", "msort",
    "kthvalue", "median", "nanmedian", "mode", "prod", "cumprod", "pow", "square", "abs", "relu", "clamp", "clamp_min",
    "clamp_max", "hardtanh", "threshold", "hardshrink", "remainder", "fmod", "scatter_reduce", "index_reduce", "add",
    "sub", "rsub", "lerp", "addcmul", "neg", "nan_to_num", "sum", "cumsum", "diff",
))  # fmt: skip
"""Whole numbers of whole numbers, whatever these are, by whole constants; of all else they are so by chance."""
SCATTERING = frozenset(("scatter", "index_fill", "index_put", "_index_put_impl", "masked_fill"))
SUMS_OF_TWO = frozenset(("add", "sub", "rsub", "lerp", "addcmul", "addcdiv"))
NORMALISING = NORMS | {"mul", "div", "add", "sub", "rsub", "lerp", "addcmul", "addcdiv"}
FACTORLESS = frozenset(("neg", "positive", "conj", "real", "alias", "detach"))


_WITHOUT_SYNAPSES = frozenset((
    "_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", "native_layer_norm", "native_group_norm",
    "native_dropout", "_fused_rms_norm", "argmax", "argmin", "any", "all", "var", "std", "var_mean", "norm",
    "linalg_vector_norm", "cummax", "cummin", "logcumsumexp", "logsumexp", "median", "mode", "kthvalue", "argsort",
    "nonzero", "unique_dim", "_unique2", "count_nonzero", "embedding", "one_hot", "bernoulli", "poisson",
    "multinomial", "normal", "rand_like", "randn_like", "empty_like", "zeros_like", "ones_like", "full_like",
    "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided", "_local_scalar_dense", "item", "equal",
    "is_same_size", "isfinite", "bernoulli_", "upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d",
    "upsample_bicubic2d", "max_unpool2d", "searchsorted", "bucketize", "histc", "bincount", "record_stream", "set_",
    "resize_", "unfold", "fill", "zero", "copy", "random", "uniform", "cumprod", "fractional_max_pool2d", "dim_order",
    "_aminmax", "aminmax", "isnan", "_to_sparse", "_to_sparse_csr", "_to_sparse_csc", "_to_sparse_bsr", "_to_dense",
    "_coalesce", "_values", "_indices", "glu", "prelu", "_prelu_kernel", "rrelu_with_noise", "sort", "msort",
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool1d_with_indices", "mkldnn_max_pool2d", "amax", "max",
    "maximum", "minimum", "amin", "min", "mul", "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or",
    "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "sign", "floor", "ceil",
    "round", "trunc", "clamp", "clamp_min", "clamp_max", "relu", "hardtanh", "where", "topk", "prod", "abs",
    "heaviside", "masked_fill", "remainder", "fmod", "div", "sub", "rsub", "scatter", "scatter_reduce", "index_fill",
    "pow", "floor_divide",
))  # fmt: skip
KNOWN = frozenset().union(
    _WITHOUT_SYNAPSES, MOVES, SUMS, MEANS, AVERAGE_POOLS, ADAPTIVE_POOLS, NORMS, PLACED, FACTORLESS,
    CONVOLUTIONS, PRODUCTS, RNNS, ATTENTIONS, ("linear", "_trilinear"),
)  # fmt: skip
