"""The columns of a results row that say what was quantized."""

from __future__ import annotations

import msgspec
from torch import nn

from isofire.adapters import is_integer
from isofire.quantization.verbs import spec_of
from isofire.quantizers import ConstantSetting, MembraneSetting, Setting
from isofire.spec import CONSTANT_TARGETS, TARGETS, QuantSpec


def labels_of(spec: QuantSpec | None) -> dict[str, str | float | None]:
    """target, method, bits, range, granularity, placement and options (what else differs from a setting's defaults).

    With several targets quantized, each value is "weights's | membranes's | decays's | ...", except where all are the
    same; weights and membranes together are the target "both", with decays "both+decays". With decays, thresholds or
    biases among several, methods and bits are always told one a target, in the order of `isofire.spec.TARGETS`. A spec
    with rules says so in `method` ("lsq + 2 rules"); None is the full-precision model.
    """
    if spec is None:
        return dict.fromkeys(("method", "range", "granularity", "placement", "options"), None) | {
            "target": "none",
            "bits": 32,
        }
    named = [target for target in TARGETS if getattr(spec, target) is not None]
    parts = [_labels(getattr(spec, target)) for target in named]
    main = [target for target in named if target not in CONSTANT_TARGETS]
    target = "+".join([*(["both"] if len(main) == 2 else main), *(name for name in named if name in CONSTANT_TARGETS)])
    labels = {
        key: _joined([part[key] for part in parts])
        for key in ("method", "bits", "range", "granularity", "placement", "options")
    }
    if len(main) < len(named) > 1:
        labels |= {key: " | ".join(str(part[key]) for part in parts) for key in ("method", "bits")}
    policies = {name: getattr(spec, name) for name in ("first_layer", "last_layer", "reestimate_bn", "correct")}
    defaults = {field.name: field.default for field in msgspec.structs.fields(QuantSpec)}
    changed = [f"{name}={value}" for name, value in policies.items() if value != defaults[name]]
    labels["options"] = " ".join([*([str(labels["options"])] if labels["options"] else []), *changed]) or None
    if spec.rules:
        labels["method"] = f"{labels['method'] or 'rules'} + {len(spec.rules)} rules"
    return {"target": target if parts else "rules", **labels}


def labels_of_model(model: nn.Module) -> dict[str, str | float | None]:
    """Of the spec that a model was quantized by; integers of a network without one are the target "integers"."""
    spec = spec_of(model)
    labels = labels_of(spec)
    return {**labels, "target": "integers", "bits": None} if spec is None and is_integer(model) else labels


def _labels(setting: Setting) -> dict[str, str | float | None]:
    if isinstance(setting, ConstantSetting):
        about = {"method": setting.label, "bits": setting.nominal_bits, "options": setting.options_label}
        return dict.fromkeys(("range", "granularity", "placement")) | about
    membrane = isinstance(setting, MembraneSetting)
    granularity = setting.level_granularity
    return {
        "method": setting.label,
        "bits": setting.nominal_bits,
        "range": setting.range_label,
        "granularity": "layer" if membrane and granularity == "tensor" else granularity,
        "placement": setting.placement if membrane else None,
        "options": setting.options_label,
    }


def _joined(values: list[str | float | None]) -> str | float | None:
    kept = [value for value in dict.fromkeys(values) if value is not None]
    if len(kept) < 2:
        return kept[0] if kept else None
    return " | ".join(str(value) for value in kept)
