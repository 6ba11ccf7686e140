"""Running a network that may be the user's: modes, hooks, where it lives, whether its weights are finite, failures."""

from isofire.running.arguments import by_place
from isofire.running.call import forward, several_steps, single_steps, unchanged
from isofire.running.composite import by_parts
from isofire.running.device import device_of, placed
from isofire.running.finite import require_finite, require_module, require_numbers, require_shapes
from isofire.running.memory import in_common, same_storage
from isofire.running.modes import drawing, evaluating, forked, hooked, seed_generators
from isofire.running.norms import refuse_statistics_of_the_batch, statistics_of
from isofire.running.one_pass import OfOnePass
from isofire.running.own_code import own_code_of, refuse_own_code
from isofire.running.tensors import stored_values, tensors_in

__all__ = [
    "OfOnePass",
    "by_parts",
    "by_place",
    "device_of",
    "drawing",
    "evaluating",
    "forked",
    "forward",
    "hooked",
    "in_common",
    "own_code_of",
    "placed",
    "refuse_own_code",
    "refuse_statistics_of_the_batch",
    "require_finite",
    "require_module",
    "require_numbers",
    "require_shapes",
    "same_storage",
    "seed_generators",
    "several_steps",
    "single_steps",
    "statistics_of",
    "stored_values",
    "tensors_in",
    "unchanged",
]
