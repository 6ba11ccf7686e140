from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.config import DataSettings, RunConfig, parse_config, parse_setting, read_config, require
from isofire.errors import SpecError
from isofire.spec import QuantSpec
from isofire.training import Recipe

DATA = {"name": "digits"}
TRAIN = {"epochs": 3, "lr": 0.1}
LSQ = {"weights": {"method": "lsq", "bits": 4}}


def parse(values: dict, *overrides: str, seed: int | None = None) -> RunConfig:
    return parse_config(values, "a.toml", overrides, seed)


def test_everything_at_once():
    found = parse(
        {
            "seed": 7, "out": "runs/x", "model": {"builder": "sew_resnet8", "neuron_options": {"tau": 3.0}},
            "data": {**DATA, "valid": 5}, "train": TRAIN, "qat": {**TRAIN, "epochs": 1}, "quant": LSQ,
            "calibration": {"images": 10},
        }
    )  # fmt: skip
    assert found.model == {"builder": "sew_resnet8", "neuron_options": {"tau": 3.0}}
    assert found.data == DataSettings(name="digits", valid=5)
    assert found.train == Recipe(epochs=3, lr=0.1, seed=7)
    assert found.qat == Recipe(epochs=1, lr=0.1, seed=7)
    assert found.quant == QuantSpec.from_dict(LSQ)
    assert (found.calibration.images, found.seed, found.out) == (10, 7, "runs/x")


def test_nothing_at_all_is_a_configuration_without_tables():
    assert parse({}) == RunConfig()


def test_seed_option_beats_the_file_and_reaches_the_recipes():
    found = parse({"seed": 1, "train": TRAIN}, seed=5)
    assert found.seed == 5
    assert found.train is not None
    assert found.train.seed == 5


def test_settings_lie_over_the_file_and_do_not_change_the_given_values():
    values = {"data": dict(DATA), "quant": {"weights": dict(LSQ["weights"])}}
    found = parse(values, "data.valid=9", "quant.weights.bits=2", "train.epochs=1", "train.lr=1", "data.name=mnist")
    assert found.data == DataSettings(name="mnist", valid=9)
    assert found.quant == QuantSpec(weights={"method": "lsq", "bits": 2})
    assert found.train == Recipe(epochs=1, lr=1)
    assert values == {"data": DATA, "quant": LSQ}


def test_a_setting_can_replace_a_table_or_a_list():
    found = parse(
        {"quant": LSQ}, 'quant.weights={method="lqnet", bits=2}', 'quant.rules=[{match="fc", weights="float"}]'
    )
    assert found.quant == QuantSpec(
        weights={"method": "lqnet", "bits": 2}, rules=({"match": "fc", "weights": "float"},)
    )  # type: ignore[arg-type]


def test_a_setting_reaches_into_a_list_of_tables_and_leaves_the_given_one_alone():
    given = {"quant": LSQ | {"rules": [{"match": "fc", "weights": "float"}, {"match": "a", "weights": "float"}]}}
    found = parse(given, "quant.rules.1.match=stem")
    assert found.quant is not None
    assert [rule.match for rule in found.quant.rules] == ["fc", "stem"]
    assert given["quant"]["rules"][1]["match"] == "a"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1), ("a=1.5", 1.5), ("a=1e-3", 0.001), ("a=true", True), ("a='x y'", "x y"), ("a=x y", "x y"),
        ("a=[1, 2]", [1, 2]), ("a=", ""), ("a=b=c", "b=c"), ("a = 3", 3), ("a={b=1}", {"b": 1}), ("a=1\nb=2", "1\nb=2"),
        ("a=007", "007"), ("a=../dir", "../dir"),
    ],
)  # fmt: skip
def test_values_of_settings(text, value):
    key, found = parse_setting(text)
    assert key == "a"
    assert found == value
    assert type(found) is type(value)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_no_setting_makes_trouble_of_another_kind(text):
    try:
        key, _ = parse_setting(text)
        assert key
        parse({"data": DATA}, text)
    except SpecError:
        pass


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ({"modle": {}}, (), r"^modle: unknown key \(a.toml\); did you mean 'model'\?"),
        ({"model": {"builder": "sew_resnet8", "widht": 2}}, (), r"model.widht: unknown key .* did you mean 'width'"),
        ({"model": {"builder": "vgg"}}, (), "sew_resnet8, .*got 'vgg'"),
        ({"model": {}}, (), "got None"),
        ({"model": 3}, (), "got 3"),
        ({"data": {"valid": 1}}, (), "data: needs the key `name`"),
        ({"data": {**DATA, "valid": -1}}, (), r"data.valid: expected `int` >= 0, got -1 \(a.toml\)"),
        ({"data": {**DATA, "valid": "many"}}, (), "data.valid: .*got 'many'"),
        ({"data": 3}, (), "data: expected a table, got 3"),
        ({"data": DATA}, ("data.vaild=3",), r"data.vaild: unknown key \(--set data.vaild\); did you mean 'valid'"),
        ({"data": DATA}, ("data.valid=x",), r"data.valid: .*got 'x' \(--set data.valid\)"),
        ({"data": DATA}, ("data.name.x=1",), "goes into 'name', which is no table"),
        ({"data": {**DATA, "x": [{"y": 1}]}}, ("data.x.1.y=2",), "a list of 1, which count from 0, got '1'"),
        ({"data": {**DATA, "x": []}}, ("data.x.²=2",), "a list of 0, which count from 0, got '²'"),
        ({"data": DATA}, ("valid",), "--set takes key=value"),
        ({"data": DATA}, ("=1",), "--set takes key=value"),
        ({"data": DATA}, ("data..valid=1",), "--set takes key=value"),
        ({"train": {"epochs": 3}}, (), r"train: needs the key `lr` \(a.toml\)"),
        ({"train": {**TRAIN, "lr": -1}}, (), r"train.lr: .* got -1 \(a.toml\)"),
        ({"train": TRAIN}, ("train.lr=-1",), r"train.lr: .*got -1 \(--set train.lr\)"),
        ({"train": {**TRAIN, "sede": 3}}, (), "did you mean 'seed'"),
        ({"train": {**TRAIN, "seed": 3}}, (), "train.seed: has no place here.*top of the file"),
        ({"qat": {**TRAIN, "epochs": 0}}, (), "qat.epochs: expected .*, got 0"),
        ({"quant": {}}, (), "quantizes nothing"),
        (
            {"quant": {"weights": {"method": "lsqq", "bits": 4}}},
            (),
            r"quant.weights.method: unknown weight method 'lsqq'; did you mean 'lsq'.*\(a.toml\)",
        ),
        ({"quant": {"weights": {"bits": 4}}}, (), "quant.weights: needs a method, one of .*lsq"),
        (
            {"quant": {"weights": {"method": "lsq", "bit": 4}}},
            (),
            "quant.weights.bit: .*did you mean 'bits'",
        ),
        ({"quant": {"weights": {"method": "lsq", "bits": 99}}}, (), r"quant.weights: bits .*got 99.*\(a.toml\)"),
        ({"quant": LSQ | {"rules": [{"match": "fc", "weigths": "float"}]}}, (), r"quant.rules\[0\].weigths"),
        ({"quant": LSQ | {"rules": {"match": "fc"}}}, (), "quant.rules: must be a list"),
        ({"quant": {"membrane": {"bits": 4, "place": "x"}}}, (), "did you mean 'placement'"),
        ({"calibration": {"images": 0}}, (), "calibration.images: expected `int` >= 1, got 0"),
        ({"seed": -1}, (), "seed: .*got -1"),
        ({"seed": "one"}, (), "seed: .*got 'one'"),
        ({"out": 3}, (), "out: expected `str . null`, got 3"),
    ],
)
def test_mistakes_are_named_with_place_and_cure(values, overrides, message):
    with pytest.raises(SpecError, match=message):
        parse(values, *overrides)


def test_unreadable_files(tmp_path):
    with pytest.raises(SpecError, match="cannot read"):
        read_config(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("[model\n")
    with pytest.raises(SpecError, match="not valid TOML"):
        read_config(tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00")
    with pytest.raises(SpecError, match="not valid TOML"):
        read_config(tmp_path / "binary.toml")


def test_require_names_the_table_and_shows_one():
    with pytest.raises(SpecError, match=r"needs a \[qat\] table .*lr = 0.02"):
        require(parse({"data": DATA}), "data", "qat")
    require(parse({"data": DATA, "qat": TRAIN}), "data", "qat")


def test_to_dict_is_json_and_reads_back():
    first = parse({"data": DATA, "train": TRAIN, "quant": LSQ, "seed": 3})
    values = msgspec.json.decode(msgspec.json.encode(first.to_dict()))
    kept = {key: value for key, value in values.items() if value is not None}
    assert kept["train"].pop("seed") == 3
    assert parse(kept) == first
