"""Settings in one short line, for tables."""

from __future__ import annotations

import msgspec

from isofire.settings import (
    LQNetWeights,
    LSQWeights,
    MembraneSetting,
    TaWQWeights,
    UniformMembrane,
    UniformWeights,
    WeightSetting,
)


def describe(setting: WeightSetting | MembraneSetting | None) -> str:
    """Such as "uniform 4 bit endpoint [-1, 1] per channel"; "float" for None."""
    if setting is None:
        return "float"
    further = options_label(setting)
    return f"{_main(setting)} {further}" if further else _main(setting)


def _main(setting: WeightSetting | MembraneSetting) -> str:
    match setting:
        case UniformWeights():
            return f"uniform {setting.bits} bit {setting.grid} {range_label(setting)} per {setting.granularity}"
        case UniformMembrane():
            return (
                f"uniform {setting.bits} bit {setting.grid} {range_label(setting)} {setting.placement} "
                f"per {'layer' if setting.granularity == 'tensor' else 'channel'}"
            )
        case LSQWeights():
            return f"lsq {setting.bits} bit per {setting.granularity}"
        case LQNetWeights():
            return f"lqnet {setting.bits} bit {range_label(setting)} per {setting.granularity}".replace("  ", " ")
        case TaWQWeights():
            return f"tawq ternary, {setting.steps} steps"


def range_label(setting: WeightSetting | MembraneSetting) -> str:
    """The range as text: "[-1, 1]", "mse", "learned" where the quantizer finds its own."""
    match setting:
        case UniformWeights() | UniformMembrane():
            span = setting.range
        case LQNetWeights():
            span = setting.clip if setting.clip is not None else "learned"
        case _:
            span = "learned"
    if not isinstance(span, str):
        return f"[{span[0]:g}, {span[1]:g}]"
    unsigned = isinstance(setting, UniformMembrane) and not setting.signed
    return f"{span} unsigned" if unsigned else span


_SHOWN = {"bits", "grid", "range", "clip", "granularity", "placement", "signed"}


def options_label(setting: WeightSetting | MembraneSetting) -> str | None:
    """Further settings that differ from their defaults, such as "restarts=2"; None if there are none."""
    further = [field for field in msgspec.structs.fields(setting) if field.name not in _SHOWN]
    changed = {field.name: getattr(setting, field.name) for field in further}
    parts = [f"{field.name}={changed[field.name]}" for field in further if changed[field.name] != field.default]
    return " ".join(parts) or None
