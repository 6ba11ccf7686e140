"""Biases on chips, behind currents and before spikes arrive, and currents used a step later: measured apart."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from isofire.integer import RefusedError, diagnose, lower, steps_of, with_changes
from isofire.integer.steps import firing_once, resting
from isofire.integer.twin import FLOAT_STEPS
from isofire.neurons import IF, CubaLIF, PerStep, Recurrent
from isofire.study import blame


def network(
    last: Literal["before_decay", "after_decay", "before_input"], *, bias: bool
) -> tuple[nn.Sequential, Tensor]:
    """Three layers of current-based neurons, the middle one recurrent, and spikes for them."""
    torch.manual_seed(11)

    def linear(inputs: int, outputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, bias=bias)
        layer.weight.data.mul_(2.5)
        return layer

    net = nn.Sequential(
        PerStep(linear(8, 12)), CubaLIF(4.0, 2.0),
        PerStep(linear(12, 12)), Recurrent(CubaLIF(8.0, 4.0), linear(12, 12)),
        PerStep(linear(12, 4)), CubaLIF(4.0, 2.0, synapse=last),
    ).eval()  # fmt: skip
    return net, (torch.rand(14, 6, 8) < 0.3).float()


@pytest.mark.parametrize("last", ["before_decay", "after_decay", "before_input"])
@pytest.mark.parametrize("bias", [False, True])
def test_float_networks_with_all_changes_fire_as_a_chip_of_fine_states_that_waits_for_its_spikes(
    last: Any, bias: bool
) -> None:
    net, x = network(last, bias=bias)
    chip = lower(net, x, hardware="loihi1", approximate=True)
    assert chip.mapping is not None
    together = with_changes(net, chip.mapping, FLOAT_STEPS)
    whole = resting(chip) or chip
    assert torch.equal(together(x), whole(x))
    assert float(whole(x).sum()) > 0
    steps = steps_of(net, chip, [(x, torch.zeros(6, dtype=torch.int64))])
    # states of 24 bits do nothing, so that whatever moves the firing has another name
    assert steps.states.overall["emd_layer_mean"] == 0.0
    assert (steps.early is None) == (not bias)
    assert ("before spikes arrive" in steps.table()) == bias


@pytest.mark.parametrize(("chip", "several"), [("loihi1", False), ("xylo-a2", True)])
def test_changes_leave_a_neuron_that_uses_its_current_a_step_later_as_late_as_it_is(chip: str, several: bool) -> None:
    """Chips have none and fire a step earlier; that is no change's doing, since delays make up for it."""

    def neuron() -> CubaLIF:
        common: dict[str, Any] = {"v_reset": None, "several": True} if several else {}
        return CubaLIF(4.0, 3.0, synapse="before_input", v_threshold=2.01, **common)

    net = nn.Sequential(PerStep(nn.Linear(1, 1, bias=False)), neuron(), PerStep(nn.Linear(1, 1, bias=False)), neuron())
    for layer in (net[0][0], net[2][0]):
        layer.weight = nn.Parameter(torch.full((1, 1), 3.001))
    x = torch.zeros(8, 1, 1)
    x[0] = 1.0
    made = lower(net, x, hardware=chip, approximate=True)
    assert made.mapping is not None
    assert net(x).flatten().nonzero()[0].item() == 2
    for name in set(FLOAT_STEPS) & set(made.mapping.rules) - {"spikes"}:
        assert with_changes(net, made.mapping, {name})(x).flatten().nonzero()[0].item() == 2, name
    assert made(x).flatten().nonzero()[0].item() == 2


def test_constant_inputs_that_come_behind_the_current_are_worked_out_by_hand() -> None:
    """V + b tau from the first step on, where the float network's current takes its time."""
    net = nn.Sequential(
        PerStep(nn.Linear(1, 1)), CubaLIF(8.0, 4.0, v_threshold=100.0), PerStep(nn.Linear(1, 1)), CubaLIF(8.0, 4.0)
    )
    net[0][0].bias = nn.Parameter(torch.tensor([0.5]))
    x = torch.zeros(6, 1, 1)
    x[0] = 1.0
    chip = lower(net, x, hardware="loihi1", approximate=True)
    assert chip.mapping is not None
    twin = with_changes(net, chip.mapping, {"biases"})
    given: list[Tensor] = []
    twin[1].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    plain: list[Tensor] = []
    net[1].register_forward_pre_hook(lambda _, args: plain.append(args[0]))
    twin(x), net(x)
    by = (given[0] - plain[0]).flatten()
    # the current of 0.5 * 4, less the 0.5 that the first step brings anyway
    assert by.tolist() == pytest.approx([0.5 * (4.0 - 1.0), 0.0, 0.0, 0.0, 0.0, 0.0], abs=2e-3)


def test_biases_that_move_a_layer_are_named_and_not_its_states() -> None:
    net, x = network("before_input", bias=True)
    data = [(x, torch.zeros(6, dtype=torch.int64))]
    chip = lower(net, x, hardware="loihi1", approximate=True)
    found = diagnose(net, chip, steps_of(net, chip, data), x, data, options={"shift_by": "factor", "gain": "keep"})
    assert found is not None
    assert found.cause == "biases"
    lines = {
        (item.name, item.target): item.alone.overall["emd_layer_mean"]
        for item in blame(net, chip, None, data).quantizers
    }
    assert lines["all layers", "states"] == 0.0
    assert lines["all layers", "biases, early"] > 0.0


def test_several_spikes_before_a_reset_to_0_are_named_spikes_and_not_states() -> None:
    """Speck's neurons fire as often as the threshold fits below their membrane, whatever the reset."""
    torch.manual_seed(0)
    net = nn.Sequential(
        PerStep(nn.Linear(6, 8, bias=False)), IF(v_floor=-1.0), PerStep(nn.Linear(8, 3, bias=False)), IF()
    )
    net[0][0].weight.data.mul_(8.0)
    x = (torch.rand(9, 5, 6) < 0.5).float()
    data = [(x, torch.zeros(5, dtype=torch.int64))]
    chip = lower(net, x, hardware="speck2f", approximate=True)
    assert int(chip.run(chip.codes(x)).spikes["1"].max()) > 1
    once = firing_once(chip)
    assert once is not None
    assert torch.equal(once(x), with_changes(net, chip.mapping, FLOAT_STEPS)(x))  # type: ignore[arg-type]
    steps = steps_of(net, chip, data)
    assert steps.states.overall["emd_layer_mean"] == 0.0
    assert steps.several is not None
    assert steps.several.overall["emd_layer_mean"] > 0.0
    found = diagnose(net, chip, steps, x, data, options={"shift_by": "factor", "gain": "keep"})
    assert found is not None
    assert found.cause == "spikes"
    lines = {(item.name, item.target): item for item in blame(net, chip, None, data).quantizers}
    assert lines["all layers", "spikes, several"].alone.overall == steps.several.overall


def test_currents_that_are_wiped_are_refused_by_a_chip_without_currents() -> None:
    neuron = CubaLIF(3.0, 1.0, synapse="after_decay", v_reset=None)
    net = nn.Sequential(PerStep(nn.Linear(4, 3, bias=False)), neuron)
    with pytest.raises(RefusedError, match="no input reaches its membranes; give every neuron tau_syn > 1"):
        lower(net, torch.ones(5, 2, 4), hardware="speck2f", approximate=True)


@pytest.mark.parametrize(
    ("chip", "place", "said"),
    [
        # the input of step 0 reaches the first layer in the chip's step 1, and charges the float network's in step 1
        ("loihi1", 0, "0.0: biases: its bias acts 1 steps before the first spikes arrive"),
        # without delays the second layer is a step early with the first, and its bias is not
        ("speck2f", 2, "2.0: biases: its bias acts 1 steps after the float network's"),
    ],
)
def test_the_steps_by_which_a_bias_is_early_count_the_one_that_a_current_waits(
    chip: str, place: int, said: str
) -> None:
    net = nn.Sequential(
        PerStep(nn.Linear(2, 2, bias=False)), CubaLIF(4.0, 2.0, synapse="before_input"),
        PerStep(nn.Linear(2, 2, bias=False)), CubaLIF(4.0, 2.0),
    ).eval()  # fmt: skip
    net[place][0].bias = nn.Parameter(torch.tensor([0.25, 0.5]))
    made = lower(net, torch.ones(6, 1, 2), hardware=chip, approximate=True)
    assert said in [str(found).partition(";")[0] for found in made.mapping.refusals]  # type: ignore[union-attr]
