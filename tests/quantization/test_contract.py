"""Quantizers of other packages that do not do what `Quantizer` promises: each fault is told, and nothing is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.data import ImageSet
from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, PerStep, Repeat
from isofire.quantization import make_plan
from isofire.quantization.contract import try_gradients, try_states, try_weights
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.plan import LayerAssignment
from isofire.quantizers import (
    CONSTANTS,
    MEMBRANES,
    WEIGHTS,
    ConstantSetting,
    Levels,
    MembraneSetting,
    Quantizer,
    RangeObserver,
    WeightSetting,
    register_constant,
    register_membrane,
    register_weights,
    ste,
)
from isofire.quantizers.base import Granularity
from isofire.quantizers.setting import Placement
from isofire.spec import QuantSpec
from isofire.training import Recipe, train


class Signs(Quantizer):
    """-1 and 1, right but for the one function that is put in its place."""

    def __init__(self, **wrong: Callable[..., object]) -> None:
        super().__init__(1, granularity="tensor")
        self.wrong = wrong

    def do(self, name: str, *given: Tensor) -> object:
        return self.wrong.get(name, getattr(self, f"right_{name}"))(*given)

    def forward(self, x: Tensor) -> Tensor:
        return self.do("forward", x)  # type: ignore[return-value]

    def calibrate(self, x: Tensor) -> None:
        self.do("calibrate", x)

    def codes(self, x: Tensor) -> Tensor:
        return self.do("codes", x)  # type: ignore[return-value]

    def decode(self, codes: Tensor) -> Tensor:
        return codes * 2.0 - 1

    def levels(self) -> Tensor:
        return self.do("levels")  # type: ignore[return-value]

    def right_forward(self, x: Tensor) -> Tensor:
        return ste.plain(x, self.decode(self.right_codes(x)).to(x.dtype))

    def right_calibrate(self, x: Tensor) -> None:
        self._mark_ready()

    def right_codes(self, x: Tensor) -> Tensor:
        return (x > 0).int()

    def right_levels(self) -> Tensor:
        return torch.tensor([[-1.0, 1.0]])


def fails(*_: object) -> object:
    return 1 / 0


def quarter(x: Tensor) -> Tensor:
    """On levels, all but one."""
    q = torch.where(x > 0, 1.0, -1.0)
    q.view(-1)[-1] = 0.25
    return q


FAULTS: dict[str, tuple[dict[str, Callable[..., object]], str]] = {
    "rows that broadcast": (
        {"forward": lambda x: x[:1]},
        r"Signs\.forward gives float32 \[1, [\d, ]+\] for float32 \[",
    ),
    "another shape": ({"forward": lambda x: x.flatten()}, r"forward gives float32 \[\d+\] for"),
    "another dtype": ({"forward": lambda x: (x > 0).int()}, r"forward gives int32 \["),
    "more digits": ({"forward": lambda x: x.double()}, r"forward gives float64 \["),
    "a pair": ({"forward": lambda x: (x, x)}, "forward gives a tuple for float32"),
    "nothing": ({"forward": lambda x: None}, "forward gives None for float32"),
    "NaN": ({"forward": lambda x: x * torch.nan}, r"forward gives (\d+) NaN or infinite values among \1"),
    "a forward that raises": ({"forward": fails}, "forward fails: ZeroDivisionError: division by zero"),
    "no level": ({"forward": lambda x: x}, r"which is none of its levels\(\) \(the nearest is -?1; \d+ of \d+ values"),
    "one value off": ({"forward": quarter}, r"gives 0\.25, which is none of .* 1 of \d+ values are off"),
    "codes of other levels": (
        {"codes": lambda x: torch.zeros_like(x, dtype=torch.int32)},
        r"codes says level 0, -1, where forward gives 1",
    ),
    "codes of another dtype": ({"codes": lambda x: (x > 0).long()}, r"codes gives int64 .*must return int32 codes"),
    "codes beyond": ({"codes": lambda x: (x > 0).int() + 1}, "codes gives 1 to 2; there are 2 levels, from 0 on"),
    "codes that raise": ({"codes": fails}, "codes fails: ZeroDivisionError"),
    "levels in a row": ({"levels": lambda: torch.tensor([-1.0, 1.0])}, r"levels gives float32 \[2\]; .*\[G, L\]"),
    "levels as a list": ({"levels": lambda: [-1.0, 1.0]}, "levels gives a list"),
    "levels of float64": ({"levels": lambda: torch.tensor([[-1.0, 1.0]]).double()}, r"levels gives float64 \[1, 2\]"),
    "levels of NaN": ({"levels": lambda: torch.tensor([[-1.0, torch.nan]])}, "levels gives 1 NaN or infinite values"),
    "levels that fall": ({"levels": lambda: torch.tensor([[1.0, -1.0]])}, r"levels gives \[1\.0, -1\.0\]"),
    "rows of levels": ({"levels": lambda: torch.tensor([[-1.0, 1.0]] * 2)}, "2 rows with granularity 'tensor'"),
    "more levels than codes": (
        {"levels": lambda: torch.tensor([[-1.0, 0.0, 1.0]])},
        "levels gives 3 a row; codes of its bits=1 tell 2 to 2 apart",
    ),
    "levels that raise": ({"levels": fails}, "levels fails: ZeroDivisionError"),
    "not calibrated": ({"calibrate": lambda x: None}, r"calibrate leaves `calibrated` False; end with _mark_ready\(\)"),
    "a calibration that raises": ({"calibrate": fails}, "calibrate fails: ZeroDivisionError"),
}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes the methods "own" of weights and membranes build what a function gives."""

    class OwnWeights(WeightSetting, frozen=True, kw_only=True, tag="own"):
        bits: int = 1

        def build(self, channels: int) -> Quantizer:
            return making[0](channels)

    class OwnMembrane(MembraneSetting, frozen=True, kw_only=True, tag="own"):
        bits: int = 1
        placement: Placement = "post_reset"
        granularity: Granularity = "tensor"
        estimated: bool = True

        @property
        def is_estimated(self) -> bool:
            return self.estimated

        def build(self, channels: int) -> Quantizer:
            return making[0](channels)

    making: list[Callable[[int], Quantizer]] = [lambda channels: Signs()]
    register_weights(OwnWeights)
    register_membrane(OwnMembrane)

    def build(make: Callable[[int], object]) -> None:
        making[0] = make  # type: ignore[assignment]

    yield build
    WEIGHTS.unregister("own")
    MEMBRANES.unregister("own")


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = PerStep(nn.Conv2d(1, 4, 3)), IF(), PerStep(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)), IF()
    net = nn.Sequential(Repeat(3), *parts, PerStep(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return net


def images() -> Tensor:
    return torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def refused(spec: QuantSpec, error: type[Exception], rule: str, place: str) -> Exception:
    """Quantize; the refusal names the rule and the place, and the network stays as it was, to the last bit."""
    net = network().train()
    before, types = state(net), [type(module) for module in net.modules()]
    with pytest.raises(error, match=rule) as caught:
        isofire.quantize_(net, spec, images())
    assert place in str(caught.value)
    assert [type(module) for module in net.modules()] == types
    assert all(module.training for module in net.modules())
    after = state(net)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isofire.quantization.spec_of(net) is None
    return caught.value


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_are_refused_and_none_is_written(own: Callable[..., None], fault: str) -> None:
    wrong, rule = FAULTS[fault]
    own(lambda channels: Signs(**wrong))
    error = refused(
        QuantSpec(weights={"method": "own"}),
        ModelError,
        rule,
        "(layer '3.0', rule 'default', weights method 'own')",
    )
    assert (type(error.__cause__) is ZeroDivisionError) == ("fails" in rule)


@pytest.mark.parametrize("fault", FAULTS)
def test_membranes_are_refused_on_the_states_of_calibration(own: Callable[..., None], fault: str) -> None:
    wrong, rule = FAULTS[fault]
    own(lambda channels: Signs(**wrong))
    if "calibration" in fault:
        # it is the setting that calibrates membranes
        rule = rule.replace("calibrate fails", "OwnMembrane.calibrate fails")
    place = "(layer '2', rule 'default', membrane method 'own')"
    error = refused(QuantSpec(membrane={"method": "own"}), ModelError, rule, place)
    assert (type(error.__cause__) is ZeroDivisionError) == ("fails" in rule)


@pytest.mark.parametrize("fault", [name for name in FAULTS if "calibrat" not in name])
def test_fixed_levels_of_membranes_are_tried_without_data(own: Callable[..., None], fault: str) -> None:
    wrong, rule = FAULTS[fault]

    def ready(channels: int) -> Signs:
        quantizer = Signs(**wrong)
        quantizer._mark_ready()
        return quantizer

    own(ready)
    spec = QuantSpec(membrane={"method": "own", "estimated": False})
    with pytest.raises(ModelError, match=rule):
        isofire.prepare(network(), spec)
    own(lambda channels: Signs())
    with pytest.raises(ModelError, match="__init__ leaves `calibrated` False; pass calibrated=True on"):
        isofire.prepare(network(), spec)


@pytest.mark.parametrize("target", ["weights", "membrane"])
def test_right_ones_pass_and_keep_their_numbers(own: Callable[..., None], target: str) -> None:
    net = isofire.quantize_(network(), QuantSpec(**{target: {"method": "own"}}), images())
    if target == "weights":
        assert net[3][0].weight.unique().tolist() == [-1.0, 1.0]
    isofire.compare(network(), net, (images(), torch.zeros(20, dtype=torch.long)))


@pytest.mark.parametrize("target", ["weights", "membrane"])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda channels: None, "builds None; its build must return an isofire.quantizers.Quantizer"),
        (lambda channels: nn.Linear(2, 2), "builds a Linear; its build must return"),
        (lambda channels: 1 / 0, "builds no quantizer: ZeroDivisionError: division by zero; mend its build"),
        (lambda channels: Quantizer(1, granularity="tensor"), "builds no quantizer: TypeError: Can't instantiate"),
        (lambda channels: Signs.__new__(Signs), "builds a Signs without bits and granularity; call super"),
    ],
)
def test_what_builds_no_quantizer_is_refused(own: Callable[..., None], target: str, make: Callable, rule: str) -> None:
    own(make)
    with pytest.raises(SpecError, match=f"the method 'own' .* {rule}") as caught:
        QuantSpec(**{target: {"method": "own"}})
    assert caught.value.__cause__ is not None
    # and where it fails for the layer alone
    own(lambda channels: Signs())
    spec = QuantSpec(**{target: {"method": "own"}})
    own(make)
    place = "(layer '3.0', rule 'default')" if target == "weights" else "(layer '2', rule 'default')"
    refused(spec, SpecError, f"the method 'own' .* {rule}", place)


@pytest.mark.parametrize(("target", "axis"), [("weights", 1), ("membrane", 0)])
def test_channels_of_another_axis_are_refused(own: Callable[..., None], target: str, axis: int) -> None:
    own(lambda channels: Levels([-1.0, 1.0], granularity="channel", channel_axis=axis))
    rule = f"lie on axis {1 - axis}, the Levels of 'own' has channel_axis={axis}; build it with channel_axis={1 - axis}"
    with pytest.raises(SpecError, match=rule) as caught:
        isofire.prepare(network(), QuantSpec(**{target: {"method": "own"}}))
    assert "rule 'default'" in str(caught.value)


@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("levels", [3, [-1.0, 0.0, 0.5]])
def test_one_set_of_levels_has_no_axis(own: Callable[..., None], axis: int, levels: int | list[float]) -> None:
    def built(axis: int) -> nn.Module:
        own(lambda channels: Levels(levels, channel_axis=axis))
        return isofire.quantize_(network(), QuantSpec(membrane={"method": "own", "bits": 2}), images())

    other, usual = built(axis), built(1)
    assert torch.equal(other[2].membrane.quantizer.levels(), usual[2].membrane.quantizer.levels())
    assert torch.equal(other(images()), usual(images()))


def test_observers_of_one_group_merge_whatever_their_axis() -> None:
    one, two = RangeObserver(channel_axis=0), RangeObserver(channel_axis=1)
    one.observe(torch.tensor([1.0, 2.0]))
    two.observe(torch.tensor([3.0]))
    one.merge(two)
    assert one.extremes().tolist() == [[1, 3]]
    with pytest.raises(SpecError, match="granularity and channel_axis"):
        RangeObserver("channel", channel_axis=0).merge(observer((4, 2), "channel"))


def observer(shape: tuple[int, ...], granularity: Granularity) -> RangeObserver:
    seen = RangeObserver(granularity)
    seen.observe(torch.arange(1.0 * torch.Size(shape).numel()).reshape(shape))
    return seen


@pytest.mark.parametrize("shape", [(7,), (5, 3), (5, 3, 2), (1, 3, 2, 4)])
def test_an_observer_gives_images_in_the_shape_that_it_saw(shape: tuple[int, ...]) -> None:
    given = torch.arange(1.0 * torch.Size(shape).numel()).reshape(shape)
    found = observer(shape, "tensor").images()
    assert found.shape == (2, *shape[1:])
    assert bool(torch.isin(found, given).all())
    if len(shape) == 1:
        return
    found = observer(shape, "channel").images()
    assert found.shape == (2, *shape[1:])
    assert all(set(found[:, c].flatten().tolist()) <= set(given[:, c].flatten().tolist()) for c in range(shape[1]))
    axis = RangeObserver("channel", channel_axis=0)
    axis.observe(given)
    found = axis.images()
    assert found.shape == shape
    assert all(bool(torch.isin(found[c], given[c]).all()) for c in range(shape[0]))


def test_a_fault_that_shows_only_when_weights_are_written_leaves_all_as_it_was(own: Callable[..., None]) -> None:
    uses: list[int] = []

    def turns(x: Tensor) -> Tensor:
        """Right until the last use."""
        uses.append(1)
        return torch.where(x > 0, 1.0, -1.0) * (torch.nan if len(uses) == last else 1)

    own(lambda channels: Signs(forward=turns))
    spec = QuantSpec(weights={"method": "own"})
    last = 0
    isofire.quantize_(network(), spec, images())
    last, uses[:] = len(uses), []
    assert last > 2
    refused(spec, ModelError, "forward gives 108 NaN or infinite values among 108", "weights method 'own'")


def test_convert_writes_all_weights_or_none() -> None:
    net = isofire.quantization.calibrate_(
        isofire.prepare(network(), QuantSpec(weights={"method": "lsq", "bits": 3})), images()
    )
    net.train()
    before = state(net)
    # as a training run of one's own may leave it
    dict(weight_quantizers(net))["3.0"].check_finite = False
    with torch.no_grad():
        net[3][0].parametrizations.weight.original[0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"LSQ.*\(layer '3.0', rule 'default', weights method 'lsq'\)"):
        isofire.quantization.convert_(net)
    assert net.training
    assert state(net).keys() == before.keys()


@pytest.mark.parametrize(
    ("forward", "rule"),
    [
        (lambda x: torch.where(x > 0, 1.0, -1.0), "passes no gradient on"),
        # rounding without a straight-through gradient
        (lambda x: torch.sign(x - 1e-9), "passes a gradient of 0 on"),
        (lambda x: ste.sloped(x, torch.where(x > 0, 1.0, -1.0), torch.zeros_like), "passes a gradient of 0 on"),
        (lambda x: ste.sloped(x, torch.where(x > 0, 1.0, -1.0), lambda x: x * torch.nan), "passes .* NaN or infinite"),
    ],
)
@pytest.mark.parametrize("target", ["weights", "membrane"])
def test_training_needs_a_gradient(own: Callable[..., None], target: str, forward: Callable, rule: str) -> None:
    own(lambda channels: Signs(forward=forward))
    spec = QuantSpec(**{target: {"method": "own"}})
    # after training it is not needed
    isofire.quantize_(network(), spec, images())
    net = isofire.quantization.calibrate_(isofire.prepare(network(), spec), images())
    with pytest.raises(ModelError, match=rule) as caught:
        train(net, digits(), None, Recipe(epochs=1, lr=0.1, batch_size=20), progress=False)
    assert f"{target} method 'own'" in str(caught.value)
    if target == "weights":
        # weights that are not trained need none
        net[3][0].parametrizations.weight.original.requires_grad_(False)
        train(net, digits(), None, Recipe(epochs=1, lr=0.1, batch_size=20), progress=False)


def digits() -> ImageSet:
    data, _ = isofire.data.hold_out(isofire.data.load("digits", "train"), 1250, seed=0)
    return data


def test_trying_gradients_changes_no_quantizer() -> None:
    # both learn in training forwards
    spec = QuantSpec(weights={"method": "lqnet", "bits": 2}, membrane={"method": "lqnet", "bits": 2})
    net = isofire.quantization.calibrate_(isofire.prepare(network(), spec), images())
    before, drawn = state(net), torch.get_rng_state()
    try_gradients(net, make_plan(net, spec))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(before[name], value) for name, value in state(net).items())
    assert all(module.grad is None for module in net.parameters())


LAYOUTS = ("tensor", "channel")


def fields(kind: type, **more: object) -> dict[str, object]:
    given = {"bits": 3, "range": "mse", **more}
    return {key: value for key, value in given.items() if key in kind.__struct_fields__}


@pytest.mark.parametrize("granularity", LAYOUTS)
@pytest.mark.parametrize("name", list(WEIGHTS))
def test_every_weight_method_keeps_the_contract(name: str, granularity: str) -> None:
    setting = WEIGHTS[name](**fields(WEIGHTS[name], granularity=granularity))
    choice = LayerAssignment("fc", "Linear", "weights", setting, "default")
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for value in (weight, weight.double(), weight.to(memory_format=torch.channels_last), torch.zeros(6, 4)):
        quantizer = setting.build(6)
        quantizer.calibrate(value)
        try_weights(choice, quantizer, value)


def test_a_tables_order_is_tried_for_membranes() -> None:
    class Folds(Signs):
        """|x| over 1 is the upper level: no table has that."""

        is_fixed = True

    fold = {"codes": lambda x: (x.abs() > 1).int(), "forward": lambda x: torch.where(x.abs() > 1, 1.0, -1.0)}
    setting = MEMBRANES["levels"](levels=[-1.0, 1.0])
    quantizer = Folds(**fold)
    quantizer._mark_ready()
    with pytest.raises(ModelError, match="codes falls where the value rises; with is_fixed they may not"):
        try_states(LayerAssignment("sn", "IF", "membrane", setting, "default"), quantizer)


@pytest.mark.parametrize("target", ["decays", "thresholds", "biases"])
@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (lambda values: values * torch.nan, "round gives [14] NaN or infinite values among [14] for float"),
        (lambda values: values.half(), r"round gives float16 \[4?\] for float(32|64) \[4?\]"),
        (lambda values: values.expand(2, *values.shape), r"round gives float(32|64) \[2(, 4)?\]"),
        (lambda values: None, "round gives None for float"),
        (fails, "round fails: ZeroDivisionError"),
    ],
)
def test_constants_are_refused(target: str, wrong: Callable[[Tensor], Tensor], rule: str) -> None:
    @register_constant
    class OwnRounding(ConstantSetting, frozen=True, kw_only=True, tag="own"):
        targets = frozenset({"decays", "thresholds", "biases"})
        bits: int = 4

        def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
            return wrong(values)

    try:
        torch.manual_seed(0)
        net = nn.Sequential(Repeat(2), PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)))
        before = state(net)
        spec = QuantSpec(**{target: {"method": "own"}}, first_layer="quantize")
        with pytest.raises(ModelError, match=rf"OwnRounding\.{rule}.*rule 'default', {target} method 'own'"):
            isofire.quantize_(net, spec, torch.rand(5, 3))
        assert net[2].threshold.item() == 1
        assert all(torch.equal(before[name], value) for name, value in state(net).items())
    finally:
        CONSTANTS.unregister("own")


def test_methods_are_frozen_and_tagged() -> None:
    class Untagged(WeightSetting, frozen=True, kw_only=True):
        def build(self, channels: int) -> Levels:
            return Levels([-1.0, 1.0])

    class Loose(WeightSetting, frozen=False, kw_only=True, tag="loose"):
        def build(self, channels: int) -> Levels:
            return Levels([-1.0, 1.0])

    with pytest.raises(
        SpecError, match=re.escape("has no tag, its name in specs; write class Untagged(WeightSetting,")
    ):
        register_weights(Untagged)
    with pytest.raises(SpecError, match=r"must be frozen, as specs are; write class Loose\(.*frozen=True"):
        register_weights(Loose)
    assert not {"Untagged", "loose"} & set(WEIGHTS)


def test_labels_of_levels_that_are_given() -> None:
    class Given(WeightSetting, frozen=True, kw_only=True, tag="given"):
        bits: int = 1

        def build(self, channels: int) -> Levels:
            return Levels([-1.0, 1.0])

    setting = Given()
    assert setting.range_label == "own levels"
    # its quantizer has one set of levels, so that costs count one
    assert (setting.level_granularity, setting.groups(6), setting.describe()) == ("tensor", 1, "given 1 bit per tensor")
    assert WEIGHTS["lsq"](bits=3).range_label == "learned"
