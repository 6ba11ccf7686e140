"""Settings in one short line, for tables."""

from __future__ import annotations

from isofire.spec import (
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
    match setting:
        case None:
            return "float"
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
    return span if isinstance(span, str) else f"[{span[0]:g}, {span[1]:g}]"
