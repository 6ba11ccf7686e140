"""Forwards of fast networks that are run again from what was written down: the same outputs, or no plan."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.lookup.test_networks import W4, _quantized
from torch import Tensor, nn

import isofire
from isofire.firing import FiringRecorder
from isofire.lookup import native, plan
from isofire.lookup.tape import MOST_OPERATIONS
from isofire.neurons import IF, LIF, PerStep, Repeat

pytestmark = pytest.mark.skipif(native.library() is None, reason="the look-ups were not compiled")


def _pair(model: nn.Module, **options: Any) -> tuple[Any, Any]:
    """With plans where nothing is against them, and without any."""
    return isofire.fast(model, **options), isofire.fast(model, plan=False)


def _planned(quick: Any, x: Tensor) -> bool:
    return (tuple(x.shape), "") in quick._plans.said()


def _same(quick: Any, slow: Any, *shape: int) -> bool:
    """Whether outputs are equal to the last bit on other inputs of a shape, before a plan and from it."""
    return all(torch.equal(quick(x), slow(x)) for x in (torch.randn(*shape) * k for k in (1, 2, 0.1, 1)))


@pytest.fixture
def quick() -> Any:
    """Run from a plan for the shape 1 x 3 x 12 x 12."""
    made = isofire.fast(_quantized())
    with torch.no_grad():
        made(torch.randn(1, 3, 12, 12)), made(torch.randn(1, 3, 12, 12))
    assert made._plans.said() == [((1, 3, 12, 12), "")]  # type: ignore[operator, union-attr]
    return made


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
@pytest.mark.parametrize(("T", "images"), [(1, 1), (4, 1), (5, 3), (4, 16), (2, 33)])
def test_every_way_of_joining_steps_and_batches(connect: str, T: int, images: int) -> None:
    quick, slow = _pair(_quantized(connect=connect, T=T))
    assert _same(quick, slow, images, 3, 13, 11)
    assert _same(quick, slow, T, images, 3, 12, 12)
    assert [why for _, why in quick._plans.said()] == ["", ""]
    assert slow._plans.said() == []


TABLE = {"method": "anchored", "bits": 3, "placement": "post_reset"}


@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
@pytest.mark.parametrize(
    "membrane", [None, {"bits": 3, "range": [-1.0, 1.6], "placement": "pre_fire"}, {"bits": 2}, TABLE]
)
@pytest.mark.parametrize("bits", [2, 8])
def test_bits_neurons_and_membranes(bits: int, membrane: Any, neuron: str) -> None:
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": bits}, membrane=membrane)
    quick, slow = _pair(_quantized(spec, neuron=neuron))
    assert _same(quick, slow, 1, 3, 12, 12)
    assert _planned(quick, torch.empty(1, 3, 12, 12))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1)])
def test_sequences_with_pools(pool: nn.Module) -> None:
    model = nn.Sequential(
        Repeat(4), PerStep(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)), LIF(), PerStep(pool),
        PerStep(nn.Conv2d(6, 7, 3, padding=1)), LIF(v_reset=None), PerStep(nn.Flatten(), nn.Linear(112, 12)),
        IF(v_threshold=0.5), PerStep(nn.Linear(12, 4)),
    )  # fmt: skip
    model = isofire.quantize_(model.eval(), W4, torch.rand(40, 2, 8, 8))
    quick, slow = _pair(model)
    assert _same(quick, slow, 2, 2, 8, 8)
    assert _planned(quick, torch.empty(2, 2, 8, 8))


def test_outputs_are_the_callers_and_inputs_are_left_alone(quick: Any) -> None:
    x, y = torch.randn(2, 1, 3, 12, 12)
    kept = x.clone()
    first = quick(x)
    before = first.clone()
    second = quick(y)
    assert torch.equal(first, before)
    assert not torch.equal(first, second)
    assert torch.equal(x, kept)
    first.zero_()
    assert torch.equal(quick(x), before)


def test_spikes_as_output_are_the_callers() -> None:
    """They come straight of a kernel, in memory that later runs have too."""
    model = nn.Sequential(
        Repeat(3), PerStep(nn.Conv2d(2, 4, 3)), IF(v_threshold=0.3), PerStep(nn.Conv2d(4, 4, 3)), IF()
    )
    with torch.no_grad():
        model[3][0].weight.copy_(torch.randint(-3, 8, (4, 4, 3, 3)) / 8)  # type: ignore[index, operator]
    quick, slow = _pair(model.eval())
    x, y = torch.randn(2, 1, 2, 9, 9).unbind(0)
    outputs = [quick(each) for each in (x, y, x, y, x)]
    assert _planned(quick, x)
    assert all(torch.equal(found, slow(each)) for found, each in zip(outputs, (x, y, x, y, x), strict=True))
    assert not torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_inputs_that_are_not_finite_go_their_own_way(quick: Any, value: float) -> None:
    slow = isofire.fast(_as_it_was(quick), plan=False)
    x = torch.randn(1, 3, 12, 12)
    x[0, 1, 3, 3] = value
    assert torch.equal(quick(x), slow(x))
    assert _same(quick, slow, 1, 3, 12, 12)


def _as_it_was(quick: Any) -> nn.Module:
    """The quantized network again, with all that was done to the fast one."""
    made = _quantized()
    made.load_state_dict(quick.state_dict())
    return made


def _of_others(module: nn.Module) -> None:
    other = copy.deepcopy(module)
    with torch.no_grad():
        for each in other.parameters():
            each.mul_(-0.5)
    module.load_state_dict(other.state_dict())


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda net: net.stages[0][0].conv1.weight.mul_(-1.0),
    "a buffer": lambda net: net.stem_bn.running_mean.add_(0.5),
    "last layer": lambda net: net.fc.bias.add_(1.0),
    "another parameter": lambda net: setattr(net.fc, "weight", nn.Parameter(-net.fc.weight, requires_grad=False)),
    "its memory": lambda net: setattr(net.fc.weight, "data", -net.fc.weight),
    "behind torch's back": lambda net: net.fc.weight.data.mul_(-1.0),
    "load_state_dict": _of_others,
    "a layer": lambda net: setattr(net, "fc", nn.Linear(net.fc.in_features, 10)),
    "an attribute": lambda net: setattr(net.stages[0][0], "connect", "and"),
    "steps": lambda net: setattr(net, "T", 2),
    "neurons": lambda net: net.stem_sn.set_threshold_(torch.tensor(0.4)),
    "a hook": lambda net: net.stem_sn.register_forward_hook(lambda _m, _i, output: output * 0.0),
    "a hook before": lambda net: net.fc.register_forward_pre_hook(lambda _m, inputs: (inputs[0] * 2,)),
    "a forward": lambda net: setattr(net.fc, "forward", lambda x: torch.ones(1)),
    "a class": lambda net: setattr(net.fc, "__class__", _Doubled),
}


class _Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_seen(quick: Any, change: str) -> None:
    x = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        before = quick(x)
        twin = copy.deepcopy(quick)
        twin.__dict__["_plans"] = plan.Plans(False)
        for net in (quick, twin):
            torch.manual_seed(1)
            CHANGES[change](net)
        expected = twin(x)
        assert not torch.equal(expected, before)
        assert all(torch.equal(quick(x), expected) for _ in range(4))


def test_training_is_refused_and_a_part_in_training_runs_as_it_does(quick: Any) -> None:
    x = torch.randn(1, 3, 12, 12)
    with pytest.raises(isofire.errors.ModelError, match="inference alone"):
        quick.train()(x)
    quick.eval()
    quick.stem_bn.train()
    before = quick.stem_bn.num_batches_tracked.item()
    quick(x), quick(x), quick(x)
    assert quick.stem_bn.num_batches_tracked.item() == before + 3


def test_hooks_on_all_modules_are_called(quick: Any) -> None:
    heard: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(module))
    try:
        quick(torch.randn(1, 3, 12, 12))
    finally:
        handle.remove()
    assert quick.fc in heard


def test_recorders_hear_every_forward(quick: Any) -> None:
    x = torch.randn(1, 3, 12, 12)
    slow = isofire.fast(_as_it_was(quick), plan=False)
    sums = []
    for net in (quick, slow):
        with FiringRecorder(net, blocks=1) as recorder:
            for _ in range(4):
                net(x)
        sums.append({name: int(counts.sum()) for name, counts in recorder.counts.counts.items()})
    assert sums[0] == sums[1]
    assert sum(sums[0].values()) > 0
    assert _same(quick, slow, 1, 3, 12, 12)
    assert _planned(quick, x)


def test_other_shapes_strides_and_threads_have_plans_of_their_own(quick: Any) -> None:
    slow = isofire.fast(_as_it_was(quick), plan=False)
    threads = torch.get_num_threads()
    for shape in ((2, 3, 12, 12), (1, 3, 9, 14), (1, 3, 12, 12)):
        assert _same(quick, slow, *shape)
    last = torch.randn(1, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(quick(last * k), slow(last * k)) for k in (1, 2, 3))
    try:
        torch.set_num_threads(2)
        assert _same(quick, slow, 1, 3, 12, 12)
    finally:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        assert _same(quick, slow, 1, 3, 12, 12)
    assert [why for _, why in quick._plans.said()] == [""] * 6
    assert all(torch.equal(quick(torch.zeros(n, 3, 12, 12)), slow(torch.zeros(n, 3, 12, 12))) for n in range(3, 14))
    assert len(quick._plans.said()) == plan.MOST_PLANS


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_BYTES", 2**20)
    quick, slow = _pair(_quantized())
    assert _same(quick, slow, 1, 3, 12, 12)
    assert _planned(quick, torch.empty(1, 3, 12, 12))
    assert _same(quick, slow, 40, 3, 24, 24)
    assert dict(quick._plans.said())[(40, 3, 24, 24)] == "its maps take more than 1 MiB"


def test_copies_have_plans_of_their_own(quick: Any) -> None:
    x = torch.randn(1, 3, 12, 12)
    deep, shallow = copy.deepcopy(quick), copy.copy(quick)
    assert deep._plans.said() == []
    assert "_plans" not in "".join(quick.state_dict())
    shallow.T = 2
    assert shallow(x).shape[0] == 2
    assert quick(x).shape[0] == 4


def test_plans_go_with_their_network() -> None:
    quick = isofire.fast(_quantized())
    x = torch.randn(1, 3, 12, 12)
    quick(x), quick(x)
    assert _planned(quick, x)
    alive = weakref.ref(quick)
    del quick
    gc.collect()
    assert alive() is None


def test_threads_do_not_share_memory(quick: Any) -> None:
    slow = isofire.fast(_as_it_was(quick), plan=False)
    inputs = torch.randn(6, 1, 3, 12, 12)
    expected = [slow(x) for x in inputs]
    wrong: list[int] = []

    def run(at: int) -> None:
        for _ in range(60):
            if not torch.equal(quick(inputs[at]), expected[at]):
                wrong.append(at)

    workers = [threading.Thread(target=run, args=(at,)) for at in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert _planned(quick, inputs[0])


class Own(nn.Module):
    """A network of the user's, with what `also` does beside its forward."""

    def __init__(self, also: Callable[[Any, Tensor], Any] = lambda net, x: None) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.sn1, self.sn2, self.also = LIF(v_threshold=0.3), LIF(v_threshold=0.3), also

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.sn1(self.first(x), repeat=3)
        self.also(self, x)
        out = self.sn2(self.second(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2]))
        return self.last(out.mean((-2, -1)))


def _own(also: Any = None) -> nn.Module:
    torch.manual_seed(3)
    model = Own() if also is None else Own(also)
    with torch.no_grad():
        model.second.weight.copy_(torch.randint(-7, 8, (4, 4, 3, 3)) / 8)
    return model.eval()


def test_networks_of_ones_own_have_plans_if_one_says_so() -> None:
    quick, slow = _pair(_own())
    assert _same(quick, slow, 1, 1, 8, 8)
    assert "a class that may do more" in quick._plans.said()[0][1]
    assert "a class that may do more" in repr(quick)
    quick = isofire.fast(_own(), plan=True)
    assert _same(quick, slow, 1, 1, 8, 8)
    assert "[1, 1, 8, 8]: run from a plan" in repr(quick)


OUTSIDE = torch.zeros(())


def _count(net: Any, x: Tensor) -> None:
    net.calls = getattr(net, "calls", 0) + 1


@pytest.mark.parametrize(
    ("also", "why"),
    [
        (lambda net, x: bool(x.mean() > 0), "looks at values"),
        (_count, "a forward changes its modules"),
        (lambda net, x: x.add_(1.0), "not of this forward alone"),
        (lambda net, x: net.last.bias.add_(1.0), "a forward changes its modules"),
        (lambda net, x: OUTSIDE.add_(1.0), "not of this forward alone"),
        (lambda net, x: torch.rand(3), "draws random numbers"),
        (lambda net, x: x.add(torch.from_numpy(x.numpy() + 1)), "neither a parameter nor made by torch"),
        (lambda net, x: x.add(torch.empty(1)), "memory without values"),
        (lambda net, x: [x.add(1) for _ in range(MOST_OPERATIONS)], "operations of torch"),
        (lambda net, x: net.sn1(x.repeat(1, 4, 1, 1) * 2, repeat=3), "neurons run as it was"),
    ],
)
def test_what_a_plan_would_leave_out_is_seen(also: Any, why: str) -> None:
    quick, slow = isofire.fast(_own(also), plan=True), isofire.fast(_own(also), plan=False)
    inputs = torch.randn(5, 1, 1, 8, 8)
    assert all(torch.equal(quick(x.clone()), slow(x.clone())) for x in inputs)
    assert why in quick._plans.said()[0][1]
    assert getattr(quick, "calls", 5) == 5


def test_forwards_of_the_users_behind_the_look_ups_are_not_skipped() -> None:
    """A class that looks like one of `isofire.fast`, but does something more."""
    quick, x = isofire.fast(_quantized()), torch.randn(1, 3, 12, 12)
    kind = type(quick.fc)
    calls: list[int] = []

    def forward(self: Any, x: Tensor) -> Tensor:
        calls.append(1)
        return kind.forward(self, x)

    quick.fc.__class__ = type("Linear", kind.__bases__, {"forward": forward, "__module__": kind.__module__})
    quick(x), quick(x), quick(x)
    assert len(calls) == 3
    quick.fc.__class__ = kind
    quick(x), quick(x)
    assert _planned(quick, x)


def test_functions_that_replace_parameters_for_a_call_are_seen(quick: Any) -> None:
    x = torch.randn(1, 3, 12, 12)
    before, other = quick(x), {"fc.bias": quick.fc.bias + 1.0}
    assert torch.allclose(torch.func.functional_call(quick, other, (x,)), before + 1.0, atol=1e-5)
    assert torch.equal(quick(x), before)


def test_attributes_that_change_unseen_are_refused() -> None:
    model = _own()
    model.factors = [1.0]  # type: ignore[assignment]
    quick = isofire.fast(model, plan=True)
    for _ in range(3):
        quick(torch.randn(1, 1, 8, 8))
    assert "has 'factors', which can change without being seen" in quick._plans.said()[0][1]
