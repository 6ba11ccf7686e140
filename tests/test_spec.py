"""QuantSpec: what it accepts, what it refuses and how, and that it survives every trip."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import SpecError
from isofire.spec import LQNetWeights, QuantSpec, Rule, UniformMembrane, UniformWeights

FULL = {
    "weights": {"method": "uniform", "bits": 4, "range": [-10, 10], "granularity": "tensor"},
    "membrane": {"bits": 3, "range": [0, 1], "placement": "post_reset"},
    "rules": [{"match": "fc", "weights": "float"}, {"match": "re:stages.*", "membrane": {"bits": 8}}],
    "last_layer": "quantize",
}


def test_a_dict_and_python_values_give_the_same_spec() -> None:
    built = QuantSpec(
        weights=UniformWeights(bits=4, range=(-10.0, 10.0), granularity="tensor"),
        membrane=UniformMembrane(bits=3, range=(0.0, 1.0), placement="post_reset"),
        rules=(Rule(match="fc", weights="float"), Rule(match="re:stages.*", membrane=UniformMembrane(bits=8))),
        last_layer="quantize",
    )
    assert QuantSpec.from_dict(FULL) == QuantSpec(**FULL) == built
    assert QuantSpec.from_dict(built.to_dict()) == built
    assert QuantSpec.from_dict(built.to_dict()).hash() == built.hash()


def test_the_hash_sees_every_change_that_matters() -> None:
    changes = [{}, {"last_layer": "float"}, {"rules": []}, {"reestimate_bn": "never"}, {"membrane": {"bits": 4}}]
    hashes = {QuantSpec.from_dict(FULL | change).hash() for change in changes}
    assert len(hashes) == len(changes)


def test_toml_at_top_level_or_under_quant(tmp_path) -> None:
    body = 'last_layer = "quantize"\n[{0}weights]\nmethod = "lqnet"\nbits = 3\nclip = [-1, 1]\n'
    plain, nested = tmp_path / "a.toml", tmp_path / "b.toml"
    plain.write_text(body.format(""))
    nested.write_text("[quant]\n" + body.format("quant."))
    expected = QuantSpec(weights=LQNetWeights(bits=3, clip=(-1.0, 1.0)), last_layer="quantize")
    assert QuantSpec.from_toml(plain) == QuantSpec.from_toml(nested) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"method": "lsq", "bits": 0}}, r"bits must be a whole number in 1\.\.16, got 0"),
        ({"weights": {"method": "lsq", "bits": 99}}, r"1\.\.16, got 99; for full precision leave the rule out"),
        ({"weights": {"method": "lqnet", "bits": 9}}, r"1\.\.8, got 9"),
        ({"weights": {"method": "lsq", "bits": "4"}}, "^weights.bits: expected `int`, got '4'"),
        ({"weights": {"method": "lsq", "bit": 4}}, "^weights.bit: unknown key; did you mean 'bits'"),
        (
            {"membrane": {"bits": 4, "range": "aciq"}},
            "^membrane.range: must be .low, high., .*, mse or percentile, got 'aciq'",
        ),
        (
            {"weights": {"method": "lsd", "bits": 4}},
            "^weights.method: unknown weight method 'lsd'; did you mean 'lsq'.*known: .*tawq",
        ),
        ({"weights": {"method": "uniform", "bits": 4, "range": [1, 1]}}, r"low < high, got \[1.0, 1.0\]"),
        ({"weights": {"method": "uniform", "bits": 4, "range": [0, float("inf")]}}, "two finite numbers"),
        ({"membrane": {"bits": 4, "range": [1, 0]}}, r"low < high, got \[1.0, 0.0\]; swap or widen"),
        (
            {"membrane": {"bits": 4, "placement": "later"}},
            "^membrane.placement: must be post_reset or pre_fire, got 'later'",
        ),
        ({"rules": [{"match": "a", "weights": {"method": "lsq", "bits": 77}}]}, r"^rules\[0\]\.weights: .*got 77"),
        ({"first_layer": "half"}, "float.*quantize"),
        ({"weights": {"method": "lsq", "bits": 1}}, "bits"),
        ({"weights": {"method": "uniform", "bits": 1, "grid": "midtread"}}, "bits"),
        ({"weights": {"method": "uniform", "bits": 4, "grid": "midrise", "range": [0, 1]}}, "midrise"),
        ({"weights": {"method": "uniform", "bits": 4, "percentile": 200}}, "percentile"),
        ({"weights": {"method": "uniform", "bits": 4, "refresh": -3}}, "refresh"),
        ({"weights": {"method": "lqnet", "bits": 4, "restarts": -1}}, "restarts"),
        ({"weights": {"method": "tawq", "steps": 0}}, "steps"),
        ({"membrane": {"bits": 4, "signed": False}}, "signed"),
        ({"version": 2}, "version must be 1, got 2"),
        ({"weights": None, "membrane": None, "rules": []}, "quantizes nothing"),
    ],
)
def test_refusals_name_the_value_and_the_place(change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        QuantSpec.from_dict(FULL | change)
    with pytest.raises(SpecError, match=message):
        QuantSpec(**(FULL | change))


def test_an_unknown_key_names_its_place() -> None:
    with pytest.raises(SpecError, match=r"^weigths: unknown key; did you mean 'weights'"):
        QuantSpec.from_dict({"weigths": {}})


def test_settings_built_alone_are_checked_too() -> None:
    with pytest.raises(SpecError, match="got 99"):
        UniformWeights(bits=99)
    with pytest.raises(SpecError, match="low < high"):
        UniformMembrane(bits=2, range=(1.0, -1.0))


@pytest.mark.parametrize("text", ["[weights", "weights = 3\n", "\xff"])
def test_a_file_that_is_no_spec(tmp_path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(SpecError):
        QuantSpec.from_toml(path)
    with pytest.raises(SpecError, match="cannot read"):
        QuantSpec.from_toml(tmp_path / "missing.toml")


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(1, 16),
    lo=st.floats(-100, -0.01),
    hi=st.floats(0.01, 100),
    placement=st.sampled_from(["pre_fire", "post_reset"]),
    granularity=st.sampled_from(["tensor", "channel"]),
)
def test_round_trip_of_any_membrane(bits: int, lo: float, hi: float, placement: str, granularity: str) -> None:
    spec = QuantSpec(
        membrane={"bits": bits, "range": [lo, hi], "placement": placement, "granularity": granularity}  # type: ignore[arg-type]
    )
    assert QuantSpec.from_dict(spec.to_dict()) == spec


def test_a_keyword_that_is_no_field_is_told_with_the_nearest():
    with pytest.raises(
        SpecError, match=r"QuantSpec\.weight: unknown key; did you mean 'weights'\? known here: weights,"
    ):
        QuantSpec(weight={"method": "lsq", "bits": 4})  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"Rule\.wieghts: unknown key; did you mean 'weights'"):
        Rule(match="x", wieghts="float")  # type: ignore[call-arg]
    assert QuantSpec(weights={"method": "lsq", "bits": 4}) == QuantSpec.from_dict(
        {"weights": {"method": "lsq", "bits": 4}}
    )
