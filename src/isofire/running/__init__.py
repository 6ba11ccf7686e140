"""Running a network that may be the user's: modes, hooks, where it lives, whether its weights are finite, failures."""

from isofire.running.call import forward
from isofire.running.composite import by_parts
from isofire.running.device import device_of, placed
from isofire.running.finite import require_finite, require_shapes
from isofire.running.modes import drawing, evaluating, hooked

__all__ = [
    "by_parts",
    "device_of",
    "drawing",
    "evaluating",
    "forward",
    "hooked",
    "placed",
    "require_finite",
    "require_shapes",
]
