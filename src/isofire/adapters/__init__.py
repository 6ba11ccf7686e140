"""Models of other libraries, as they are: SpikingJelly, snnTorch, Norse, Sinabs, and neurons of your own."""

from isofire.adapters.base import Adapter, Hosted, Layout
from isofire.adapters.compiled import original, original_name, refuse_compiled, uncompiled
from isofire.adapters.identity import prove
from isofire.adapters.output import read_logits
from isofire.adapters.over_time import OverTime
from isofire.adapters.registry import (
    adapter_of,
    batch_first,
    check_batches,
    copy_of,
    find_neurons,
    from_rest,
    no_neurons,
    register,
    reset_,
    unregister,
)

__all__ = [
    "Adapter",
    "Hosted",
    "Layout",
    "OverTime",
    "adapter_of",
    "batch_first",
    "check_batches",
    "copy_of",
    "find_neurons",
    "from_rest",
    "no_neurons",
    "original",
    "original_name",
    "prove",
    "read_logits",
    "refuse_compiled",
    "register",
    "reset_",
    "uncompiled",
    "unregister",
]
