"""The search for levels, on errors whose best table is known and on a layer of neurons."""

from __future__ import annotations

import pytest
import torch

from isofire import QuantSpec
from isofire.adapters import adapter_of
from isofire.errors import SpecError
from isofire.neurons import IF, LIF, MembraneQuantizer, Neuron
from isofire.quantization.by_firing.levels import States, search
from isofire.quantization.by_firing.membrane import fit_membrane_
from isofire.quantization.by_firing.objective import firing_error
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import Call
from isofire.quantization.plan import LayerAssignment
from isofire.quantizers import Uniform
from isofire.quantizers.methods.firing import FiringMembrane
from isofire.quantizers.table import Table

STATES = States(rest=0.0, threshold=1.0, low=-0.8, high=0.95)


def test_levels_and_edges_of_a_known_optimum_are_found():
    best = Table(torch.tensor([[-0.35, 0.2, 0.7]]), torch.tensor([[-0.65, 0.0, 0.4, 0.9]]))

    def errors(table: Table) -> torch.Tensor:
        return sum((a - b).abs().sum(1) for a, b in zip(table, best, strict=True))

    found = search(errors, 4, STATES, 1)
    for got, wanted in zip(found, best, strict=True):
        torch.testing.assert_close(got, wanted, atol=0.026, rtol=0)


def test_each_channel_finds_its_own():
    tops = torch.tensor([0.3, 0.6, 0.9])

    def errors(table: Table) -> torch.Tensor:
        return (table.levels[:, -1] - tops).abs() + (table.edges[:, 0] - tops / 2).abs()

    found = search(errors, 2, STATES, 3)
    torch.testing.assert_close(found.levels[:, -1], tops, atol=0.026, rtol=0)
    torch.testing.assert_close(found.edges[:, 0], tops / 2, atol=0.026, rtol=0)


def test_many_levels_stay_an_even_grid_about_the_rest():
    def errors(table: Table) -> torch.Tensor:
        return (table.levels[:, 0] + 0.5).abs() + (table.levels[:, -1] - 0.8).abs()

    found = search(errors, 16, STATES, 1)
    assert 0.0 in found.levels.tolist()[0]
    steps = found.levels.diff(dim=1)[0]
    assert float(errors(found)) < 0.06
    assert float(steps.max() / steps.min()) < 3


def test_three_levels_are_1_58_bits():
    setting = FiringMembrane(bits=2, levels=3)
    assert setting.nominal_bits == 1.585
    assert setting.build(1).values.shape == (1, 3)
    assert QuantSpec(membrane=setting).hash() != QuantSpec(membrane=FiringMembrane(bits=2)).hash()


@pytest.mark.parametrize(
    ("bits", "levels", "told"),
    [
        (2, 1, "must be 3 with bits = 2, got 1; leave it out for all 4"),
        (2, 2, "must be 3 with bits = 2, got 2; that many take bits = 1"),
        (2, 4, "must be 3 with bits = 2, got 4; leave it out for all 4"),
        (2, 5, "must be 3 with bits = 2, got 5; that many take bits = 3"),
        (4, 8, "must be 9 to 15 with bits = 4, got 8; that many take bits = 3"),
        (1, 2, "has no place with bits = 1, which are 2 levels, got 2; leave it out"),
    ],
)
def test_levels_that_bits_alone_say_or_cannot_tell_apart_are_refused(bits: int, levels: int, told: str):
    with pytest.raises(SpecError, match=f"levels {told}"):
        FiringMembrane(bits=bits, levels=levels)


def test_specs_from_before_levels_could_be_fewer_keep_their_hash():
    assert QuantSpec(membrane=FiringMembrane(bits=2)).hash() == "d9c85035e8728808"


def layer(neuron: Neuron, seed: int = 0) -> tuple[Replay, torch.Tensor]:
    x = torch.randn(4, 64, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 1.2 + 0.7
    adapter = adapter_of(neuron)
    assert adapter is not None
    replay = Replay(neuron, adapter, [[Call((x[:, :32],), {})], [Call((x[:, 32:],), {})]])
    return replay, replay.counts()


def chosen(setting: FiringMembrane) -> LayerAssignment:
    return LayerAssignment("sn", "LIF", "membrane", setting, "default")


def fitted(neuron: Neuron, **settings: object) -> float:
    replay, target = layer(neuron)
    setting = FiringMembrane(**settings)  # type: ignore[arg-type]
    neuron.membrane = MembraneQuantizer(setting.build(3), setting.placement)
    fit_membrane_(neuron.membrane, chosen(setting), replay, lambda counts: firing_error(counts, target))
    return replay.as_rate(firing_error(replay.counts(), target))


def uniform(neuron: Neuron, bits: int) -> float:
    replay, target = layer(neuron)
    neuron.membrane = MembraneQuantizer(Uniform(bits, range=(0.0, 1.0)), "post_reset")
    return replay.as_rate(firing_error(replay.counts(), target))


@pytest.mark.parametrize("kind", [LIF, IF])
def test_levels_chosen_by_firing_keep_it_better_than_a_fixed_grid(kind: type[Neuron]):
    for bits in (1, 2):
        assert fitted(kind(), bits=bits) < 0.5 * uniform(kind(), bits)


def test_levels_of_each_channel_are_no_worse_than_of_the_layer():
    assert fitted(LIF(), bits=1, granularity="channel") <= fitted(LIF(), bits=1)


def test_a_search_finds_the_same_again():
    assert fitted(LIF(), bits=2) == fitted(LIF(), bits=2)


def test_before_the_threshold_the_first_decision_is_exact():
    neuron = LIF()
    replay, _ = layer(neuron)
    setting = FiringMembrane(bits=2, placement="pre_fire")
    x = replay.batches[0][0].input[:1]
    expected = neuron(x)
    neuron.membrane = MembraneQuantizer(setting.build(3), "pre_fire")
    fit_membrane_(neuron.membrane, chosen(setting), replay, lambda counts: counts.double().mean(1))
    assert torch.equal(neuron(x), expected)
    # also at the threshold itself, and just below it
    at = torch.tensor([2.0, 2.0 * (1 - 2**-24)]).view(1, 1, 1, 1, 2).expand(1, 1, 3, 1, 2)
    assert neuron(at)[0, 0, 0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("neuron", [LIF(v_reset=-0.5), IF(v_threshold=2.0, v_reset=None)], ids=str)
def test_the_code_that_fires_reaches_the_threshold_wherever_the_rest_is(neuron: Neuron):
    adapter = adapter_of(neuron)
    assert adapter is not None
    # hardly ever anything near the threshold
    x = torch.randn(4, 64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.1
    replay = Replay(neuron, adapter, [[Call((x,), {})]])
    setting = FiringMembrane(bits=2, placement="pre_fire")
    quantizer = setting.build(3)
    neuron.membrane = MembraneQuantizer(quantizer, "pre_fire")
    fit_membrane_(neuron.membrane, chosen(setting), replay, lambda counts: counts.double().mean(1))
    assert float(quantizer.levels()[0, -1]) >= neuron.dynamics.v_threshold


def test_one_code_does_not_stand_for_several_spikes():
    neuron = IF(v_reset=None, several=True)
    replay, _ = layer(neuron)
    setting = FiringMembrane(bits=2, placement="pre_fire")
    neuron.membrane = MembraneQuantizer(setting.build(3), "pre_fire")
    with pytest.raises(SpecError, match="one code of firing means 'fires', but this IF may fire several spikes"):
        fit_membrane_(neuron.membrane, chosen(setting), replay, lambda counts: counts.double().mean(1))


@pytest.mark.parametrize("kind", [LIF, IF])
def test_what_a_soft_reset_leaves_is_stored_before_the_threshold_too(kind: type[Neuron]):
    """One code for all that fires would leave each neuron the same after each spike; more bits could not help."""
    few, many = (fitted(kind(v_reset=None), bits=bits, placement="pre_fire") for bits in (3, 6))
    assert many < 0.5 * few
    # as good as where the state after the reset is stored
    assert many < 2 * fitted(kind(v_reset=None), bits=6) + 0.005


def test_codes_that_fire_lie_above_the_threshold_in_equal_bins():
    edge = float(torch.tensor(1.0).nextafter(torch.tensor(0.0)))
    soft = STATES._replace(high=1.8, fire_edge=edge, soft=True)

    def errors(table: Table) -> torch.Tensor:
        # asks for no move: the levels stay where they start
        return torch.ones(table.levels.shape[0])

    found = search(errors, 8, soft, 1)
    # a quarter of 8 codes fire; the first start reaches a quarter of the way from 1 to 1.8
    torch.testing.assert_close(found.levels[0, 6:], torch.tensor([1.05, 1.15]))
    torch.testing.assert_close(found.edges[0, 5:], torch.tensor([edge, 1.1]))
    assert float(found.levels[0, 5]) <= edge
    hard = search(errors, 8, soft._replace(soft=False), 1)
    assert hard.levels[0, 7] == 1.8
    assert float(hard.levels[0, 6]) <= edge
    assert hard.edges[0, 6] == edge
