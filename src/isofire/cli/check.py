"""`isofire check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple
from xml.etree import ElementTree

from cyclopts import Group, Parameter

from isofire.cli.floors import FloorChoice
from isofire.cli.named import Against, ModelChoice
from isofire.cli.options import BatchSize, DataChoice, Machine, Output
from isofire.cli.screen import Report
from isofire.errors import SpecError
from isofire.files import is_same_file, write_text
from isofire.firing import MEASURES
from isofire.firing.compare import observe_together, require_order
from isofire.firing.evidence.outcome import check_drop
from isofire.firing.limits import Limits
from isofire.firing.verdict import Finding, Verdict, judge
from isofire.study import environment

EXIT = {"keeps": 0, "fails": 1, "undecided": 3}
"""Exit status of each outcome; 2 is a mistake in what was asked."""

_OPTIONS = (
    "--max-accuracy-drop 0.01, --max-drift 2, --max-dead 0.5, --max-synops 1.1, --max-state-bytes 10000, "
    "--max NAME=LIMIT or --min NAME=LIMIT"
)

_LIMITS = Group("Limits")
_Limit = Annotated[float | None, Parameter(group=_LIMITS, show_default=False)]


def check(
    baseline: Against,
    quantized: Path | None = None,
    /,
    *,
    network: ModelChoice | None = None,
    max_accuracy_drop: _Limit = None,
    max_drift: _Limit = None,
    max_dead: _Limit = None,
    max_synops: _Limit = None,
    max_state_bytes: _Limit = None,
    most: Annotated[tuple[str, ...], Parameter(name="--max", negative=(), show_default=False, group=_LIMITS)] = (),
    least: Annotated[tuple[str, ...], Parameter(name="--min", negative=(), show_default=False, group=_LIMITS)] = (),
    junit: Path | None = None,
    batch_size: BatchSize = 128,
    choice: DataChoice | None = None,
    floor: FloorChoice | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Say whether a quantized network keeps to limits: exit status 0 it keeps, 1 it fails, 3 undecided at this n.

    A limit is kept if the whole 95 % interval keeps to it, and fails if none of it does. Beside a baseline that is no
    better than guessing accuracy is undecided, beside one that never fires firing is.

    ```
    isofire check fp.safetensors q.safetensors -c config.toml --max-synops 1.1 --junit check.xml
    isofire check own-q.safetensors --model nets:build --weights weights.safetensors --data nets:load --max-drift 5
    isofire check fp.safetensors q.safetensors --data digits --max-accuracy-drop 0.01 --max-drift 5
    ```

    Parameters
    ----------
    quantized
        The network that is to be shipped.
    max_accuracy_drop
        Most that accuracy may fall, as a share of images: 0.01 is one point.
    max_drift
        Most that EMD (weighted by neurons) may be, as a multiple of the noise floor.
    max_dead
        Most neurons with a rate below 0.05, as a share of all.
    max_synops
        Most synaptic operations, as a multiple of the baseline's.
    max_state_bytes
        Most memory for membrane states.
    most
        NAME=LIMIT, the most that a measure of firing may be, such as emd_max=0.01 or dead_00=0.1; with an x at the end,
        as in paired_mae=3x, as a multiple of its noise floor. May be repeated.
    least
        NAME=LIMIT, the least that a measure may be, such as spearman=0.9. May be repeated.
    junit
        Also write the outcome as a JUnit XML file; an undecided limit is an error there.
    """
    chosen, beside = network or ModelChoice(), floor or FloorChoice()
    if junit is not None:
        networks = (baseline, quantized, chosen.weights, *beside.control, *beside.seed_model)
        if any(path is not None and is_same_file(path, junit) for path in networks):
            raise SpecError(f"--junit {junit} names a network; name the XML file to write")
        # what a check that comes to no verdict leaves behind must not be the last one's
        write_text(junit, _junit([_Case("verdict", "error", "undecided", "none", "the check came to no verdict")], ""))
    named = (max_accuracy_drop, max_drift, max_dead, max_synops, max_state_bytes)
    if not (most or least or any(value is not None for value in named)):
        raise SpecError(f"say what it has to keep to: at least one limit, of {_OPTIONS}")
    if max_accuracy_drop is not None:
        check_drop("--max-accuracy-drop", max_accuracy_drop)
    limits = Limits(
        accuracy_drop=max_accuracy_drop,
        drift=max_drift,
        dead_share=max_dead,
        synops=max_synops,
        state_bytes=max_state_bytes,
        most=dict(_read(text, "--max") for text in most if not text.endswith("x")),
        least=dict(_read(text, "--min") for text in least),
        multiples=dict(_read(text.removesuffix("x"), "--max") for text in most if text.endswith("x")),
    )
    place = (machine or Machine()).claim()
    (first, _), (second, _) = chosen.open_pair("check", baseline, quantized)
    require_order(first, second, chosen.names_of_pair(baseline, quantized))
    data = (choice or DataChoice()).load()
    before, after = observe_together(
        (first, second), data, batch_size=batch_size, device=place, probe=limits.needs_probe
    )
    against = beside.of(before, data, batch_size, place, chosen.open)
    verdict = judge(before, after, limits, quantized=second, floor=against)
    if junit is not None:
        write_text(junit, to_junit(verdict, str(quantized or baseline)))
    document = {**verdict.to_dict(), "row": verdict.comparison.row(), "environment": environment(place)}
    return Report(document, verdict.table(), EXIT[verdict.outcome])


def _read(text: str, option: str) -> tuple[str, float]:
    name, _, limit = text.partition("=")
    try:
        return name, float(limit)
    except ValueError:
        example = "3x" if option == "--max" else "0.9"
        raise SpecError(
            f"{option} takes NAME=LIMIT, such as {option} spearman={example}, got {text!r}; names: "
            f"{', '.join(MEASURES)}"
        ) from None


def to_junit(verdict: Verdict, name: str) -> str:
    """A JUnit test suite with a test case a limit: a limit that fails is a failure, an undecided one an error."""
    return _junit([_case(finding) for finding in verdict.findings], name)


class _Case(NamedTuple):
    name: str
    kind: str
    outcome: str
    message: str
    text: str


def _case(finding: Finding) -> _Case:
    kinds = {"keeps": "system-out", "fails": "failure", "undecided": "error"}
    message = (
        f"{finding.value:.6g} (95 %: {finding.low:.6g} .. {finding.high:.6g}), at {finding.at} {finding.limit:.6g}"
    )
    more = "" if finding.enough is None else f"; about {finding.enough:,} images would decide it"
    return _Case(finding.name, kinds[finding.outcome], finding.outcome, message, f"{finding.about}{more}")


def _junit(cases: list[_Case], name: str) -> str:
    count = {kind: str(sum(case.kind == kind for case in cases)) for kind in ("failure", "error")}
    suite = ElementTree.Element(
        "testsuite", name="isofire check", tests=str(len(cases)), failures=count["failure"], errors=count["error"]
    )
    for case in cases:
        element = ElementTree.SubElement(suite, "testcase", classname=name, name=case.name)
        if case.kind == "system-out":
            ElementTree.SubElement(element, case.kind).text = f"{case.message}; {case.text}"
        else:
            ElementTree.SubElement(element, case.kind, type=case.outcome, message=case.message).text = case.text
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
