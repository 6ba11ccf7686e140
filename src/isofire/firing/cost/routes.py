"""Whether all images take the same way through a network, so that what a few of them showed holds for all.

What a spike costs is found on two images. A network that chooses by the image which layers it uses (a mixture of
experts, an early exit) or how often would be measured by the way of those two. So the products of every forward pass
are listed, which costs a comparison next to nothing, and must be those of the two images, as many numbers per image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from isofire.adapters import find_neurons
from isofire.adapters.own import only_looks
from isofire.running import OfOnePass

_PRODUCTS = frozenset((
    "linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot", "vdot", "inner", "outer", "addmm", "addmv",
    "addbmm", "baddbmm", "einsum", "tensordot", "chain_matmul", "multi_dot", "embedding", "embedding_bag", "lstm",
    "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    "scaled_dot_product_attention", "multi_head_attention_forward", "_native_multi_head_attention",
))  # fmt: skip
_FIXED = "_isofire_fixed"


class Routes(OfOnePass, TorchFunctionMode):
    """Lists the products of a model's forward passes, outside of its neurons.

    Attributes
    ----------
    products
        (function, numbers that it gave) of each since the last `listening` began. Products of weights alone, which are
        the same whatever comes in, are not among them.
    code
        Of each of these the function, its weights, and whether it gave any number: what ran, on however many rows.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.products: list[tuple[str, int]] = []
        self.code: list[tuple[str, tuple[Any, ...], bool]] = []
        self._depth = 0
        self._neurons = [neuron for neuron, _ in find_neurons(model).values()]
        states = {id(buffer) for neuron in self._neurons for buffer in neuron.buffers()}
        # held, because the identity of a tensor that is gone (a state that a neuron makes anew) is given to others
        self._buffers = {id(buffer): buffer for buffer in model.buffers() if id(buffer) not in states}

    @contextmanager
    def listening(self) -> Iterator[Routes]:
        """From here on a new list; neurons have hooks inside, and none afterwards."""
        self.products, self.code, self._depth = [], [], 0
        with ExitStack() as stack:
            for neuron in self._neurons:
                stack.callback(neuron.register_forward_pre_hook(self._enter).remove)
                stack.callback(neuron.register_forward_hook(self._leave, always_call=True).remove)
            stack.enter_context(self)
            yield self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        first = output[0] if isinstance(output, tuple) and output else output
        if self._depth or not isinstance(first, Tensor):
            return output
        tensors = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)]
        if tensors and all(map(self._is_fixed, tensors)):
            setattr(first, _FIXED, True)
        elif func.__name__ in _PRODUCTS:
            self.products.append((func.__name__, first.numel()))
            # a weight that is made anew in each pass has a shape alone
            weights = tuple(
                id(x) if isinstance(x, nn.Parameter) else tuple(x.shape) for x in tensors if self._is_fixed(x)
            )
            self.code.append((func.__name__, weights, first.numel() > 0))
        elif args and first is args[0]:
            # written in place by what comes in
            setattr(first, _FIXED, False)
        return output

    def _is_fixed(self, x: Tensor) -> bool:
        return isinstance(x, nn.Parameter) or getattr(x, _FIXED, False) or id(x) in self._buffers

    def _enter(self, _module: nn.Module, _inputs: Any) -> None:
        self._depth += 1

    @only_looks
    def _leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._depth -= 1


def same_way(few: Sequence[tuple[str, int]], images: int, all_: Sequence[tuple[str, int]], more: int) -> bool:
    """Whether the products of a batch of `more` images are those of `images`, as many numbers per image.

    Parameters
    ----------
    few, all_
        `Routes.products` of the two forward passes.
    """
    return len(few) == len(all_) and all(
        name == other and size * more == numbers * images
        for (name, size), (other, numbers) in zip(few, all_, strict=True)
    )
