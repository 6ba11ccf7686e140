"""`isofire lower`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from isofire.cli.named import ModelChoice, Network
from isofire.cli.options import DataChoice, Out, Output, batch_of
from isofire.cli.screen import Report
from isofire.cli.whole import WHOLE
from isofire.errors import SpecError

_GOLDEN = 2
"""Images of the golden vectors."""
EXAMPLES = 64
"""Images on which it is seen how large inputs and states become."""


def lower(
    model: Network = None,
    /,
    *,
    hardware: Annotated[
        str | None, Parameter(help="A preset, such as xylo-a2, speck2f or loihi1, or a chip's TOML file. Required.")
    ] = None,
    shift_by: Literal["factor", "log2"] = "factor",
    gain: Literal["keep", "l2"] = "keep",
    out: Out = None,
    batch_size: Annotated[int, WHOLE] = 64,
    network: ModelChoice | None = None,
    choice: DataChoice | None = None,
    output: Output | None = None,
) -> Report:
    """Show what a network becomes on a chip: what it refuses, what is used of it, and what each rounding does.

    Says what the chip does otherwise than the network, layer by layer; the table of resources; every layer's rate in
    the network and on the chip, with each change alone; and, where a layer falls silent or fires otherwise, the
    rounding that did it and what mends it. With --out the integers are written as a bundle, with golden vectors of two
    images (docs/chips.md). Exit status 1 if the chip cannot run the network at all.

    ```
    isofire lower --model nets:build --weights weights.safetensors --data nets:load --hardware xylo-a2
    isofire lower sew_resnet8-digits --hardware loihi1 --data digits --n 100
    ```

    Parameters
    ----------
    shift_by
        Of bit shifts: factor, the nearest to the share that is lost in a step; log2, Rockpool's rule.
    gain
        l2: thresholds follow the change of gain that the chip's decays make.
    batch_size
        Images at once.
    """
    from isofire.export import write_bundle
    from isofire.integer import HardwareSpec, RefusedError
    from isofire.integer import lower as lower_network
    from isofire.integer.hardware import PRESETS

    if hardware is None:
        raise SpecError(
            f"lower shows what becomes of a network on a chip; give --hardware {', '.join(PRESETS)} or a .toml file. "
            "Integers of the network's own, without a chip, are written by isofire export --to c and --to bundle"
        )
    opened, _ = (network or ModelChoice()).open(model)
    data = (choice or DataChoice()).load()
    spec = HardwareSpec.load(hardware)
    example = batch_of(data, EXAMPLES)
    options: dict[str, Any] = {"shift_by": shift_by, "gain": gain}
    try:
        made = lower_network(opened, example, hardware=spec, approximate=True, **options)
    except RefusedError as error:
        document = {"hardware": spec.name, "runs": False, "refusals": _plain(error.refusals)}
        return Report(document, str(error), 1)
    report = _measured(opened, made, example, data, options, batch_size)
    if out is None:
        return report
    codes = made.codes(example)[:, :_GOLDEN]
    written = write_bundle(out, made, codes)
    return Report({**report.document, "folder": str(written)}, f"{report.text}\n\nwrote {written}", report.code)


def _measured(opened: Any, made: Any, example: Any, data: Any, options: dict[str, Any], batch_size: int) -> Report:
    from isofire.integer import diagnose, steps_of

    mapping = made.mapping
    steps = steps_of(opened, made, data, batch_size=batch_size)
    found = diagnose(opened, made, steps, example, data, options=options, batch_size=batch_size)
    said = [f"  {refusal}" for refusal in mapping.refusals] or ["  nothing; the chip runs the network exactly"]
    floor = "" if found is None else f"\n\n{found}"
    text = "\n".join(
        [
            f"what {mapping.spec.title} does otherwise, and was allowed to ({', '.join(mapping.rules) or 'nothing'}):",
            *said, "", mapping.resources.table(), "",
            f"n = {steps.everything.n_images:,} images, T = {steps.everything.T}; rates of layers, and their change",
            steps.table(),
        ]
    )  # fmt: skip
    document = {
        "hardware": mapping.spec.name, "runs": True, "options": options, "refusals": _plain(mapping.refusals),
        "resources": mapping.resources.to_dict(), **steps.to_dict(),
        "finding": None if found is None else found.to_dict(),
    }  # fmt: skip
    return Report(document, text + floor)


def _plain(refusals: Any) -> list[dict[str, str]]:
    return [{"layer": r.layer, "rule": r.rule, "says": r.says, "cure": r.cure} for r in refusals]
