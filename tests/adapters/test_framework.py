"""Libraries are found by name, also those of installed packages; none is imported for it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire import registry
from isofire.adapters import Framework, OverTime, find_neurons, register_framework
from isofire.adapters.framework import FRAMEWORKS
from isofire.errors import ModelError, SpecError
from isofire.neurons import LIF, PerStep, Repeat

PLUGIN = Path(__file__).parents[1] / "plugin"
GROUP = "isofire.frameworks"


@pytest.fixture
def tinysnn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library of the plugin package, whose framework is found through the entry points of its pyproject."""
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    offered = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    points = [EntryPoint(name, value, GROUP) for name, value in offered.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == GROUP else ())
    monkeypatch.setattr(FRAMEWORKS, "_looked", False)
    monkeypatch.setattr(FRAMEWORKS, "_known", dict(FRAMEWORKS._known))
    assert "tinysnn" in FRAMEWORKS
    import tinysnn  # pyright: ignore[reportMissingImports]

    yield tinysnn
    for name in ("tinysnn", "isofire_plugin.framework", "isofire_plugin"):
        sys.modules.pop(name, None)


def nets(tinysnn: Any) -> tuple[nn.Module, nn.Module]:
    """The same network of the plugin's cells, in a loop over time, and of isofire's neurons."""
    torch.manual_seed(0)
    first, last = nn.Linear(64, 20), nn.Linear(20, 10)
    theirs = OverTime(nn.Sequential(nn.Flatten(), first, tinysnn.Cell(0.5), last), steps=4)
    own = nn.Sequential(
        Repeat(4), PerStep(nn.Flatten(), first), LIF(2.0, decay_input=False, v_reset=None), PerStep(last)
    )
    return theirs, own


def test_an_outside_librarys_neurons_are_counted_like_isofires_own(tinysnn: Any) -> None:
    theirs, own = nets(tinysnn)
    x = torch.rand(30, 1, 8, 8) * 3
    counts = []
    for model in (theirs, own):
        with isofire.FiringRecorder(model) as recorder, torch.no_grad():
            model(x)
        counts.append(recorder.counts.rates())
    assert float(counts[0].mean()) > 0.1
    assert torch.equal(*counts)


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_its_membranes_are_quantized_as_isofires_own_are(tinysnn: Any, placement: str) -> None:
    spec = isofire.QuantSpec.from_dict({"membrane": {"bits": 3, "range": [-2.0, 2.0], "placement": placement}})
    x = torch.rand(30, 1, 8, 8) * 3
    theirs, own = (isofire.quantize_(net, spec) for net in nets(tinysnn))
    assert torch.equal(theirs(x), own(x))


def test_a_cell_that_passes_the_quantizer_by_is_found_by_the_self_test(tinysnn: Any) -> None:
    theirs, _ = nets(tinysnn)
    cell = next(iter(find_neurons(theirs).values()))[0]
    # the instance's own attribute stands before the host's method
    cell.charge = tinysnn.Cell.charge.__get__(cell)
    with pytest.raises(ModelError, match="the quantizer was called 0 times in 5 steps"):
        isofire.quantize_(theirs, isofire.QuantSpec.from_dict({"membrane": {"bits": 3, "range": [-2.0, 2.0]}}))


def test_the_error_for_a_network_without_neurons_names_all_libraries(tinysnn: Any) -> None:
    with pytest.raises(ModelError, match=r"its own and those of Norse, Sinabs, snnTorch, SpikingJelly, tinysnn\)"):
        isofire.FiringRecorder(nn.Linear(2, 2))


def test_no_library_is_imported_to_look_for_its_neurons() -> None:
    libraries = ["norse", "sinabs", "snntorch", "spikingjelly", "nir"]
    code = (
        "import sys, torch, isofire.adapters as a\n"
        "from isofire.neurons import IF\n"
        "assert len(a.find_neurons(torch.nn.Sequential(IF()))) == 1\n"
        f"assert not [name for name in {libraries} if name in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (LIF, "'mine' must be an object of a subclass of isofire.adapters.Framework, got LIF"),
        (None, "'mine' must be an object of a subclass of isofire.adapters.Framework, got NoneType"),
    ],
)
def test_what_is_no_framework_is_told(given: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        register_framework("mine", given)


def test_a_framework_says_its_title_and_module() -> None:
    class Nameless(Framework):
        def adapter_of(self, module: nn.Module) -> None:
            return None

    with pytest.raises(SpecError, match=r"'mine' \(Nameless\) must set `title`"):
        register_framework("mine", Nameless())
