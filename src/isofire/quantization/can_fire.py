"""Levels that leave a layer no choice: none reaches the threshold, or all do."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, adapter_of
from isofire.errors import SpecError
from isofire.quantization.diagnosis.thresholds import fires
from isofire.quantization.plan import LayerAssignment
from isofire.quantizers import MembraneSetting, Quantizer

_LOG = logging.getLogger(__name__)
_MORE_IMAGES = "; on images on which they would do otherwise, they cannot. Calibrate on more, or others"


def check_can_fire(
    model: nn.Module, choice: LayerAssignment, quantizer: Quantizer, seen: tuple[Tensor, Tensor] | None = None
) -> None:
    """Raise SpecError if at `pre_fire` no level reaches the threshold, so that the neurons could never fire, or all do,
    at either place: at `pre_fire` they would fire at every step, and at `post_reset` nothing below the threshold could
    be stored. Log it if that holds for some channels only.

    Parameters
    ----------
    seen
        Smallest and largest full-precision state of each group. A group that does not fire by itself, or whose states
        all do, is no fault of its levels and never refused; if its levels leave it no choice on other images either,
        that is logged.
    """
    setting = choice.of(MembraneSetting)
    adapter = adapter_of(model.get_submodule(choice.name))
    assert adapter is not None
    if not adapter.has_threshold(model.get_submodule(choice.name)):
        return
    threshold = float(adapter.threshold(model.get_submodule(choice.name)).max())
    bottoms, tops = (ends.tolist() for ends in quantizer.levels().aminmax(dim=1))
    unknown = [True] * len(tops), [True] * len(tops)
    rests, fired = (
        unknown
        if seen is None
        else (
            [not _fires(value, threshold, adapter) for value in seen[0].tolist()],
            [_fires(value, threshold, adapter) for value in seen[1].tolist()],
        )
    )
    before = setting.placement == "pre_fire"
    if before:
        silenced = [top for top, did in zip(tops, fired, strict=True) if did and not _fires(top, threshold, adapter)]
        if silenced and len(silenced) == sum(fired):
            raise _never(choice, silenced[0], threshold)
        _tell_some(choice, len(silenced), len(tops), "can no longer fire: at pre_fire their highest level lies below")
        # of thresholds of their own, the lowest is the first that any of a group's neurons reaches
        lowest = float(adapter.threshold(model.get_submodule(choice.name)).min())
        highest = [] if seen is None else zip(tops, seen[1].tolist(), strict=True)
        mute = [top for top, most in highest if not _fires(max(top, most), lowest, adapter)]
        what = "can never fire, as none did on the calibration images: at pre_fire their highest level lies below"
        _tell_some(choice, len(mute), len(tops), what, _MORE_IMAGES)
    forced = [low for low, did in zip(bottoms, rests, strict=True) if did and _fires(low, threshold, adapter)]
    if forced and len(forced) == sum(rests):
        raise _always(choice, min(forced), threshold)
    what = "fire at every step: at pre_fire" if before else "store nothing below their threshold: at post_reset"
    _tell_some(choice, len(forced), len(tops), f"{what} their lowest level reaches")
    always = [low for low, did in zip(bottoms, rests, strict=True) if not did and _fires(low, threshold, adapter)]
    what = "cannot but fire, as they did on the calibration images: their lowest level reaches"
    _tell_some(choice, len(always), len(tops), what, _MORE_IMAGES)


def _tell_some(choice: LayerAssignment, some: int, of: int, what: str, cure: str = "") -> None:
    if some:
        who = "all neurons" if of == 1 else f"{some} of {of} channels"
        _LOG.warning("%s: %s %s the threshold%s", choice.name, who, what, cure)


def _never(choice: LayerAssignment, top: float, threshold: float) -> SpecError:
    equal = math.isclose(top, threshold, rel_tol=1e-6)
    relation = "is no higher than" if equal else "lies below"
    return SpecError(
        f"{choice.name!r} could never fire: at pre_fire the highest level, {top:g}, {relation} its threshold, "
        f"{threshold:g}{', which it must exceed' if equal else ''} (rule {choice.rule!r}); {_cure(choice, 'above')}, "
        "or use placement 'post_reset'"
    )


def _always(choice: LayerAssignment, bottom: float, threshold: float) -> SpecError:
    place = choice.of(MembraneSetting).placement
    at, cure = f"at {place} the lowest level, {bottom:g}, reaches its threshold, {threshold:g}", _cure(choice, "below")
    if place == "pre_fire":
        return SpecError(
            f"{choice.name!r} would fire at every step, whatever it is given: {at} (rule {choice.rule!r}); {cure}"
        )
    return SpecError(
        f"{choice.name!r} could store nothing below its threshold: {at}, so that it would fire again without input "
        f"(rule {choice.rule!r}); {cure}"
    )


def _cure(choice: LayerAssignment, side: str) -> str:
    """By a key that the method has."""
    setting = choice.of(MembraneSetting)
    fields = setting.__struct_fields__
    if "range" in fields:
        return "take another rule for the range" if setting.is_estimated else "widen the range"
    if "levels" in fields and not setting.is_estimated:
        return f"give levels with one {side} the threshold"
    if "levels" in fields:
        return f"give the levels themselves with one {side} the threshold, take method 'firing' or 'anchored'"
    return "take method 'firing' or 'anchored', which know the threshold"


def _fires(membrane: float, threshold: float, adapter: Adapter) -> bool:
    value, limit = torch.tensor([membrane, threshold], dtype=torch.float64)
    return bool(fires(value, limit, adapter))
