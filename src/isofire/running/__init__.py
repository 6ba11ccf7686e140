"""Running a network that may be the user's: its modes, where it lives, whether its weights are finite, its failures."""

from isofire.running.call import forward
from isofire.running.composite import by_parts
from isofire.running.device import device_of, placed
from isofire.running.finite import require_finite, require_shapes
from isofire.running.modes import evaluating

__all__ = ["by_parts", "device_of", "evaluating", "forward", "placed", "require_finite", "require_shapes"]
