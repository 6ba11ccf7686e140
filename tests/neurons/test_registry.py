"""Neurons by name, and one of another package in a network that trains, is quantized, recorded, saved and loaded."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError
from isofire.neurons import (
    IF,
    LIF,
    NEURONS,
    Dynamics,
    MembraneQuantizer,
    Neuron,
    ParametricLIF,
    Sigmoid,
    Surrogate,
    register_neuron,
)  # fmt: skip
from isofire.neurons.registry import name_of
from isofire.quantizers import Uniform


@pytest.fixture(scope="module")
def adaptive() -> Any:
    """The class of the package in `tests/plugin`, not registered."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "plugin" / "src"))
    try:
        return importlib.import_module("isofire_plugin.neuron").AdaptiveLIF
    finally:
        del sys.path[0]


def test_isofires_own() -> None:
    assert [NEURONS[name] for name in ("if", "lif", "plif")] == [IF, LIF, ParametricLIF]
    assert name_of(LIF()) == "lif"
    assert name_of(type("Mine", (LIF,), {})()) is None


@pytest.mark.parametrize("thing", [nn.ReLU, LIF(), "lif"])
def test_only_neurons_are_registered(thing: Any) -> None:
    with pytest.raises(SpecError, match=r"the neuron 'mine' must be a subclass of isofire.neurons.Neuron"):
        register_neuron("mine", thing)


def test_a_step_of_a_neuron_with_a_state_of_its_own(adaptive: Any) -> None:
    x = torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(1)) * 4
    neuron = adaptive(2.0, rise=0.5, memory=0.75, surrogate=Sigmoid(3.0))
    for image in range(2):
        for unit in range(3):
            v, a, expected = 0.0, 0.0, []
            for value in x[:, image, unit].tolist():
                h = v + (value - v) / 2
                s = float(h >= 1 + 0.5 * a)
                v, a = (0.0 if s else h), 0.75 * a + s
                expected.append(s)
            assert neuron(x)[:, image, unit].tolist() == expected
    assert 0.2 < neuron(x).mean() < 0.8


def test_the_gradient_goes_through_its_threshold(adaptive: Any) -> None:
    # both steps charge to 1.25. A spike at step 1 raises the threshold of step 2 by .5 and empties the membrane,
    # half of which would be left in h2: d (h2 - threshold) / d s1 = -.625 - .5, and d s1 / d x1 = slope(.25) / 2
    neuron = adaptive(2.0, rise=0.5, memory=0.0, surrogate=Sigmoid(3.0))
    x = torch.tensor([2.5, 2.5], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    neuron(x)[1].sum().backward()

    def slope(d: float) -> float:
        s = 1 / (1 + 2.718281828459045 ** (-3 * d))
        return 3 * s * (1 - s)

    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([-slope(-0.25) * 1.125 * slope(0.25) / 2, slope(-0.25) / 2])


def test_what_declares_no_fast_path_runs_in_the_reference_and_refuses_to_be_forced(adaptive: Any) -> None:
    x = torch.rand(3, 2, 4)
    for backend in ("native", "torch"):
        neuron = adaptive()
        neuron.backend = backend
        with pytest.raises(ModelError, match=f"backend '{backend}' does not know AdaptiveLIF; use 'auto'"):
            neuron(x)
    neuron = adaptive()
    neuron.membrane = MembraneQuantizer(Uniform(2, range=(0.0, 1.5)), "pre_fire")
    assert neuron(x, repeat=None).shape == x.shape
    assert neuron(x[0], norm=nn.BatchNorm1d(4), repeat=5).shape == (5, 2, 4)


@pytest.mark.parametrize(
    ("charge", "told"),
    [
        (lambda x, state: 0.7 * state + x, r"failed: TypeError: can't multiply .*; states are tuples"),
        (lambda x, state: state[0] + x, "must give a tuple of 1, as the state is, got Tensor; states are tuples"),
        (lambda x, state: (state[0] + x, x), "must give a tuple of 1, as the state is, got 2 tensors"),
        (lambda x, state: [state[0] + x], "must give a tuple of 1, as the state is, got list"),
    ],
)
def test_a_charge_that_takes_the_state_for_a_tensor_is_told_so(charge: Any, told: str) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Dynamics):
        def charge(self, x: Tensor, state: Any, tensors: Any = ()) -> Any:
            return charge(x, state)

    with pytest.raises(ModelError, match=rf"charge\(x, state, tensors\) of {__name__}.*Mine {told}"):
        Neuron(Mine())(torch.rand(3, 2, 4))


def test_dynamics_with_options_in_the_brackets_are_told_to_be_dataclasses() -> None:
    with pytest.raises(
        SpecError, match=r"@dataclass\(frozen=True, kw_only=True\) above class Mine\(\.\.\.\), without frozen"
    ):

        class Mine(Dynamics, frozen=True, kw_only=True):  # type: ignore[call-arg]
            pass


class Step(Surrogate):
    """A surrogate of the user's own."""

    def slope(self, distance: Tensor) -> Tensor:
        return (distance.abs() < self.alpha).to(distance.dtype)


def test_a_surrogate_that_the_kernels_do_not_know(currents: Any, run: Any) -> None:
    x = currents(4, 3, 5)
    (spikes, gradients), (expected, wanted) = (
        run(LIF(surrogate=Step(0.5), backend=b), x) for b in ("auto", "reference")
    )
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(gradients[0], wanted[0])
    with pytest.raises(ModelError, match=r"backend 'native' (does not know the surrogate Step|needs the compiled)"):
        LIF(surrogate=Step(0.5), backend="native")(x)


MAKE = """
import torch, isofire
from isofire.models import build, save_model
torch.manual_seed(0)
config = {"builder": "sew_resnet8", "width": 0.125, "T": 3, "in_channels": 1, "neuron": "adaptive_lif",
          "neuron_options": {"rise": 0.2}}
build({**config, "connect": "and"})
model = build(config)
train, test = (isofire.data.load("digits", split) for split in ("train", "test"))
before = {name: value.clone() for name, value in model.state_dict().items()}
images, labels = next(iter(train.batches(64)))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(3):
    loss = torch.nn.functional.cross_entropy(model.train()(images).mean(0), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4, "range": "minmax"})
quantized = isofire.quantize_(model.eval(), spec, train)
save_model("net.safetensors", quantized)
images = next(iter(test.batches(32)))[0]
with torch.no_grad():
    torch.save(quantized(images), "logits.pt")
"""
LOAD = """
import torch, isofire
import isofire.firing
from isofire.models import load_model
images = next(iter(isofire.data.load("digits", "test").batches(32)))[0]
model = load_model("net.safetensors")[0]
with torch.no_grad():
    assert torch.equal(model(images), torch.load("logits.pt"))
kinds = {type(m).__name__ for m in model.modules() if isinstance(m, isofire.neurons.Neuron)}
assert kinds == {"AdaptiveLIF"}, kinds
with isofire.firing.FiringRecorder(model) as recorder, torch.no_grad():
    spikes = model(images)
assert all(layer.sum() > 0 for layer in recorder.counts.counts.values())
from isofire.cli import main
assert main(["compare", "net.safetensors", "net.safetensors", "--data", "digits", "--n", "64", "--device", "cpu"]) == 0
raise SystemExit(main(["export", "net.safetensors", "--out", "net.nir", "--data", "digits"]))
"""


def test_another_packages_neuron_from_training_to_a_file_that_a_fresh_process_loads(
    plugin_path: str, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": plugin_path}

    def fresh(script: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    made = fresh(MAKE)
    assert made.returncode == 0, made.stderr
    loaded = fresh(LOAD)
    assert loaded.returncode == 2, loaded.stderr
    assert "is a AdaptiveLIF" in loaded.stderr
    environment["PYTHONPATH"] = plugin_path.split(os.pathsep)[-1]
    without = fresh("from isofire.models import load_model; load_model('net.safetensors')")
    assert "unknown neuron 'adaptive_lif'" in without.stderr
