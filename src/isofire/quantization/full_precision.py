"""Whether a network still holds the full-precision network that it was prepared from."""

from __future__ import annotations

from torch import nn

from isofire.errors import ModelError
from isofire.quantization.calibration import calibrated_on, calibrates_by_layer, membrane_of, reestimates
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.plan import QuantPlan
from isofire.quantization.what_fires import fired_by, what_fires
from isofire.quantizers import MembraneSetting, WeightSetting
from isofire.spec import QuantSpec


def require_full_precision(model: nn.Module, spec: QuantSpec, plan: QuantPlan) -> None:
    """Refuse to calibrate by the firing of the full-precision network where that is no longer there.

    Calibration layer by layer writes what it finds into weights, biases and norms, and training moves them. A second
    one would take those for full precision, and tell a drift against another network. Where it has chosen levels alone
    and nothing has moved since, the second is the first again.

    Raises
    ------
    ModelError
        If the network is converted with its quantized weights, or was calibrated before and is not what it was then.
    """
    if not calibrates_by_layer(spec, plan):
        return
    held = dict(weight_quantizers(model))
    if any(choice.name not in held for choice in plan.chosen("weights")):
        found = "its quantized weights are written in already"
    elif not _is_calibrated(model, plan):
        return
    elif _writes(model, spec, plan):
        found = "it was calibrated before, which moved weights, biases or norms"
    elif (before := fired_by(model)) is None:
        found = (
            "it was calibrated before, its levels came from a file or state dict, and training may have moved its "
            "weights since"
        )
    elif before != what_fires(model):
        found = "it was calibrated before, and its weights, biases or norms have moved since, as by training"
    else:
        return
    raise ModelError(
        f"this network no longer fires as in full precision, which is what layers are calibrated by: {found}; "
        "calibrate what prepare(model, spec) gives of the full-precision one"
    )


def _writes(model: nn.Module, spec: QuantSpec, plan: QuantPlan) -> bool:
    """Whether calibration changes more than quantizers."""
    compensated = any(isinstance(c.setting, WeightSetting) and c.setting.compensates for c in plan.choices)
    return compensated or spec.correct != "never" or reestimates(model, spec)


def _is_calibrated(model: nn.Module, plan: QuantPlan) -> bool:
    """Whether a quantizer has levels that it had not from its setting alone; also of a network from a file."""
    held = dict(weight_quantizers(model))
    found = calibrated_on(model) is not None
    for choice in plan.choices:
        if isinstance(choice.setting, WeightSetting) and not bool(choice.setting.build(1).calibrated):
            found |= bool(held[choice.name].calibrated)
        if isinstance(choice.setting, MembraneSetting) and choice.setting.is_estimated:
            found |= bool(membrane_of(model, choice).quantizer.calibrated)
    return found
