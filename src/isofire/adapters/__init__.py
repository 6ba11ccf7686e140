"""Models of other libraries, as they are: SpikingJelly, snnTorch, Norse, Sinabs, and neurons of your own."""

from isofire.adapters.as_isofire import as_isofire
from isofire.adapters.axes import axis_by, input_axis
from isofire.adapters.base import Adapter, Layout, MembraneMixin
from isofire.adapters.charge import Charge, charge_of
from isofire.adapters.compiled import has_compiled, original, original_name, refuse_compiled, uncompiled
from isofire.adapters.copies import copy_of, require_kept
from isofire.adapters.fired import Fired
from isofire.adapters.framework import Framework, register_framework
from isofire.adapters.keepers import find_keepers, states_after
from isofire.adapters.logits_of import LogitsOf
from isofire.adapters.one_place import at_one_place
from isofire.adapters.output import of_one_number, read_logits
from isofire.adapters.over_time import OverTime
from isofire.adapters.registry import (
    adapter_of,
    batch_first,
    check_batches,
    find_neurons,
    framework_of,
    from_rest,
    heard,
    is_integer,
    no_neurons,
    refuse_integers,
    register,
    reset_,
    unregister,
)
from isofire.adapters.self_test import run_self_test
from isofire.adapters.whole_batches import of_other_images, require_plain, require_whole

__all__ = [
    "Adapter",
    "Charge",
    "Fired",
    "Framework",
    "Layout",
    "LogitsOf",
    "MembraneMixin",
    "OverTime",
    "adapter_of",
    "as_isofire",
    "at_one_place",
    "axis_by",
    "batch_first",
    "charge_of",
    "check_batches",
    "copy_of",
    "find_keepers",
    "find_neurons",
    "framework_of",
    "from_rest",
    "has_compiled",
    "heard",
    "input_axis",
    "is_integer",
    "no_neurons",
    "of_one_number",
    "of_other_images",
    "original",
    "original_name",
    "read_logits",
    "refuse_compiled",
    "refuse_integers",
    "register",
    "register_framework",
    "require_kept",
    "require_plain",
    "require_whole",
    "reset_",
    "run_self_test",
    "states_after",
    "uncompiled",
    "unregister",
]
