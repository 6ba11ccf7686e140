"""`isofire allocate`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from isofire.cli.named import FullPrecision, ModelChoice
from isofire.cli.options import Machine, Output, QuantChoice
from isofire.cli.quantizing import Quantizing
from isofire.cli.screen import Report
from isofire.cli.whole import WHOLE
from isofire.errors import SpecError
from isofire.study import load_splits
from isofire.study.allocation import Budget, Tolerance
from isofire.study.allocation import allocate as choose
from isofire.study.allocation.budget import check_limit

_KIB = 1024.0


def allocate(
    baseline: FullPrecision = None,
    /,
    *,
    asked: QuantChoice | None = None,
    network: ModelChoice | None = None,
    bits: Annotated[tuple[int, ...], WHOLE] = (1, 2, 4, 8),
    weight_kib: float | None = None,
    state_kib: float | None = None,
    total_kib: float | None = None,
    synops: float | None = None,
    energy_uj: float | None = None,
    max_accuracy_drop: float | None = None,
    max_floors: float | None = None,
    n: Annotated[int | None, WHOLE] = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Give each layer bits under a budget, so that firing drifts least, or the least memory within a tolerance.

    Needs data, by --data or the table [data], and the table [quant] or --preset, which says which layers are quantized
    and how; --bits between what to choose. Of q layers and b numbers of bits, q b networks are made to see what each
    does alone, on training images; the choice is exact (an integer program), and made anew where the network misses
    what the sums promised. It is compared on test images, beside one of equal bits everywhere and one by PTQ4SNN's
    rule. With --json the spec, for `quantize`, is in it. Exit status 1 if no network that was made keeps to the limits,
    3 if accuracy is limited and the full-precision network is no better than guessing.

    ```
    isofire allocate fp.safetensors -c config.toml --weight-kib 20 --bits 2 --bits 4 --n 500
    isofire allocate fp.safetensors -c config.toml --max-accuracy-drop 0.01 --max-floors 2 --bits 2 --bits 4 --n 500
    isofire allocate sew_resnet8-digits --preset keep-firing --data digits --total-kib 40 --n 100
    ```

    Parameters
    ----------
    bits
        Numbers of bits to choose from.
    weight_kib, state_kib, total_kib
        A budget: what weights, membrane states (of one image), or both may take, in KiB.
    synops
        A budget: mean synaptic operations of an inference.
    energy_uj
        A budget: estimated energy of an inference, in uJ.
    max_accuracy_drop
        A tolerance: share of images, 0.01 for a point, 0 to lose none; the least memory is taken.
    max_floors
        A tolerance: drift in noise floors of 1,000 images, as `isofire check --max emd_weighted=2x` counts them; the
        least memory is taken.
    n
        How many images to choose on and to compare on; by default all test images.
    """
    limits = _limits(
        {
            "weight_kib": weight_kib,
            "state_kib": state_kib,
            "total_kib": total_kib,
            "synops": synops,
            "energy_uj": energy_uj,
        },
        {"max_accuracy_drop": max_accuracy_drop, "max_floors": max_floors},
    )
    work = Quantizing("allocate", baseline, asked, network, machine, n, load_splits)
    found = choose(work.model, work.spec, bits, limits, work.train, work.test, **work.how)
    kept = all(found.kept.values())
    # that a network which guesses keeps its accuracy says nothing
    guesses = max_accuracy_drop is not None and found.chosen.made.comparison.doubt is not None
    return replace(work.report(found), code=3 if kept and guesses else int(not kept))


def _limits(budget: dict[str, float | None], tolerance: dict[str, float | None]) -> Budget | Tolerance:
    """The limits that options give, by the options' names."""
    given = [any(value is not None for value in part.values()) for part in (budget, tolerance)]
    if all(given):
        raise SpecError(
            "a budget (--weight-kib, --state-kib, --total-kib, --synops, --energy-uj) is kept to with the least drift, "
            "a tolerance (--max-accuracy-drop, --max-floors) with the least memory; give one of the two kinds"
        )
    if not any(given):
        raise SpecError(
            "say what must be kept to: a budget, --weight-kib, --state-kib, --total-kib, --synops or --energy-uj, or a "
            "tolerance, --max-accuracy-drop or --max-floors"
        )
    limits = {}
    for option, value in (tolerance if given[1] else budget).items():
        if value is None:
            continue
        name = option.removeprefix("max_").replace("_kib", "_bytes")
        check_limit(name, value, f"--{option.replace('_', '-')}")
        limits[name] = value * _KIB if option.endswith("_kib") else value
    return Tolerance(**limits) if given[1] else Budget(**limits)
