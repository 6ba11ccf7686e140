"""Groups of cells: every combination once, exclusions that must match, mistakes named with their place."""

from __future__ import annotations

import msgspec
import pytest

from isofire.config.cells import CellGroup, Exclusions, combinations
from isofire.errors import SpecError
from isofire.spec import LQNetWeights, LSQWeights, QuantSpec, UniformMembrane, UniformWeights


def points(**settings) -> list:
    return [(found.mode, found.spec) for found in combinations(CellGroup(**settings), "cells[0]")]


def test_modes_times_axes_times_bits_the_last_fastest() -> None:
    found = points(bits=(2, 4), weights={"method": "uniform"}, axes={"weights.range": [[-1.0, 1.0], "mse"]})
    spans = [((-1.0, 1.0), 2), ((-1.0, 1.0), 4), ("mse", 2), ("mse", 4)]
    specs = [QuantSpec(weights=UniformWeights(bits=bits, range=span)) for span, bits in spans]
    assert found == [(mode, spec) for mode in ("ptq", "qat") for spec in specs]


def test_bits_are_those_of_both_targets() -> None:
    (found,) = points(mode=("ptq",), bits=(3,), weights={"method": "lsq"}, membrane={"range": [0.0, 1.0]})
    assert found[1] == QuantSpec(weights=LSQWeights(bits=3), membrane=UniformMembrane(bits=3, range=(0.0, 1.0)))


def test_without_targets_it_is_a_control() -> None:
    assert points() == [("ptq", None), ("qat", None)]


def test_methods_can_be_an_axis_and_further_settings_hold_for_all() -> None:
    found = points(mode=("ptq",), bits=(2,), axes={"weights.method": ["lsq", "lqnet"]}, spec={"reestimate_bn": "never"})
    assert [spec for _, spec in found] == [
        QuantSpec(weights=LSQWeights(bits=2), reestimate_bn="never"),
        QuantSpec(weights=LQNetWeights(bits=2), reestimate_bn="never"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": (40,), "weights": {"method": "lsq"}}, r"got 40.*cells\[0\], weights.bits = 40"),
        ({"bits": (), "weights": {"method": "lsq"}}, r"cells\[0\].bits must name one or more"),
        ({"axes": {"weight.bits": [2]}}, r"must be a setting.*'weight.bits' \(cells\[0\].axes\)"),
        ({"axes": {"weights.granularty": ["tensor"]}, "weights": {"method": "lsq"}}, "did you mean 'granularity'"),
        ({"axes": {"weights.bits": []}}, "at least one value"),
        ({"bits": (2,)}, "bits are bits of weights or membrane"),
        ({"mode": ()}, "mode must be one or both"),
        ({"weights": {"method": "lsp", "bits": 2}}, "lsp"),
    ],
)
def test_refused(settings, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        points(**settings)


def test_exclusions_match_values_and_lists_of_values() -> None:
    group = CellGroup(bits=(2, 4, 8), axes={"weights.method": ["lqnet", "uniform"]})
    exclusions = Exclusions(
        [{"weights.bits": 8, "weights.method": "lqnet"}, {"mode": "qat", "weights.bits": [2, 4]}], "exclude"
    )
    left = [found.values for found in combinations(group, "cells[0]") if not exclusions.match(found.values)]
    told = [(values["mode"], values["weights.method"], values["weights.bits"]) for values in left]
    assert told == [
        ("ptq", "lqnet", 2), ("ptq", "lqnet", 4), ("ptq", "uniform", 2), ("ptq", "uniform", 4), ("ptq", "uniform", 8),
        ("qat", "uniform", 8),
    ]  # fmt: skip
    exclusions.check()


def test_a_span_is_excluded_as_it_is_written() -> None:
    group = CellGroup(mode=("ptq",), bits=(2,), membrane={}, axes={"membrane.range": [[-1.0, 1.0], [0.0, 1.0]]})
    exclusions = Exclusions([{"membrane.range": [0.0, 1.0]}], "exclude")
    assert [exclusions.match(found.values) for found in combinations(group, "cells[0]")] == [False, True]


def test_an_exclusion_that_matches_nothing_is_a_mistake() -> None:
    exclusions = Exclusions([{"weights.bit": 2}], "cells[3].exclude")
    assert not exclusions.match({"weights.bits": 2})
    with pytest.raises(SpecError, match=r"matches none \(cells\[3\].exclude\[0\]\)"):
        exclusions.check()
    with pytest.raises(SpecError, match="must name a value"):
        Exclusions([{}], "exclude")


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="bit"):
        msgspec.convert({"bit": [2]}, CellGroup)


def test_losses_are_an_axis_of_cells_with_training() -> None:
    losses = ({}, {"paired": 1.0}, {"emd": {"cost": "squared"}})
    group = CellGroup(mode=("qat",), bits=(2, 4), weights={"method": "lsq"}, losses=losses)
    found = list(combinations(group, "cells[0]"))
    assert [(point.spec.weights.bits, point.losses) for point in found] == [  # type: ignore[union-attr]
        (bits, table) for bits in (2, 4) for table in losses
    ]
    assert found[1].values["losses"] == {"paired": 1.0}
    with pytest.raises(SpecError, match=r"unknown loss 'pared'.*cells\[0\].losses\[1\]"):
        list(combinations(CellGroup(mode=("qat",), losses=({}, {"pared": 1})), "cells[0]"))
    with pytest.raises(SpecError, match=r'set mode = \["qat"\] \(cells\[0\].losses'):
        list(combinations(CellGroup(losses=({"paired": 1.0},)), "cells[0]"))


def test_decays_thresholds_and_biases_are_targets_of_a_group() -> None:
    fixed = {"method": "fixed", "bits": 8, "fraction": 6}
    found = points(
        mode=("ptq",), bits=(4,), weights={"method": "lsq"}, decays={"method": "bitshift"}, thresholds=fixed,
        biases={"method": "uniform"}, axes={"biases.bits": [4, 8]},
    )  # fmt: skip
    whole = {"weights": {"method": "lsq", "bits": 4}, "decays": {"method": "bitshift"}, "thresholds": fixed}
    assert [spec for _, spec in found] == [
        QuantSpec.from_dict({**whole, "biases": {"method": "uniform", "bits": bits}}) for bits in (4, 8)
    ]
    # as `spec` gives them, so that cells keep their names
    (alone,) = points(mode=("ptq",), decays={"method": "bitshift"})
    assert points(mode=("ptq",), spec={"decays": {"method": "bitshift"}}) == [alone]
    with pytest.raises(SpecError, match="bits are bits of weights or membrane"):
        points(bits=(4,), decays={"method": "bitshift"})
