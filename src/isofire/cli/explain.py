"""`isofire explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from isofire.cli.config import read_config, require
from isofire.cli.named import ModelChoice
from isofire.cli.options import AllowCode, Output, Settings
from isofire.cli.screen import Report
from isofire.errors import CheckpointError, SpecError
from isofire.models import build, open_named
from isofire.quantization import QuantPlan, describe, make_plan, spec_of
from isofire.spec import QuantSpec
from isofire.training.checkpoint import read_note


def explain(
    model: Path | None = None,
    /,
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    network: ModelChoice | None = None,
    set: Settings = (),
    allow_code: AllowCode = False,
    output: Output | None = None,
) -> Report:
    """Show what is quantized in which module, how, and which rule says so.

    ```
    isofire explain --config configs/digits-demo.toml
    isofire explain QUANTIZED.safetensors
    isofire explain FP.safetensors -c CONFIG.toml --set quant.weights.bits=2
    isofire explain --model nets:build -c CONFIG.toml
    ```

    Parameters
    ----------
    model
        A file that isofire wrote: its architecture, and what it was quantized with unless --config says something else.
    config
        TOML file whose [quant] table to explain, and whose [model] table where no model is given.
    """
    if network is not None and network.model is not None:
        return _named(network, model, config, set, allow_code)
    if model is None and config is None:
        raise SpecError("explain needs a model file or --config FILE")
    if config is None and set:
        raise SpecError("--set changes a configuration; give --config FILE")
    architecture, spec = _of_file(model) if model is not None else (None, None)
    if config is not None:
        settings = read_config(config, set, allow_code=allow_code)
        require(settings, "quant", *(() if model else ("model",)))
        architecture, spec = architecture or settings.model, settings.quant
    if spec is None:
        raise SpecError(f"{model} is in full precision, nothing in it is quantized; give --config FILE for a plan")
    assert architecture is not None
    plan = make_plan(build(architecture), spec)
    return Report({"model": architecture, "quant": spec.to_dict(), "modules": _modules(plan)}, str(plan))


def _named(choice: ModelChoice, path: Path | None, config: Path | None, set: Settings, allow_code: bool) -> Report:
    """The plan for a network of the user's own code, in full precision; a quantized one's own spec without --config."""
    assert choice.model is not None
    spec = spec_of(choice.open(path)[0])
    if config is not None:
        settings = read_config(config, set, allow_code=allow_code)
        require(settings, "quant")
        spec = settings.quant
    if spec is None:
        raise SpecError(
            f"{choice.model} is in full precision, nothing in it is quantized; give --config FILE for a plan"
        )
    plan = make_plan(open_named(choice.model)[0], spec)
    return Report({"model": choice.model, "quant": spec.to_dict(), "modules": _modules(plan)}, str(plan))


def _of_file(path: Path) -> tuple[dict, QuantSpec | None]:
    note = read_note(path, "weights")
    if "model" not in note:
        raise CheckpointError(f"{path} holds weights without an architecture; name a model.safetensors")
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
