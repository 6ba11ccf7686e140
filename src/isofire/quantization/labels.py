"""The columns of a results row that say what was quantized."""

from __future__ import annotations

import msgspec

from isofire.quantizers import MembraneSetting, Setting
from isofire.spec import QuantSpec


def labels_of(spec: QuantSpec | None) -> dict[str, str | float | None]:
    """target, method, bits, range, granularity, placement and options (what else differs from a setting's defaults).

    With both targets quantized, each value is "weights's | membranes's", except where the two are the same. A spec with
    rules says so in `method` ("lsq + 2 rules"); None is the full-precision model.
    """
    if spec is None:
        return dict.fromkeys(("method", "range", "granularity", "placement", "options"), None) | {
            "target": "none",
            "bits": 32,
        }
    parts = [_labels(setting) for setting in (spec.weights, spec.membrane) if setting is not None]
    target = "both" if len(parts) == 2 else "weights" if spec.weights is not None else "membrane"
    labels = {
        key: _joined([part[key] for part in parts])
        for key in ("method", "bits", "range", "granularity", "placement", "options")
    }
    policies = {name: getattr(spec, name) for name in ("first_layer", "last_layer", "reestimate_bn", "correct")}
    defaults = {field.name: field.default for field in msgspec.structs.fields(QuantSpec)}
    changed = [f"{name}={value}" for name, value in policies.items() if value != defaults[name]]
    labels["options"] = " ".join([*([str(labels["options"])] if labels["options"] else []), *changed]) or None
    if spec.rules:
        labels["method"] = f"{labels['method'] or 'rules'} + {len(spec.rules)} rules"
    return {"target": target if parts else "rules", **labels}


def _labels(setting: Setting) -> dict[str, str | float | None]:
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
