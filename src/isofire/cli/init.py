"""`isofire init`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import nn

from isofire.adapters import find_neurons, framework_of, no_neurons
from isofire.cli.earlier import Force
from isofire.cli.named import ModelChoice, is_nir
from isofire.cli.options import Output, SetChoice
from isofire.cli.screen import Report
from isofire.config import DataSettings
from isofire.errors import OutputError, SpecError
from isofire.files import write_text
from isofire.firing import observe
from isofire.firing.evidence.chance import Chance
from isofire.models import is_named
from isofire.models.pretrained import REGISTER
from isofire.quantization import make_plan
from isofire.quantization.presets import where_stored
from isofire.quantizers.setting import Placement
from isofire.spec import QuantSpec
from isofire.study import load_split

_LOOK = 100
"""Images that the network is asked on, for its steps, the sizes of its layers and whether it knows its classes."""
_SHOWN = 8
"""Modules that a comment names."""

_THREADS = "(where other programs use the same cores, quantize with --threads 1: several times faster)"

_ENDS = {"first_layer": "quantize", "last_layer": "quantize"}

_OUT = "Folder for quantize.toml and sweep.toml; made if it is missing."


def init(
    network: Path | None = None,
    /,
    *,
    choice: ModelChoice | None = None,
    data: SetChoice | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help=_OUT)] = Path("."),
    force: Force = False,
    output: Output | None = None,
) -> Report:
    """Write commented configurations for a network and data that you have, and say what to run with them.

    It asks the network itself: its library, neurons, steps and layers stand in the comments. quantize.toml quantizes it
    in one way, sweep.toml in a grid of ways.

    ```
    isofire init --model nets:build --weights weights.safetensors --data nets:load -o start
    isofire init sew_resnet8-digits --data digits -o start
    ```

    Parameters
    ----------
    network
        A file that isofire wrote, a pretrained network's name, or a FILE.nir; or give --model.
    """
    chosen, sets = choice or ModelChoice(), data or SetChoice()
    model, note = chosen.open(network)
    settings = _data_of(sets, note)
    found = _look(model, settings)
    quantizing, sweeping, reporting = _next(out, network, chosen, settings.name)
    files = {
        "quantize.toml": _quantize(found, settings, quantizing),
        "sweep.toml": _sweep(found, settings, sweeping, _baseline(network, chosen)),
    }
    for name in files:
        if (out / name).exists() and not force:
            raise OutputError(f"{out / name} is there already; give --force to write over it, or another --out")
    written = [str(write_text(out / name, text)) for name, text in files.items()]
    doubt = found.chance.doubt
    said = [found.told, *([f"! the network is {doubt}"] if doubt else []), "", *(f"wrote {name}" for name in written)]
    said += ["", "next:", *(f"  {line}" for line in (quantizing, sweeping, reporting)), "", _THREADS]
    about = {"library": found.library, "T": found.steps, "neurons": found.neurons, "weights": list(found.weights)}
    about["chance"] = found.chance.to_dict()
    return Report({**about, "files": written}, "\n".join(said))


@dataclass(frozen=True)
class _Found:
    library: str
    kinds: tuple[str, ...]
    neurons: dict[str, int]
    weights: tuple[str, ...]
    steps: int
    chance: Chance
    placement: Placement | None
    """Where membranes can be quantized, those after the reset before others; None: nowhere."""
    refused: dict[str, str]
    """Neurons whose membranes cannot be quantized there -> why."""

    @property
    def only_ends(self) -> bool:
        """Whether all layers with weights are the first and the last."""
        return len(self.weights) <= 2

    @property
    def told(self) -> str:
        """In a sentence."""
        kinds = ", ".join(self.kinds)
        return (
            f"a network of {self.library}: T = {self.steps}, {len(self.neurons)} layers of neurons ({kinds}; "
            f"{sum(self.neurons.values()):,} neurons), {len(self.weights)} layers with weights; right on "
            f"{100 * self.chance.accuracy.estimate:.1f} % of {self.chance.images} images"
        )


def _data_of(sets: SetChoice, note: dict[str, Any]) -> DataSettings:
    given = sets.given()
    if "name" not in given:
        noted = note.get("data")
        known = noted.get("name") if isinstance(noted, dict) else None
        if not isinstance(known, str):
            raise SpecError("init needs data to ask the network with; give --data digits, cifar10, ... or nets:load")
        given["name"] = known
    return DataSettings(**given)


def _look(model: nn.Module, settings: DataSettings) -> _Found:
    """Ask the network on a few images."""
    neurons = find_neurons(model)
    if not neurons:
        raise no_neurons(model)
    plan = make_plan(model, QuantSpec.from_dict({"weights": {"method": "uniform", "bits": 8}, **_ENDS}))
    weights = tuple(choice.name for choice in plan.choices if choice.target == "weights")
    frameworks = {framework_of(neuron) for neuron, _ in neurons.values()}
    titles = sorted({"isofire" if framework is None else framework.title for framework in frameworks})
    kinds = tuple(dict.fromkeys(type(neuron).__name__ for neuron, _ in neurons.values()))
    with torch.inference_mode():
        seen = observe(model, load_split(settings, "test"), max_images=_LOOK, batch_size=_LOOK)
    sizes = {name: seen.counts.n_neurons(name) for name in seen.counts.layers}
    placement, refused = where_stored(neurons)
    return _Found(" and ".join(titles), kinds, sizes, weights, seen.counts.steps, seen.chance, placement, refused)


def _header(found: _Found, what: str, run: str) -> str:
    names = ", ".join(found.weights[:_SHOWN]) + (", ..." if len(found.weights) > _SHOWN else "")
    layers = [f"#   {name}  ({size:,} neurons)" for name, size in list(found.neurons.items())[:_SHOWN]]
    if len(found.neurons) > _SHOWN:
        layers.append(f"#   and {len(found.neurons) - _SHOWN} more")
    lines = [f"# {what}", f"# {found.told}.", "# layers of neurons:", *layers, f"# weights: {names}", f"# run: {run}"]
    return "\n".join(lines)


def _data_table(settings: DataSettings) -> str:
    lines = ["[data]", f'name = "{settings.name}"']
    lines += [f'root = "{settings.root}"  # its folder'] if settings.root is not None else []
    return "\n".join(lines)


def _quantize(found: _Found, settings: DataSettings, run: str) -> str:
    first, last = found.weights[0], found.weights[-1]
    # of two layers nothing would be left
    kept = "" if found.only_ends else "# "
    return f"""{_header(found, "How to quantize one network.", run)}

seed = 0                       # which images calibrate

{_data_table(settings)}

[quant]
correct = "bias"               # biases that give each layer its firing back; leave out for plain rounding
{kept}first_layer = "quantize"     # {first} stays in full precision unless you say so
{kept}last_layer = "quantize"      # {last} too

[quant.weights]
method = "gptq"                # rounding that makes errors good; also uniform, lsq, lqnet, tawq (docs/spec.md)
bits = 4

{_membrane_table(found)}
# [[quant.rules]]              # another setting for some layers, by name or "re:PATTERN"
# match = "{first}"
# weights = {{ method = "uniform", bits = 8 }}

[calibration]
images = 1024                  # for batch norm, ranges and levels
"""


def _membrane_table(found: _Found) -> str:
    if found.placement is None:
        return f"# the neurons' state stays in floating point: {_why_nowhere(found)}\n"
    late = found.placement == "post_reset"
    lines = [
        "[quant.membrane]               # the neurons' state; leave the table out to keep it in floating point",
        'method = "firing"              # levels by the rates they give; also uniform',
        f"bits = {2 if late else 6}",
        *([] if late else [f"{_PLACE.ljust(31)}# {_BEFORE}"]),
    ]
    for name, why in found.refused.items():
        lines += ["", f"[[quant.rules]]                # {why}", f"match = {json.dumps(name)}", 'membrane = "float"']
    return "\n".join([*lines, ""])


def _membrane_cells(found: _Found) -> str:
    if found.placement is None:
        return f"# the neurons' state stays in floating point: {_why_nowhere(found)}\n"
    late = found.placement == "post_reset"
    rules = ", ".join(f'{{ match = {json.dumps(name)}, membrane = "float" }}' for name in found.refused)
    lines = [
        f"[[cells]]                      # the neurons' state alone{'' if late else f'; {_BEFORE}'}",
        'mode = ["ptq"]',
        f"bits = {'[1, 2, 4]' if late else '[2, 4, 6]'}",
        f'membrane = {{ method = "firing"{"" if late else f", {_PLACE}"} }}',
        *([f"spec = {{ rules = [{rules}] }}"] if rules else []),
    ]
    return "\n".join([*lines, ""])


_PLACE = 'placement = "pre_fire"'
_BEFORE = "these neurons store nothing after the reset, so before the threshold"


def _why_nowhere(found: _Found) -> str:
    """Why no membrane can be quantized anywhere."""
    return "; ".join(dict.fromkeys(found.refused.values()))


def _sweep(found: _Found, settings: DataSettings, run: str, baseline: str) -> str:
    what = "Which bits keep accuracy and firing? Every combination is a cell."
    # first and last layer stay in full precision unless the spec says otherwise; of two layers nothing would be left
    ends = ", ".join(f'{key} = "{value}"' for key, value in _ENDS.items()) if found.only_ends else ""
    plain, corrected = (f"\nspec = {{ {ends} }}" if ends else ""), f'correct = "bias"{f", {ends}" if ends else ""}'
    return f"""{_header(found, what, run)}

name = "which bits"
seeds = [0]                    # one tells of its own network; [0, 1, 2] of what other seeds would give
# test_images = 2000           # compare on the first so many
margins = {{ accuracy = 0.01, firing = 2.0 }}   # what counts as kept (docs/evidence.md)

{_data_table(settings)}

[[baselines]]
name = "network"
{baseline}

[[cells]]                      # the control: quantizes nothing, and shows what the procedure does
mode = ["ptq"]

[[cells]]                      # weights alone
mode = ["ptq"]
bits = [2, 4, 8]
weights = {{ method = "uniform", range = "mse" }}{plain}

[[cells]]                      # weights whose rounding makes errors good
mode = ["ptq"]
bits = [2, 4]
weights = {{ method = "gptq" }}
spec = {{ {corrected} }}

{_membrane_cells(found)}"""


def _baseline(network: Path | None, chosen: ModelChoice) -> str:
    if chosen.model is not None or (network is not None and is_nir(network)):
        lines = [f'builder = "{chosen.model or network}"'] if chosen.model and not is_nir(chosen.model) else []
        weights = network if chosen.model and network is not None else chosen.weights
        lines += [f'file = "{weights.resolve()}"'] if weights is not None else []
        return "\n".join(lines) or "# give the network as --model FILE.nir to isofire sweep"
    assert network is not None
    if str(network) in REGISTER and not network.exists():
        return f'pretrained = "{network}"'
    return f'file = "{network.resolve()}"'


def _next(out: Path, network: Path | None, chosen: ModelChoice, data: str) -> list[str]:
    """What to run with the files: quantize, sweep and report."""
    named = [str(network)] if network is not None else []
    named += ["--model", chosen.model] if chosen.model is not None else []
    named += ["--weights", str(chosen.weights)] if chosen.weights is not None else []
    own = is_named(data) or (chosen.model is not None and not is_nir(chosen.model))
    code = " --allow-code" if own else ""
    quantized = out / "quantized"
    return [
        f"isofire quantize {' '.join(named)} -c {out / 'quantize.toml'}{code} -o {quantized}",
        f"isofire sweep {out / 'sweep.toml'}{code} -o {out / 'sweep'}",
        f"isofire report {out / 'sweep'}",
    ]
