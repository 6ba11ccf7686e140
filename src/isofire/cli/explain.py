"""`isofire explain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from isofire.cli.named import ModelChoice, is_nir
from isofire.cli.options import AllowCode, Output, Settings
from isofire.cli.screen import Report
from isofire.config import read_config, require
from isofire.errors import SpecError
from isofire.models import build, open_model
from isofire.quantization import QuantPlan, describe, make_plan, spec_of
from isofire.spec import QuantSpec


def explain(
    model: Path | None = None,
    /,
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    preset: str | None = None,
    network: ModelChoice | None = None,
    set: Settings = (),
    allow_code: AllowCode = False,
    output: Output | None = None,
) -> Report:
    """Show what is quantized in which module, how, and which rule says so.

    ```
    isofire explain q.safetensors
    isofire explain --config configs/digits-demo.toml --set quant.weights.bits=2
    isofire explain --model nets:build -c spec.toml
    isofire explain sew_resnet8-digits --preset keep-firing
    ```

    Parameters
    ----------
    model
        A file that isofire wrote, a pretrained network's name, or a FILE.nir: its architecture, and what it was
        quantized with unless --config or --preset says something else.
    config
        TOML file whose [quant] table to explain, and whose [model] table where no model is given.
    preset
        A spec by its name instead of the table [quant], such as keep-firing.
    """
    chosen = network or ModelChoice()
    if model is None and config is None and chosen.model is None:
        raise SpecError("explain needs a model file or --config FILE, or --model package.module:builder")
    asked = config is not None or preset is not None
    if not asked and set:
        raise SpecError("--set changes a configuration; give --config FILE or --preset NAME")
    settings = read_config(config, set, allow_code=allow_code, preset=preset) if asked else None
    if settings is not None:
        require(settings, "quant", *(() if model or chosen.model else ("model",)))
    planned = None if settings is None else settings.quant
    if model is not None and is_nir(model) and chosen.model is None:
        model, chosen = None, replace(chosen, model=str(model))
    if chosen.model is not None:
        known, spec = chosen.model, spec_of(chosen.open(model)[0])
    else:
        known, spec = _of_file(model) if model is not None else (settings.model if settings else None, None)
    spec = planned or spec
    if spec is None:
        raise SpecError(f"{chosen.model or model} is in full precision, nothing in it is quantized; {_PLAN}")
    assert known is not None
    plan = make_plan(chosen.fresh() if isinstance(known, str) else build(known), spec)
    return Report({"model": known, "quant": spec.to_dict(), "modules": _modules(plan)}, str(plan))


_PLAN = "give --config FILE or --preset keep-firing for a plan"


def _of_file(path: Path) -> tuple[dict, QuantSpec | None]:
    _, note = open_model(path)
    quantization = note.get("quantization")
    return note["model"], None if quantization is None else QuantSpec.from_dict(quantization)


def _modules(plan: QuantPlan) -> list[dict]:
    return [
        {
            "name": choice.name,
            "kind": choice.kind,
            "target": choice.target,
            "rule": choice.rule,
            "setting": describe(choice.setting),
            "values": None if choice.setting is None else msgspec.to_builtins(choice.setting),
        }
        for choice in plan.choices
    ]
