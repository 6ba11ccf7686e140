"""An integer network where any network is taken: compared, recorded, checked, beside floors; and refused where not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.errors import DataError, ModelError, SpecError
from isofire.export import read_bundle, write_bundle
from isofire.export.bundle import sum_of
from isofire.firing import FiringRecorder, compare_several, observe
from isofire.firing.cost import measure_cost
from isofire.firing.evidence.noise_floor import control_floor
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.integer import IntegerNetwork, differences, lower
from isofire.models import build, save_model
from isofire.neurons import IF, PerStep
from isofire.quantization import make_plan, prepare, signed_weights, spec_of
from isofire.study import blame

SPEC = isofire.QuantSpec(
    weights={"method": "lsq", "bits": 4}, membrane={"bits": 4, "range": [-1, 1], "placement": "post_reset"},
    first_layer="quantize", last_layer="quantize",
)  # fmt: skip
TRAIN, TEST = (isofire.data.load("digits", split) for split in ("train", "test"))


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module, IntegerNetwork]:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 3, "in_channels": 1})
    images = next(iter(TRAIN.batches(128)))[0]
    for _ in range(20):
        model.train()(images)
    quantized = isofire.quantize_(copy.deepcopy(model.eval()), SPEC, TRAIN)
    return model, quantized, lower(quantized, next(iter(TEST.first(60).batches(60)))[0])


def test_the_three_beside_each_other(networks: Any) -> None:
    full, quantized, integers = networks
    data = TEST.first(60)
    found = isofire.compare(full, integers, data)
    assert found.overall["emd_layer_mean"] == pytest.approx(
        isofire.compare(full, quantized, data).overall["emd_layer_mean"], abs=1e-4
    )
    assert isofire.compare(quantized, integers, data).agreement > 0.98
    floor = control_floor(observe(full, data).counts, [observe(quantized, data).counts])
    assert "noise floor" in isofire.compare(full, integers, data, floor=floor).table()
    with FiringRecorder(integers) as recorder:
        integers(next(iter(data.batches(60)))[0])
    assert recorder.counts.layers == observe(quantized, data).counts.layers


def test_three_networks_stand_in_one_table(networks: Any, tmp_path: Path, capsys: Any) -> None:
    """Every number is that of the two networks compared alone."""
    from isofire.cli import main

    full, quantized, integers = networks
    data = TEST.first(60)
    found = compare_several({"fp": full, "w4": quantized, "int": integers}, data)
    assert list(found.pairs) == [("fp", "w4"), ("fp", "int"), ("w4", "int")]
    apart = isofire.compare(full, quantized, data), isofire.compare(full, integers, data)
    for one, row in zip((*apart, isofire.compare(quantized, integers, data)), found.rows(), strict=True):
        due = one.row()
        # synaptic operations are of two networks alone
        shown = {key: value for key, value in due.items() if "synops" not in key}
        assert {key: row[key] for key in shown} == pytest.approx(shown, nan_ok=True)
    lines = found.table(200).splitlines()
    (fp,) = (line.split() for line in lines if line.startswith("fp "))
    assert fp[1:] == [f"{100 * apart[0].accuracy_fp:.2f}", f"{apart[0].overall['mfr_fp']:.4f}"]
    (w4,) = (line.split() for line in lines if line.startswith("w4 "))
    assert w4[1:5] == [
        "fp", f"{100 * apart[0].accuracy:.2f}", f"{100 * apart[0].agreement:.1f}",
        f"{apart[0].overall['emd_weighted']:.5f}",
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines if line.startswith("int ")] == [["int", "fp"], ["int", "w4"]]
    with pytest.raises(ModelError, match="only quantized network, but w4 is quantized and fp is in full precision"):
        compare_several({"x": full, "w4": quantized, "fp": full}, data)
    with pytest.raises(SpecError, match="two networks at least, got 1"):
        compare_several({"fp": full}, data)
    save_model(tmp_path / "fp.safetensors", full), save_model(tmp_path / "q.safetensors", quantized)
    write_bundle(tmp_path / "codes", integers, integers.codes(next(iter(data.batches(1)))[0]))
    words = [str(tmp_path / name) for name in ("fp.safetensors", "q.safetensors", "codes")]
    words += ["--data", "digits", "--n", "60", "--batch-size", "60"]
    assert main(["compare", *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["against"], row["network"]) for row in told] == [
        ("baseline", "quantized"), ("baseline", "integers"), ("quantized", "integers")
    ]  # fmt: skip
    assert [row["emd_weighted"] for row in told] == pytest.approx([row["emd_weighted"] for row in found.rows()])
    assert len(json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]) == 3
    assert (tmp_path / "out" / "row.csv").read_text().count("\n") == 4
    assert main(["compare", words[0], words[2], words[1], *words[3:]]) == 0
    assert main(["compare", words[1], words[2], words[0], *words[3:]]) == 2
    assert "swap the two" in capsys.readouterr().err


def test_it_is_checked(networks: Any) -> None:
    _, quantized, integers = networks
    verdict = check(quantized, integers, TEST.first(60), Limits(most={"emd": 0.05}))
    # this network knows no classes, which is told; its firing is kept all the same
    assert verdict.outcome == "keeps"
    assert "! baseline not above chance" in verdict.table(200)


@pytest.mark.parametrize(
    "use",
    [
        lambda net: blame(net, SPEC, TRAIN, TEST.first(20)), lambda net: measure_cost(net, TEST.first(20)),
        lambda net: make_plan(net, SPEC),
    ],
)  # fmt: skip
def test_what_needs_a_float_network_says_so(networks: Any, use: Callable[[Any], Any]) -> None:
    with pytest.raises(ModelError, match=r"one of whole numbers.*give the network that it was lowered from"):
        use(networks[2])


def test_networks_in_the_wrong_places_are_told(networks: Any) -> None:
    full, quantized, integers = networks
    images = next(iter(TEST.first(2).batches(2)))[0]
    for pair in ((integers, quantized), (integers, integers), (full, quantized)):
        with pytest.raises(ModelError, match="the float network first and the IntegerNetwork"):
            differences(*pair, [images])
    with pytest.raises(ModelError, match=r"lowered from; this one is in full precision, theirs was a quantized one"):
        blame(full, integers, TRAIN, TEST.first(20))
    with pytest.raises(SpecError, match="a QuantSpec or an IntegerNetwork second, got Sequential"):
        blame(full, nn.Sequential(), TRAIN, TEST.first(20))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="calibrates on train_set, got None"):
        blame(full, SPEC, None, TEST.first(20))
    with pytest.raises(SpecError, match="gain must be one of keep, l2, got 'zz'"):
        lower(full, images, hardware="speck2f", approximate=True, gain="zz")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="shift_by must be one of factor, log2, got 'zz'"):
        lower(full, images, hardware="speck2f", approximate=True, shift_by="zz")  # type: ignore[arg-type]


def test_a_bundle_is_compared_on_the_command_line(networks: Any, tmp_path: Path, capsys: Any) -> None:
    from isofire.cli import main

    full, _, integers = networks
    save_model(tmp_path / "fp.safetensors", full)
    images = next(iter(TEST.first(2).batches(2)))[0]
    write_bundle(tmp_path / "codes", integers, integers.codes(images))
    assert (
        main(["compare", str(tmp_path / "fp.safetensors"), str(tmp_path / "codes"), "--data", "digits", "--n", "20"])
        == 0
    )
    assert "agreement" in capsys.readouterr().out


def test_a_bundle_is_known_as_quantized_by_what_it_came_from(networks: Any, tmp_path: Path, capsys: Any) -> None:
    from isofire.cli import main

    full, quantized, integers = networks
    save_model(tmp_path / "fp.safetensors", full)
    save_model(tmp_path / "q.safetensors", quantized)
    images = next(iter(TEST.first(60).batches(60)))[0]
    plain = lower(full, images)
    for name, network in (("codes", integers), ("plain", plain)):
        write_bundle(tmp_path / name, network, network.codes(images[:1]))
    again = read_bundle(tmp_path / "codes")
    assert spec_of(again) == SPEC
    assert spec_of(read_bundle(tmp_path / "plain")) is None

    def run(*words: str) -> int:
        return main(
            [words[0], *(str(tmp_path / word) for word in words[1:3]), "--data", "digits", "--n", "20", *words[3:]]
        )

    for pair in (("q.safetensors", "codes"), ("codes", "q.safetensors"), ("q.safetensors", "plain")):
        assert run("compare", *pair, "--json") == 0
        row = json.loads(capsys.readouterr().out)["row"]
        expected = ("integers", None) if pair[1] == "plain" else ("both", 4)
        assert (row["target"], row["bits"]) == expected
        assert run("check", *pair, "--max", "emd_max=1") == 0
        capsys.readouterr()
    for first in ("codes", "plain"):
        assert run("compare", first, "fp.safetensors") == 2
        assert "swap the two" in capsys.readouterr().err
    assert isofire.compare(quantized, again, TEST.first(20)).agreement > 0.9


def test_a_bundle_of_an_earlier_version_has_no_spec(networks: Any, tmp_path: Path) -> None:
    _, quantized, integers = networks
    images = next(iter(TEST.first(1).batches(1)))[0]
    folder = write_bundle(tmp_path / "codes", integers, integers.codes(images))
    manifest = json.loads((folder / "manifest.json").read_text())

    def written(spec: dict[str, Any] | None) -> None:
        changed = {key: value for key, value in manifest.items() if key not in ("spec", "sha256")}
        changed |= {} if spec is None else {"spec": spec}
        (folder / "manifest.json").write_text(json.dumps({**changed, "sha256": sum_of(changed)}))

    written(None)
    assert isofire.compare(quantized, read_bundle(folder), TEST.first(20)).agreement > 0.9
    written({"weights": {"method": "none_of_these"}})
    with pytest.raises(DataError, match=r"the spec that it was quantized by: .*none_of_these"):
        read_bundle(folder)


def test_signed_codes_of_converted_and_prepared_networks(networks: Any) -> None:
    full, quantized, _ = networks
    found = signed_weights(quantized)
    for name, (codes, scale, zero) in found.items():
        weight = quantized.get_submodule(name).weight.detach().double()
        again = (codes - zero).double() * scale.view(-1, *(1,) * (weight.ndim - 1))
        assert float((again - weight).abs().max()) < 1e-6 * float(weight.abs().max())
        assert codes.dtype == torch.int32
        assert int(codes.min()) < 0 < int(codes.max()) <= 15
    prepared = isofire.calibrate(prepare(full, SPEC), TRAIN)
    assert all(torch.equal(part.codes, found[name].codes) for name, part in signed_weights(prepared).items())
    with pytest.raises(ModelError, match="in full precision"):
        signed_weights(full)
    uneven = isofire.QuantSpec(weights={"method": "lqnet", "bits": 3}, reestimate_bn="never")
    with pytest.raises(ModelError, match="no common step"):
        signed_weights(isofire.quantize_(copy.deepcopy(full), uneven))


def test_steps_may_be_as_many_as_classes() -> None:
    torch.manual_seed(0)
    neurons = IF(v_reset=None, several=True, v_floor=-1.0)
    net = nn.Sequential(PerStep(nn.Linear(8, 10, bias=False)), neurons).eval()
    inputs, labels = torch.randint(0, 4, (10, 60, 8)).float(), torch.arange(60) % 10
    integers = lower(net, inputs, hardware="speck2f", approximate=True)
    assert isofire.compare(net, integers, [(inputs, labels)]).agreement > 0.9
