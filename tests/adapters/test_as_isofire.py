"""Networks of snnTorch's neurons as isofire's: the same spikes, integers and a C program, refusals."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import as_isofire
from isofire.errors import ModelError
from isofire.integer import differences, lower
from isofire.neurons import IF, PerStep, Repeat

DOCUMENT = Path(__file__).parents[2] / "docs" / "tutorials" / "integers.md"

snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)

KINDS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: snntorch.Leaky(beta=0.9),
    "zero": lambda: snntorch.Leaky(beta=0.8, reset_mechanism="zero", threshold=1.5),
    "zero at once": lambda: snntorch.Leaky(beta=0.8, reset_mechanism="zero", reset_delay=False),
    "no leak": lambda: snntorch.Leaky(beta=1.0),
    "no memory": lambda: snntorch.Leaky(beta=0.0, reset_mechanism="zero"),
    "each its own": lambda: snntorch.Leaky(beta=torch.linspace(0.5, 0.95, 30), threshold=torch.linspace(0.5, 2.0, 30)),
    "current": lambda: snntorch.Synaptic(alpha=0.7, beta=0.9),
    "current to zero": lambda: snntorch.Synaptic(alpha=0.7, beta=0.9, reset_mechanism="zero", reset_delay=False),
    "never reset": lambda: snntorch.Leaky(beta=0.9, threshold=3.0, reset_mechanism="none"),
    "current never reset": lambda: snntorch.Synaptic(alpha=0.5, beta=0.8, threshold=4.0, reset_mechanism="none"),
    "recurrent": lambda: snntorch.RLeaky(beta=0.9, linear_features=30),
    "recurrent to zero": lambda: snntorch.RLeaky(
        beta=0.8, linear_features=30, reset_mechanism="zero", reset_delay=False
    ),
    "recurrent, each to itself": lambda: snntorch.RLeaky(beta=0.9, V=torch.linspace(-1, 1, 30), all_to_all=False),
    "recurrent current": lambda: snntorch.RSynaptic(alpha=0.6, beta=0.9, linear_features=30),
}


def run(neuron: Any, currents: Tensor) -> Tensor:
    """A loop over steps, as snnTorch's tutorials write it."""
    states, spikes = neuron.reset_mem(), []
    for step in currents:
        fired, *states = neuron(step, *(states if isinstance(states, tuple | list) else (states,)))
        # recurrent ones take the spikes of the step before as their first state
        states = [fired, *states] if hasattr(neuron, "recurrent") else states
        spikes.append(fired)
    return torch.stack(spikes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_spikes_and_integers_of_them(kind: str) -> None:
    torch.manual_seed(1)
    layer, neuron = nn.Linear(16, 30), KINDS[kind]()
    with torch.no_grad():
        layer.weight.mul_(4.0)
        x = torch.rand(25, 20, 16)
        theirs = run(neuron, layer(x))
        net = as_isofire([layer, neuron])
        assert torch.equal(net(x), theirs)
    assert 0.02 < float(theirs.mean()) < 0.9
    integers = lower(net, x, input_bits=14, weight_bits=16)
    assert differences(net, integers, [x]).total < 2e-3 * theirs.numel()


def test_a_membrane_at_the_threshold_does_not_fire_in_integers_either() -> None:
    layer, neuron = nn.Linear(1, 1, bias=False), snntorch.Leaky(beta=1.0, reset_mechanism="zero")
    layer.weight = nn.Parameter(torch.tensor([[0.25]]))
    x = torch.ones(12, 1, 1)
    with torch.no_grad():
        theirs = run(neuron, layer(x))
    # 0.25, 0.5, 0.75, 1.0 and only then above
    assert theirs.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    net = as_isofire([layer, neuron])
    assert torch.equal(net(x), theirs)
    assert torch.equal(lower(net, x)(x), theirs)


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        (lambda: snntorch.Leaky(beta=0.9, reset_delay=False), "subtracts again what stays above the threshold"),
        (lambda: snntorch.Leaky(beta=0.0), "not known where beta is 0"),
        (lambda: snntorch.Leaky(beta=0.9, graded_spikes_factor=2.0), "graded spikes"),
        (lambda: snntorch.Leaky(beta=0.9, graded_spikes_factor=torch.tensor([1.0, 2.0])), "graded spikes"),
        (lambda: snntorch.Synaptic(alpha=0.5, beta=0.9, reset_mechanism="zero"), "loses the input of the step after"),
        (
            lambda: snntorch.RLeaky(beta=0.9, linear_features=2, reset_mechanism="zero"),
            "RLeaky with reset_mechanism='zero' loses the input .* reset_delay=False",
        ),
        (lambda: snntorch.RLeaky(beta=0.9, V=0.5, all_to_all=False), "V of RLeaky is one number"),
        (lambda: snntorch.RLeaky(beta=0.9, linear_features=2, reset_delay=False), "subtracts again"),
        (lambda: snntorch.Alpha(alpha=0.9, beta=0.8), "Alpha has no counterpart"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), snntorch.Leaky(beta=0.9)),
            r"has neurons inside \(1\); give its layers",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_by_place_and_reason(neuron: Any, said: str) -> None:
    with pytest.raises(ModelError, match=f"layer 1 .*{said}"):
        as_isofire([nn.Linear(2, 2), neuron()])


class Leaky(snntorch.Leaky):
    """Fires at half of the threshold, under the library's name."""

    def fire(self, mem: Tensor) -> Tensor:
        return super().fire(2.0 * mem)


def _told_late() -> nn.Module:
    neuron = snntorch.Leaky(beta=0.7)
    # what it does was decided when it was built
    neuron.reset_mechanism = "zero"
    return neuron


def _hooked() -> nn.Module:
    neuron = snntorch.Leaky(beta=0.7)
    neuron.register_forward_hook(lambda _neuron, _inputs, output: (0.0 * output[0], output[1]))
    return neuron


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        (lambda: Leaky(beta=0.7), r"of 180 spikes of a trial are not those of CubaLIF"),
        (_told_late, r"of 180 spikes of a trial are not those of CubaLIF"),
        (_hooked, "it has a hook"),
        (
            lambda: snntorch.RSynaptic(
                alpha=0.4, beta=0.7, linear_features=3, reset_mechanism="none", reset_delay=False
            ),
            r"its own forward fails in a trial \(TypeError",
        ),
    ],
)
def test_a_neuron_that_does_not_fire_as_its_counterpart_is_refused(neuron: Any, said: str) -> None:
    with pytest.raises(ModelError, match=f"layer 1 .*{said}"):
        as_isofire([nn.Linear(2, 3), neuron()])


def test_isofires_own_parts_stay_and_lower_names_the_cure() -> None:
    made = as_isofire(nn.Sequential(PerStep(nn.Linear(2, 2)), IF()))
    assert [type(part) for part in made] == [PerStep, IF]
    with pytest.raises(ModelError, match=r"make it isofire's by isofire\.adapters\.as_isofire"):
        lower(nn.Sequential(nn.Linear(2, 2), snntorch.Leaky(beta=0.9)), torch.ones(3, 1, 2))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_document_goes_from_a_trained_network_to_a_verified_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = DOCUMENT.read_text(encoding="utf-8").split("## A convolutional network")[0]
    train, ten = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    (shell,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len([line for line in f"{ten}{shell}".splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in (train, ten):
        exec(compile(code, str(DOCUMENT), "exec"), names)
    assert "neuron-steps" in capsys.readouterr().out
    assert names["accuracy"] > 0.9
    done = subprocess.run(["bash", "-ec", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


def test_layers_keep_the_names_that_they_are_given() -> None:
    """Then a network and its counterpart are compared layer by layer, images shown for so many steps."""
    torch.manual_seed(0)
    fc, lif = nn.Linear(64, 10), snntorch.Leaky(beta=0.9)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = fc, lif

        def forward(self, x: Tensor) -> Tensor:
            return run(self.lif, self.fc(x.flatten(1)).expand(4, -1, -1))

    images, labels = torch.randn(40, 1, 8, 8), torch.arange(40) % 10
    mine = as_isofire({"repeat": Repeat(4), "flatten": nn.Flatten(), "fc": fc, "lif": lif})
    found = isofire.compare(Net(), mine, (images, labels))
    assert list(found.baseline.layers) == ["lif"]
    assert found.overall["emd_weighted"] == 0
    assert list(found.baseline.rates("lif").shape) == [10]
