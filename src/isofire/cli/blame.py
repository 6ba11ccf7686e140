"""`isofire blame`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from isofire.cli.lower import EXAMPLES
from isofire.cli.named import ModelChoice, is_bundle
from isofire.cli.options import DataChoice, Machine, Output, QuantChoice, batch_of
from isofire.cli.progress import networks_shown
from isofire.cli.quantizing import Quantizing
from isofire.cli.screen import Report
from isofire.cli.whole import WHOLE
from isofire.errors import SpecError
from isofire.export import read_bundle
from isofire.integer import lower
from isofire.study import blame as measure
from isofire.study import environment, load_splits_or_batches


def blame(
    baseline: Path | None = None,
    integers: Path | None = None,
    /,
    *,
    hardware: str | None = None,
    shift_by: Literal["factor", "log2"] = "factor",
    gain: Literal["keep", "l2"] = "keep",
    asked: QuantChoice | None = None,
    network: ModelChoice | None = None,
    n: Annotated[int | None, WHOLE] = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Show which layer's quantizer makes firing drift: each alone and all but each, after training.

    Needs data, by --data or the table [data], and what is quantized, by --preset or the table [quant]. Of q quantized
    modules it makes and compares 2 q + 2 networks, so choose few images with --n first. With --json it also gives the
    EMD of every layer of neurons for each of them.

    ```
    isofire blame fp.safetensors -c config.toml --n 500
    isofire blame --model nets:build --weights weights.safetensors --data nets:load -c spec.toml
    isofire blame sew_resnet8-digits --preset keep-firing --data digits --n 100
    isofire blame q.safetensors codes --data digits --n 100
    ```

    With --hardware CHIP, or a bundle of integers, it makes each rounding of the integers alone in the float network
    that they come from, quantized or not, and all but each: weights, decays, thresholds and biases of each layer; and
    the states, and biases that act before spikes arrive, on top of all others. Nothing is quantized then.

    Parameters
    ----------
    baseline
        The full-precision network: a model.safetensors that isofire wrote, a pretrained one's name, or a FILE.nir; or
        --model names one of yours. Of integers, the network that they come from.
    integers
        What `isofire export --to bundle` wrote of it.
    hardware
        A preset, such as xylo-a2, speck2f or loihi1, or a chip's TOML file, to lower the network onto.
    shift_by, gain
        As in `isofire lower`.
    n
        How many test images; by default all.
    """
    if integers is None and baseline is not None and is_bundle(baseline):
        # beside what --model builds
        baseline, integers = None, baseline
    if hardware is not None or integers is not None:
        choice = asked or QuantChoice()
        if choice.preset is not None:
            raise SpecError(f"--preset {choice.preset} quantizes, and integers are blamed as they are; leave one out")
        if hardware is not None and integers is not None:
            raise SpecError(f"{integers} holds integers, and --hardware {hardware} makes others; leave one out")
        data = DataChoice(
            data=choice.data, root=choice.root, download=choice.download, config=choice.config, set=choice.set, n=n,
            allow_code=choice.allow_code,
        ).load()  # fmt: skip
        (machine or Machine()).claim()
        (model, _), chosen = (network or ModelChoice()).open(baseline), integers
        if chosen is None:
            made = lower(
                model, batch_of(data, EXAMPLES), hardware=hardware, approximate=True, shift_by=shift_by, gain=gain
            )
        else:
            made = read_bundle(chosen)
        found = measure(model, made, None, data, on_step=networks_shown())
        return Report({**found.to_dict(), "environment": environment("cpu")}, found.table())
    work = Quantizing("blame", baseline, asked, network, machine, n, load_splits_or_batches)
    return work.report(measure(work.model, work.spec, work.train, work.test, **work.how))
