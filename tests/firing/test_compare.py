"""Comparing two models: scores and drift by brute force, data in every form, and models left as they were."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from isofire import QuantSpec, quantize_
from isofire.batches import count_images
from isofire.errors import CheckpointError, DataError, ModelError, SpecError
from isofire.firing import Observation, compare, emd, observe
from isofire.firing.cost import measure_cost
from isofire.firing.cost.routes import Routes
from isofire.firing.cost.unreached import Unreached
from isofire.firing.evidence import drift_intervals
from isofire.firing.limits import Limits
from isofire.firing.measures import quantities
from isofire.firing.observation import fingerprints
from isofire.firing.verdict import check, judge
from isofire.models import build
from isofire.neurons import IF, LIF, PerStep, Repeat

Spikes = Callable[..., Tensor]
BEHIND = ("conv1", "conv_down")
"""First layers of a block, behind the product at the end of the block before."""


@pytest.fixture
def data(spikes: Spikes) -> tuple[Tensor, Tensor]:
    """23 spike trains [T=3, 2, 3] with two classes."""
    return spikes(23, 2, 3, top=3), torch.arange(23) % 2


class Batched:
    """A data set as `isofire.data` has them."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.inputs.split(batch_size), self.labels.split(batch_size), strict=True)


def test_scores_and_rates_by_brute_force(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    result = compare(echo(), echo(gain=2.0, classes=3), data, batch_size=4)
    logits_fp = inputs.flip(-1).flatten(2).mean(1)[:, :2]
    logits = inputs.flip(-1).flatten(2).mean(1)[:, :3]
    votes_fp, votes = logits_fp.argmax(1), logits.argmax(1)
    assert result.accuracy_fp == int((votes_fp == labels).sum()) / 23
    assert result.accuracy == int((votes == labels).sum()) / 23
    assert result.agreement == int((votes == votes_fp).sum()) / 23
    assert (result.n_images, result.T) == (23, 3)
    first, second = result.layers
    assert (first.layer, first.neurons, first.emd, first.paired_mae, first.spearman) == ("first", 6, 0, 0, 1)
    rates = inputs.double().mean((0, 1)).flatten()
    assert second.layer == "block.1"
    assert second.emd == pytest.approx(emd(rates, 2 * rates), abs=1e-14)
    assert second.shift == pytest.approx(float(rates.mean()), abs=1e-14)
    assert second.reshuffle == pytest.approx(0, abs=1e-14)
    assert result.overall["mfr"] == pytest.approx(1.5 * float(rates.mean()), abs=1e-14)


def test_every_form_of_data_and_batch_size_gives_the_same(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    base, other = echo(), echo(gain=3.0)
    expected = compare(base, other, data).to_dict()
    assert compare(base, other, data, batch_size=5).to_dict() == expected
    # these do not tell their size, from which the blocks follow
    assert compare(base, other, Batched(*data), batch_size=7, run=1).to_dict() == expected
    assert compare(base, other, list(Batched(*data).batches(6))).to_dict() == expected
    assert compare(base, other, Batched(*data).batches(1), run=1).to_dict() == expected
    unknown = compare(base, other, Batched(*data).batches(1))
    assert {**unknown.to_dict(), "evidence": None} == {**expected, "evidence": None}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=10)
    assert compare(base, other, loader).to_dict() == expected
    assert compare(base, other, data, progress=True).to_dict() == expected


@pytest.mark.parametrize("count", [1, 8, 9, 22, 23, 24])
def test_max_images_cuts_the_last_batch(echo: type[nn.Module], data: tuple[Tensor, Tensor], count: int) -> None:
    cut = compare(echo(), echo(gain=3.0), data, max_images=count, batch_size=8)
    assert cut.n_images == min(count, 23)
    alone = compare(echo(), echo(gain=3.0), (data[0][:count], data[1][:count]))
    assert cut.to_dict() == alone.to_dict()


def test_an_iterator_is_not_read_past_max_images(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    batches = Batched(*data).batches(4)
    compare(echo(), echo(), batches, max_images=8)
    assert torch.equal(next(batches)[1], data[1][8:12])


def test_blocks_of_both_models_hold_the_same_images(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    result = compare(echo(), echo(), data, batch_size=4, blocks=3, run=2)
    assert result.baseline.images_per_block.tolist() == [8, 8, 7]
    assert torch.equal(result.baseline.counts["first"], result.quantized.counts["first"])


def test_a_model_against_itself(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    model = echo()
    result = compare(model, model, data)
    assert result.agreement == 1
    assert result.baseline.total("first") == result.quantized.total("first") == int(data[0].sum())
    assert all(result.overall[key] == 0 for key in ("emd_layer_mean", "emd_max", "emd_pooled", "paired_mae"))


def test_models_that_share_a_layer(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    base, other = echo(), echo(gain=2.0)
    other.first = base.first
    assert compare(base, other, data).baseline.total("first") == int(data[0].sum())


def test_models_are_left_as_they_were(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    base, other = echo().train(), echo().train()
    base.block.eval()
    compare(base, other, data)
    with pytest.raises(DataError):
        compare(base, other, (data[0], data[1] + 5))
    for model in (base, other):
        assert model.training
        assert model.dropout.training
        assert not any(module._forward_hooks for module in model.modules())
    assert not base.block.training
    assert not base.block[0].training


def test_models_return_from_another_device(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    base = echo()
    assert compare(base, echo(), data, device="cpu").n_images == 23
    base.register_buffer("elsewhere", torch.zeros(1, device="meta"))
    with pytest.raises(ModelError, match=r"lies on cpu, meta; leave device out"):
        compare(base, echo(), data, device="cpu")


def test_logits_without_time_are_taken_as_they_are(
    echo: type[nn.Module], given_neuron: type[nn.Module], data: tuple[Tensor, Tensor]
) -> None:
    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = echo()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).mean(0)

    assert compare(Averaged(), Averaged(), data).accuracy == compare(echo(), echo(), data).accuracy


def test_frames_with_time_first(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    class TimeFirst(echo):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(0, 1))

    inputs, labels = data
    frames = inputs.transpose(0, 1).unsqueeze(2)  # [T, N, C, H, W]
    result = compare(TimeFirst(), TimeFirst(gain=2.0), (frames, labels), batch_size=4, max_images=22)
    assert result.to_dict() == compare(echo(), echo(gain=2.0), data, max_images=22).to_dict()


def test_models_that_do_not_match_are_refused(
    echo: type[nn.Module], given_neuron: type[nn.Module], data: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ModelError, match="Linear without any"):
        compare(echo(), nn.Linear(3, 2), data)
    renamed = nn.Sequential(echo())
    with pytest.raises(ModelError, match=r"same neurons, .* 'first' is only in the first"):
        compare(echo(), renamed, data)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda out: out[:, :-1], r"logits \[T, 23, classes\]"),
        (lambda out: out.sum(), "logits"),
        (lambda out: ((out, out), out), "got tuple"),
        (lambda out: out * float("nan"), "must not be NaN, those of Changed"),
    ],
)
def test_bad_logits_are_refused(
    echo: type[nn.Module], data: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor], match: str
) -> None:
    class Changed(echo):
        def forward(self, x: Tensor) -> Tensor:
            return change(super().forward(x))

    with pytest.raises(ModelError, match=match):
        compare(echo(), Changed(), data)


def test_neurons_that_see_another_batch_are_refused(given_neuron: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    class Folded(nn.Module):
        """Hands its neuron [1, T * N, ...]."""

        def __init__(self) -> None:
            super().__init__()
            self.sn = given_neuron()

        def forward(self, x: Tensor) -> Tensor:
            return self.sn(x.flatten(0, 1)[None]).view(*x.shape[:2], -1).mean(1)

    with pytest.raises(
        ModelError, match=r"the model was given \[23, 3, 2, 3\], its neurons saw N = 69 and T = 1.*or its steps"
    ):
        compare(Folded(), Folded(), data)


def test_bad_data_is_refused(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    cases: list[tuple[object, str]] = [
        ((inputs, labels[:-1]), r"data must hold inputs \[N, \.\.\.\] .* and integer labels"),
        ((inputs, labels.float()), "integer labels"),
        ((inputs[:0], labels[:0]), "at least one image"),
        ([], "at least one image, got none"),
        ([inputs], "batch 0 must be a pair of tensors"),
        (
            [{"x": inputs, "y": labels}],
            r"got dict of 'x', 'y'; give \[\(batch\[INPUTS\], batch\[LABELS\]\) for batch in data\]",
        ),
        ([[inputs, labels, labels]], r"give \[\(inputs, labels\) for inputs, labels, \*_ in data\]"),
        ([(inputs, labels), (inputs, labels[:5])], "batch 1 must hold"),
        (inputs, "got Tensor"),
        (3, "got int"),
        ((inputs, labels - 1), r"labels must lie in 0\.\.1, .* got -1\.\.0"),
        ((inputs, labels + 1), r"labels must lie in 0\.\.1, .* got 1\.\.2"),
    ]
    for bad, match in cases:
        with pytest.raises(DataError, match=match):
            compare(echo(), echo(), bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["max_images", "batch_size", "blocks", "run"])
@pytest.mark.parametrize("value", [2.5, "3", True])
def test_numbers_that_are_none_are_refused(
    echo: type[nn.Module], data: tuple[Tensor, Tensor], setting: str, value: Any
) -> None:
    with pytest.raises(SpecError, match=f"{setting} must be a whole number, got {value!r}"):
        compare(echo(), echo(), data, **{setting: value})
    compare(echo(), echo(), data, **{setting: np.int64(3)})  # type: ignore[arg-type]


def test_what_is_no_network_no_device_or_no_floor_is_refused(
    echo: type[nn.Module], data: tuple[Tensor, Tensor]
) -> None:
    given: Any
    for given, told in ((None, "NoneType"), ("a", "str"), (nn.Linear, "the class Linear; give one that was built")):
        for call in (lambda m: compare(m, echo(), data), lambda m: compare(echo(), m, data),
                     lambda m: measure_cost(m, data), lambda m: observe(m, data)):  # fmt: skip
            with pytest.raises(ModelError, match=f"a model must be a torch.nn.Module, got {told}"):
                call(given)
    floating = nn.Sequential(Repeat(2), nn.Linear(3, 4), LIF(), nn.Linear(4, 2))
    for call in (lambda m: compare(m, floating, data), lambda m: measure_cost(m, data)):
        with pytest.raises(
            ModelError, match=r"weights must hold numbers, '1.weight' of Sequential is on the meta device"
        ):
            call(copy.deepcopy(floating).to("meta"))
    for device in ("nope", "meta", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(SpecError, match=f"device must .*got '{device}'"):
            compare(echo(), echo(), data, device=device)
    with pytest.raises(SpecError, match=r"floor must be a NoiseFloor .* got 'images'"):
        compare(echo(), echo(), data, floor="images")  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["max_images", "batch_size", "blocks", "run"])
def test_numbers_below_one_are_refused(echo: type[nn.Module], data: tuple[Tensor, Tensor], setting: str) -> None:
    with pytest.raises(SpecError, match=f"{setting} must be at least 1.*, got 0"):
        compare(echo(), echo(), data, **{setting: 0})  # type: ignore[arg-type]


def test_a_used_up_iterator_is_told(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    batches = Batched(*data).batches(4)
    compare(echo(), echo(), batches)
    with pytest.raises(DataError, match="used up"):
        compare(echo(), echo(), batches)


def test_a_network_beside_itself_does_not_drift(echo: type[nn.Module], data: tuple[Tensor, Tensor]) -> None:
    model = echo()
    result = compare(model, model, data)
    assert (result.agreement, result.accuracy) == (1.0, result.accuracy_fp)
    distances = [name for name, item in quantities(layer=False).items() if item.measure.distance]
    assert "emd_max" in distances
    assert {result.overall[name] for name in distances} == {0.0}
    assert torch.equal(result.baseline.per_neuron(), result.quantized.per_neuron())


class Noisy:
    """Images that are drawn in another order, or changed, in each pass."""

    def __init__(self, data: tuple[Tensor, Tensor], change: str) -> None:
        self.data, self.change, self.passes = data, change, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = self.data
        self.passes += 1
        if self.change == "order":
            inputs = inputs.roll(self.passes, 0)
        elif self.change == "both":
            inputs, labels = inputs.roll(self.passes, 0), labels.roll(self.passes)
        elif self.passes > 1:
            inputs = inputs.clone()
            inputs[3] = inputs[3].flip(-1)
        yield from zip(inputs.split(5), labels.split(5), strict=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("order", r"\d+ of 23 images differ between the two passes .* \(the same images in another order\)"),
        ("image", "1 of 23 images differ between the two passes over the data, the first is number 3;"),
        ("both", "labels of the first pass are not the 23 of the second"),
    ],
)
def test_two_passes_over_other_images_are_refused(echo: type[nn.Module], change: str, said: str) -> None:
    inputs = torch.rand(23, 3, 2, 3).round()
    inputs[3, :, 0, 0], inputs[3, :, 0, 2] = 1.0, 0.0
    labels = torch.arange(23) % 2 if change == "both" else torch.zeros(23, dtype=torch.int64)
    loader = Noisy((inputs, labels), change)
    with pytest.raises(DataError, match=rf"same images in the same order: .*{said}.*switch off shuffling"):
        compare(observe(echo(), loader), echo(), loader)
    # one pass shows each batch to both
    same = compare(echo(), echo(), loader)
    assert same.agreement == 1
    assert same.overall["emd_max"] == 0


@pytest.mark.parametrize("batch_size", [4, 23])
def test_images_are_known_again_whatever_the_batch(batch_size: int, tmp_path: Path) -> None:
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(6, 4)), LIF(), PerStep(nn.Linear(4, 2)))
    inputs, labels = torch.randn(23, 6), torch.zeros(23, dtype=torch.int64)
    observe(model, (inputs, labels), batch_size=5).save(tmp_path)
    stored = Observation.load(tmp_path)
    # what another machine rounds otherwise in the last digit is the same image
    compare(stored, model, (inputs * (1 + 1e-7), labels), batch_size=batch_size)
    with pytest.raises(DataError, match="23 of 23 images differ"):
        compare(stored, model, (inputs + 0.01 * torch.randn_like(inputs), labels), batch_size=batch_size)
    with pytest.raises(DataError, match=r"1 of 23 images differ .* the first is number 7"):
        compare(stored, model, (inputs.index_fill(0, torch.tensor(7), 0.0), labels), batch_size=batch_size)
    frames = inputs.reshape(23, 2, 3)
    assert torch.equal(fingerprints(frames.transpose(0, 1).contiguous(), 1), fingerprints(frames, 0))
    # observations stored by earlier versions do not say what they saw
    compare(dataclasses.replace(stored, images=None), model, (inputs + 1, labels))


def test_the_quantized_network_is_not_the_baseline() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)))
    data = torch.randn(40, 3), torch.zeros(40, dtype=torch.int64)
    weights = QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize", last_layer="quantize")
    quantized = quantize_(copy.deepcopy(model), weights, data)
    for call in (compare, lambda *a: check(*a, Limits(accuracy_drop=0.5))):
        with pytest.raises(ModelError, match="baseline is quantized and quantized is in full precision; swap the two"):
            call(quantized, model, data)
    # two settings beside each other, or a prepared network after its float one, are no mistake
    assert compare(quantized, quantized, data).agreement == 1
    assert compare(model, quantized, data).n_images == 40


def test_weights_that_are_not_finite_are_refused_though_the_output_is() -> None:
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)))
    data = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken[1][0].weight.fill_(float("nan"))
    assert bool(torch.isfinite(broken(data[0])).all())
    with pytest.raises(ModelError, match=r"'1\.0\.weight' of Sequential has 12 NaN"):
        compare(model, broken, data)


def test_images_that_are_not_finite_are_refused() -> None:
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)))
    images = torch.randn(8, 3)
    images[5, 1] = float("nan")
    with pytest.raises(DataError, match="images must be finite"):
        compare(model, model, (images, torch.zeros(8, dtype=torch.int64)))


def test_the_change_in_synaptic_operations_is_that_of_the_measured_cost() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3)
    head = PerStep(nn.Flatten(), nn.Linear(18, 2))
    model = nn.Sequential(Repeat(3), PerStep(layers[0]), LIF(), PerStep(layers[1]), LIF(), head)
    data = torch.randn(20, 1, 7, 7) * 5, torch.zeros(20, dtype=torch.int64)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[1][0].weight *= 1.5
    found = compare(model, other, data)
    assert found.synops is not None
    total = found.synops.overall
    assert total.baseline == pytest.approx(measure_cost(model, data).synops.mean)
    assert total.quantized == pytest.approx(measure_cost(other, data).synops.mean)
    assert 0 < abs(total.change) <= total.bound
    assert f"+-{total.bound:,.0f}" in found.table()
    assert found.row()["synops_bound"] == total.bound


class Residual(nn.Module):
    """The second of two layers of neurons is fed by one layer, by two of low rank, by groups, or past them too."""

    def __init__(self, middle: nn.Module, shortcut: bool = False, events: bool = False) -> None:
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(6, 12), LIF(v_threshold=0.3), nn.Linear(12, 3)
        self.middle, self.next, self.shortcut, self.events = middle, LIF(v_threshold=0.1), shortcut, events

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron(self.first((x > 0).float() if self.events else x).expand(4, -1, -1))
        out = self.next(self.middle(spikes))
        return self.last(out + spikes if self.shortcut else out)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(12, 12, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(0, 1).unsqueeze(2)).view(x.shape)


BUILT = {
    # operations of a spike of the first and of the second layer of neurons, by hand
    "dense": (lambda: Residual(nn.Linear(12, 12)), 12, 3),
    "low rank": (lambda: Residual(nn.Sequential(nn.Linear(12, 2, bias=False), nn.Linear(2, 12))), 2, 3),
    "groups": (lambda: Residual(Grouped()), 4, 3),
    "shortcut": (lambda: Residual(nn.Linear(12, 12), True), 12 + 3, 3),
}


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in BUILT for b in BUILT if a != b])
@pytest.mark.parametrize("stored", [False, True])
def test_synops_of_each_network_are_those_of_its_own_structure(
    first: str, second: str, stored: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    nets, data = [BUILT[name][0]().eval() for name in (first, second)], (torch.randn(200, 6) * 3, torch.arange(200) % 3)
    if stored:
        observe(nets[0], data).save(tmp_path)
        found = compare(Observation.load(tmp_path), nets[1], data)
    else:
        found = compare(*nets, data)
    assert found.synops is not None
    by_hand = [
        sum(
            int(counts.counts[layer].sum()) * fan
            for layer, fan in zip(("neuron", "next"), BUILT[name][1:], strict=True)
        )
        / 200
        for name, counts in ((first, found.baseline), (second, found.quantized))
    ]
    total = found.synops.overall
    assert [total.baseline, total.quantized] == pytest.approx(by_hand)
    assert by_hand == pytest.approx([measure_cost(net, data).synops.mean for net in nets])
    assert found.synops.ratio is not None
    assert found.synops.ratio.estimate == pytest.approx(by_hand[1] / by_hand[0])
    assert "by structure: spikes of neuron come to other synapses" in found.table()
    verdict = check(*nets, data, Limits(synops=1.0)).findings[0]
    assert verdict.value == pytest.approx(by_hand[1] / by_hand[0])
    assert verdict.outcome == ("keeps" if by_hand[1] < by_hand[0] else "fails")


def test_layers_that_the_input_drives_are_the_same_in_both_networks_or_named() -> None:
    torch.manual_seed(0)
    nets, data = (
        [Residual(nn.Linear(12, 12), events=True) for _ in range(2)],
        (torch.randn(40, 6), torch.arange(40) % 3),
    )
    found = compare(*nets, data).synops
    assert found is not None
    assert ([item.name for item in found.by_input], found.left_out) == (["first"], ())
    nets[1].first = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 12))  # type: ignore[assignment]
    other = compare(*nets, data)
    assert other.synops is not None
    assert {item.name for item in other.synops.left_out} == {"first", "first.0"}
    assert other.row()["synops_fp"] is None
    assert "other synapses in each" in other.row()["synops_left_out"]
    assert check(*nets, data, Limits(synops=9)).outcome == "undecided"


def test_a_baseline_whose_synapses_are_not_known_leaves_synops_out_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Residual(nn.Linear(12, 12)), (torch.randn(40, 6), torch.arange(40) % 3)
    seen = dataclasses.replace(observe(model, data), reached=None)
    seen.save(tmp_path)
    found = compare(Observation.load(tmp_path), model, data)
    assert found.synops is None
    assert found.row()["synops_left_out"] == "what a spike costs in the baseline was not found; observe it anew"
    assert "SynOps: not known, what a spike costs in the baseline" in found.table()
    why = dataclasses.replace(seen, reached=Unreached("its spikes cannot be followed"))
    why.save(tmp_path)
    again = compare(Observation.load(tmp_path), model, data)
    assert again.row()["synops_left_out"] == "of the baseline, its spikes cannot be followed"
    for text in ("[1]", '{"left_out": 3}', "{"):
        save_file(
            load_file(tmp_path / "predictions.safetensors"), tmp_path / "predictions.safetensors", {"isofire": text}
        )
        with pytest.raises(CheckpointError, match="cannot be read as predictions"):
            Observation.load(tmp_path)


@pytest.mark.parametrize("connect", ["add", "and"])
def test_what_is_no_sum_over_spikes_is_named_beside_the_synops(connect: str) -> None:
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1, "connect": connect})
    found = compare(model, model, (torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)))
    assert found.synops is not None
    names = [item.name for item in found.synops.left_out]
    assert names == ([] if connect == "add" else [f"stages.{i}.0.{n}" for i in (1, 2) for n in BEHIND] + ["fc"])
    assert found.table().count("NOT IN THESE SynOps") == len(names)
    assert [item["name"] for item in found.to_dict()["synops"]["left_out"]] == names
    row = found.row()
    assert (row["synops"] is None) == (connect == "and")
    assert (row["synops_left_out"] is None) == (connect == "add")
    images = torch.randn(60, 1, 8, 8) * 3
    seen = observe(model, (images, torch.zeros(60, dtype=torch.int64)))
    # a network that is right, so that it is a reference
    seen = dataclasses.replace(seen, labels=seen.predictions)
    verdict = judge(seen, seen, Limits(synops=1.1), quantized=model)
    assert verdict.outcome == ("keeps" if connect == "add" else "undecided")
    assert all(name in verdict.findings[0].about for name in names)


class Routed(nn.Module):
    """Bright images go through another layer than dark ones."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(4, 6), LIF(), nn.Linear(5, 3)
        self.small, self.wide, self.next = nn.Linear(6, 5), nn.Linear(6, 50), LIF(v_threshold=0.1)
        self.functional = functional

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes, bright = self.neuron(self.first(x).expand(3, -1, -1)), x[:, 0] > 0
        out = torch.zeros(*spikes.shape[:2], 5)
        for chosen, layer in ((bright, self.wide), (~bright, self.small)):
            if chosen.any():
                given = spikes[:, chosen]
                made = given @ layer.weight.T if self.functional else layer(given)
                out[:, chosen] = made[..., :5]
        return self.last(self.next(out))


@pytest.mark.parametrize("functional", [False, True])
def test_synops_of_a_network_that_routes_images_are_undecided(functional: bool) -> None:
    torch.manual_seed(4)
    model, images = Routed(functional), torch.rand(40, 4) * 8 - 2
    images[:, 0] = torch.where(torch.arange(40) < 3, -3.0, 3.0)
    data = images, torch.zeros(40, dtype=torch.int64)
    for batch in (64, 3):
        found = compare(model, model, data, batch_size=batch)
        assert found.synops is None
        assert "different ways through the network" in found.table().replace("\n", " ")
        assert found.row()["synops"] is None
    # all by one way: the spikes that are chosen by the image are named
    alone = compare(model, model, (images[3:], data[1][3:])).synops
    assert alone is not None
    assert [item.name.partition(".")[0] for item in alone.left_out] == ["wide"]


def test_synops_of_spikes_that_the_image_chooses_are_left_out() -> None:
    class Pruned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron, self.last = nn.Linear(4, 6), LIF(), nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spikes = self.neuron(self.first(x).expand(3, -1, -1))
            return self.last(spikes.gather(2, x.topk(2).indices.expand(3, -1, -1)))

    torch.manual_seed(0)
    model = Pruned()
    found = compare(model, model, (torch.rand(20, 4) * 8, torch.zeros(20, dtype=torch.int64))).synops
    assert found is not None
    assert [item.name for item in found.left_out] == ["last"]
    assert found.overall.baseline == 0


def test_a_product_of_weights_alone_is_no_other_way() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron = nn.Linear(4, 6), LIF()
            self.a, self.b = nn.Parameter(torch.rand(3, 2)), nn.Parameter(torch.rand(2, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.neuron(self.first(x).expand(3, -1, -1)) @ (self.a @ self.b).T

    torch.manual_seed(0)
    model, data = LowRank(), (torch.rand(20, 4) * 8, torch.zeros(20, dtype=torch.int64))
    spikes: list[float] = []
    model.neuron.register_forward_hook(lambda _module, _inputs, output: spikes.append(float(output.sum())))
    with torch.no_grad():
        model(data[0])
    expected = spikes[0] * 3 / 20
    found = compare(model, model, data, batch_size=7).synops
    assert found is not None
    assert expected > 0
    assert found.overall.baseline == pytest.approx(expected)


def test_blocks_follow_the_number_of_images_so_that_few_have_intervals_too(echo: type[nn.Module]) -> None:
    few = torch.randint(0, 2, (40, 3, 2)).float(), torch.zeros(40, dtype=torch.int64)
    found = compare(echo(), echo(gain=2.0), few)
    assert int((found.baseline.images_per_block > 0).sum()) == 40
    assert found.evidence is not None
    # a baseline that was observed in other blocks decides them
    seen = observe(echo(), few, run=3, blocks=8)
    other = compare(seen, echo(gain=2.0), few)
    assert other.quantized.images_per_block.tolist() == other.baseline.images_per_block.tolist() == [6] * 5 + [4, 3, 3]
    assert other.quantized.run == 3
    wrong = compare(seen, echo(gain=2.0), few, run=24)
    with pytest.raises(DataError, match="the same images in the same blocks"):
        drift_intervals(wrong.baseline, wrong.quantized)


@pytest.mark.parametrize("labels", [3, torch.tensor(1)])
def test_what_are_no_labels_is_told(echo: type[nn.Module], labels: object) -> None:
    for data in ([(torch.zeros(2, 3, 2), labels)], (torch.zeros(2, 3, 2), labels)):
        with pytest.raises(DataError, match=r"must (be a pair|hold inputs)"):
            compare(echo(), echo(), data)  # type: ignore[arg-type]


def test_a_loader_tells_how_many_images_its_sampler_draws() -> None:
    whole = torch.utils.data.TensorDataset(torch.zeros(500, 1), torch.zeros(500, dtype=torch.int64))
    sampler = torch.utils.data.SubsetRandomSampler(range(60))
    assert count_images(torch.utils.data.DataLoader(whole, batch_size=10, sampler=sampler)) == 60
    assert count_images(torch.utils.data.DataLoader(whole, batch_size=10), 70) == 70


def test_a_network_that_cannot_take_the_images_is_told_with_their_shape() -> None:
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(5, 3)), LIF())
    with pytest.raises(ModelError, match=r"Sequential fails on inputs \[4, 7\] of torch.float32: Runtime"):
        compare(model, model, (torch.rand(4, 7), torch.zeros(4, dtype=torch.int64)))


def test_a_neuron_that_eval_mode_skips_is_left_out_by_name() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.n, self.aux, self.out = nn.Linear(6, 8), IF(), IF(), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            current = self.a(x.expand(4, *x.shape))
            return self.out(self.aux(current) if self.training else self.n(current))

    model, data = Auxiliary(), (torch.rand(20, 6) * 4, torch.zeros(20, dtype=torch.long))
    with pytest.raises(ModelError, match=r"'aux' was not; if the model skips it .* `layers`, .*isofire.compare"):
        compare(model, model, data)
    found = compare(model, model, data, layers=["n"])
    assert [layer.layer for layer in found.layers] == ["n"]
    assert found.synops is None


def test_what_a_neuron_makes_anew_at_every_pass_is_no_buffer_of_the_network() -> None:
    """The identity of a state that is gone passes to other tensors; their products must not count as fixed ones."""

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.register_buffer("state", torch.zeros(3, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.state = torch.zeros(3, 6)
            return self.second(self.first(x))

    model = Stateful()
    routes = Routes(model)
    found = []
    for _ in range(5):
        with routes.listening(), torch.inference_mode():
            model(torch.rand(3, 6))
        found.append(list(routes.products))
    assert found == [[("linear", 18), ("linear", 18)]] * 5
    # the first state is kept, so that no other tensor is taken for it
    assert all(buffer is not model.state for buffer in routes._buffers.values())


def test_a_network_that_draws_random_numbers_agrees_with_itself() -> None:
    """Images as Poisson trains: in one pass, in two, and beside a network of the same weights."""

    class Poisson(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.neuron, self.out = nn.Linear(6, 20), IF(), nn.Linear(20, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.neuron(self.a((torch.rand(4, *x.shape) < x).float())))

    torch.manual_seed(0)
    model, given = Poisson().eval(), (torch.rand(40, 6), torch.zeros(40, dtype=torch.int64))
    before = torch.get_rng_state()
    result = compare(model, copy.deepcopy(model), given, batch_size=16)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.agreement == 1.0
    assert result.overall["paired_mae"] == 0.0
    again = compare(observe(model, given, batch_size=16), model, given, batch_size=16)
    assert again.overall["paired_mae"] == 0.0
    torch.manual_seed(1)
    other = observe(model, given, batch_size=16)
    assert compare(other, model, given, batch_size=16).overall["paired_mae"] == 0.0
    torch.manual_seed(2)
    assert compare(other, model, given, batch_size=16).overall["paired_mae"] > 0.0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
def test_labels_of_any_whole_type_are_counted_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Repeat(3), PerStep(nn.Linear(6, 8)), LIF(v_threshold=0.2), PerStep(nn.Linear(8, 3))).eval()
    x, y = torch.rand(20, 6) * 4, torch.arange(20) % 3
    with torch.no_grad():
        expected = (model(x).mean(0).argmax(1) == y).double().mean()
    assert compare(model, model, (x, y.to(dtype))).accuracy == expected


def test_products_of_one_image_after_the_other_are_told() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.head = nn.Sequential(Repeat(3), PerStep(nn.Linear(6, 8)), LIF()), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.start(x)
            return torch.stack([torch.stack([torch.mv(self.head.weight, v) for v in step]) for step in spikes])

    torch.manual_seed(0)
    found = compare(Net(), Net(), (torch.rand(20, 6) * 4, torch.arange(20) % 3))
    assert found.synops is None
    assert "run one by one or under torch.vmap" in found.table().replace("\n", " ")
