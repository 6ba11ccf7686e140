"""Training with losses on firing: the sum that is minimised, the teacher, warm-up, exact resumption."""

from __future__ import annotations

import copy
import itertools
import re
import tomllib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.config import parse_config
from isofire.data import ImageSet
from isofire.errors import CheckpointError, ModelError, SpecError
from isofire.models import sew_resnet8
from isofire.neurons import LIF
from isofire.training import EpochRecord, Recipe, Step, register_loss, train
from isofire.training.losses import LOSSES, Loss, mean_logit
from isofire.training.objective import Objective

MakeImages = Callable[[int, str, int], ImageSet]
BASE: dict[str, Any] = {"epochs": 2, "lr": 0.02, "batch_size": 10, "warmup_epochs": 0.0}


class Stop(Exception):
    """Interrupts a run."""


def spiking(seed: int, width: float = 0.5, steps: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sew_resnet8(width=width, T=steps, in_channels=1, num_classes=4)


def run(model: nn.Module, data: ImageSet, losses: dict[str, Any], **options: Any) -> Any:
    changes = {name: options.pop(name) for name in list(options) if name in Recipe.__struct_fields__}
    recipe = Recipe(**{**BASE, "losses": losses, **changes})
    return train(model, data, None, recipe, progress=False, device="cpu", **options)


def same(one: nn.Module, two: nn.Module) -> bool:
    other = two.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.state_dict().items())


def rates_of(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out.mean((0, 1))}))
        for name, module in model.named_modules()
        if type(module).__name__ == "LIF"
    ]
    output = model(images)
    for hook in hooks:
        hook.remove()
    return output, found


def test_a_step_minimises_the_task_and_the_weighted_drift(train_set: ImageSet) -> None:
    model, teacher, plain, seen = spiking(0), spiking(1).eval(), spiking(0), []
    handle = model.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].clone()))
    record = run(
        model, train_set.first(10), {"paired": 0.5, "logits": 0.25}, teacher=teacher, epochs=1, momentum=0.0,
        weight_decay=0.0, channels_last=False,
    ).final  # fmt: skip
    handle.remove()
    (images,) = seen
    pixels = train_set.normalize(train_set.images)
    labels = train_set.labels[[int((pixels == image).flatten(1).all(1).nonzero()[0, 0]) for image in images]]
    output, own = rates_of(plain, images)
    with torch.no_grad():
        taught, theirs = rates_of(teacher, images)
    drift = torch.stack([(own[name] - theirs[name]).abs().mean() for name in own]).mean()
    drift = drift / torch.stack([rates.mean() for rates in theirs.values()]).mean()
    own_p, their_p = (torch.log_softmax(logits.mean(0) / 2, -1) for logits in (output, taught))
    divergence = 4 * (their_p.exp() * (their_p - own_p)).sum(-1).mean()
    task = mean_logit(output, labels)
    (task + 0.5 * task.detach() * drift + 0.25 * divergence).backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.02 * parameter.grad
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    assert record.train_loss == pytest.approx(task.item(), rel=1e-5)
    assert record.losses == pytest.approx({"paired": drift.item(), "logits": divergence.item()}, rel=1e-4)


def test_the_teacher_runs_once_a_step_and_stays_as_it_was(train_set: ImageSet) -> None:
    teacher = spiking(1).train()
    calls, before = [], copy.deepcopy(teacher.state_dict())
    teacher.register_forward_hook(lambda module, *_: calls.append((module.training, torch.is_grad_enabled())))
    run(spiking(0), train_set, {"paired": 1.0, "emd": 1.0, "logits": {"warmup_epochs": 1}}, teacher=teacher)
    assert calls == [(False, False)] * 10
    assert teacher.training
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_nothing_is_run_before_a_loss_counts(train_set: ImageSet) -> None:
    teacher, calls = spiking(1), []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    late, plain = spiking(0), spiking(0)
    history = run(late, train_set, {"emd": {"warmup_epochs": 1.4}}, teacher=teacher).history
    run(plain, train_set, {})
    assert len(calls) == 3
    assert history[0].losses == {}
    assert history[1].losses["emd"] > 0
    assert not same(late, plain)


def test_a_loss_that_counts_in_no_step_is_refused_before_any(train_set: ImageSet) -> None:
    # 5 steps an epoch: the last of two epochs begins at 1.8
    model = spiking(0)
    before = copy.deepcopy(model.state_dict())
    for late in (1.81, 1.99):
        with pytest.raises(SpecError, match=rf"^losses\.emd\.warmup_epochs must be at most 1\.8, .*2 x 5 .*got {late}"):
            run(model, train_set, {"paired": 1.0, "emd": {"warmup_epochs": late}}, teacher=spiking(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    history = run(model, train_set, {"emd": {"warmup_epochs": 1.8}}, teacher=spiking(1)).history
    assert [list(record.losses) for record in history] == [[], ["emd"]]


def test_the_latest_start_can_be_taken_as_it_is_told() -> None:
    def told(epochs: int, steps: int, late: float) -> float | None:
        recipe = Recipe(**{**BASE, "epochs": epochs, "losses": {"logits": {"warmup_epochs": late}}})
        objective = Objective(recipe, nn.Sequential(), nn.Sequential(), torch.device("cpu"), channels_last=False)
        try:
            objective.require_acting(epochs, steps)
        except SpecError as error:
            return float(re.findall(r"must be at most ([\d.]+), where", str(error))[0])
        return None

    for epochs, steps in [*itertools.product((1, 2, 3, 9, 90, 300), (1, 2, 3, 5, 7, 20, 100, 313, 1999))]:
        last = Fraction(epochs * steps - 1, steps)
        bound = told(epochs, steps, epochs - 1e-6)
        assert bound is not None
        assert 0 <= last - Fraction(str(bound)) < Fraction(1, 10_000)
        assert told(epochs, steps, bound) is None


@pytest.mark.parametrize("name", ["paired", "emd", "mean_rate", "membrane", "logits"])
def test_each_loss_alone_brings_a_network_nearer_to_its_teacher(train_set: ImageSet, name: str) -> None:
    setting = {"weight": 20.0} if name != "logits" else {"weight": 5.0}
    teacher = spiking(1)
    # one whose batch norms know the images, so that it fires
    for _ in range(20):
        teacher(train_set.normalize(train_set.images))
    history = run(spiking(0), train_set, {name: setting}, teacher=teacher, epochs=6, lr=0.01).history
    assert history[-1].losses[name] < 0.8 * history[0].losses[name]


def test_stored_rates_are_taken_once_over_the_first_batches(train_set: ImageSet) -> None:
    teacher, calls = spiking(1), []
    teacher.register_forward_hook(lambda _m, inputs, _o: calls.append(inputs[0].clone()))
    model, first = spiking(0), []
    handle = model.register_forward_hook(lambda _m, inputs, _o: first.append(inputs[0].clone()))
    run(model, train_set, {"emd": {"against": "stored"}}, teacher=teacher, flip=True, pad=1)
    handle.remove()
    assert len(calls) == 5
    assert all(torch.equal(one, two) for one, two in zip(calls, first, strict=False))


def test_layers_can_be_weighted_by_synaptic_operations(train_set: ImageSet) -> None:
    result = run(spiking(0), train_set, {"paired": {"layers": "synops"}}, teacher=spiking(1), epochs=1)
    plain = run(spiking(0), train_set, {"paired": 1.0}, teacher=spiking(1), epochs=1)
    assert 0 < result.final.losses["paired"] != plain.final.losses["paired"]


def test_a_run_with_losses_resumes_to_the_same_bits_within_an_epoch(tmp_path: Path, train_set: ImageSet) -> None:
    losses = {"paired": 1.0, "emd": {"weight": 0.5, "warmup_epochs": 0.3, "against": "stored"}}
    whole, cut, resumed, teacher = spiking(0), spiking(0), spiking(0), spiking(1)
    expected = run(whole, train_set, losses, teacher=teacher).history
    count = [0]

    def stop(*_: Any) -> None:
        count[0] += 1
        if count[0] == 9:
            raise Stop

    handle = cut.register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        run(cut, train_set, losses, teacher=teacher, out=tmp_path, checkpoint_every=2)
    handle.remove()
    found = run(resumed, train_set, losses, teacher=teacher, out=tmp_path).history
    assert same(whole, resumed)
    assert [(r.train_loss, r.losses) for r in found] == [(r.train_loss, r.losses) for r in expected]


def test_a_run_is_not_continued_with_another_teacher_or_other_losses(tmp_path: Path, train_set: ImageSet) -> None:
    run(spiking(0), train_set, {"paired": 1.0}, teacher=spiking(1), out=tmp_path)
    with pytest.raises(CheckpointError, match="a run of other teacher: hash"):
        run(spiking(0), train_set, {"paired": 1.0}, teacher=spiking(2), out=tmp_path)
    with pytest.raises(CheckpointError, match="a run of other recipe: losses"):
        run(spiking(0), train_set, {"paired": 0.9}, teacher=spiking(1), out=tmp_path)
    # a teacher that no loss asks for is no part of the run
    other = tmp_path / "plain"
    run(spiking(0), train_set, {}, teacher=spiking(1), out=other)
    run(spiking(0), train_set, {}, out=other)


@pytest.mark.parametrize("losses", [{"paired": 1.0}, {"emd": {"against": "stored"}}, {"logits": 1.0}])
def test_a_loss_without_its_teacher_is_refused(train_set: ImageSet, losses: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"the loss '{next(iter(losses))}' compares with a teacher, and there is none"):
        run(spiking(0), train_set, losses)


def test_a_teacher_of_another_architecture_is_refused_before_a_weight_moves(train_set: ImageSet) -> None:
    model = spiking(0)
    before = copy.deepcopy(model)
    with pytest.raises(ModelError, match=r"'paired' compares neuron by neuron, but layer 'stem_sn' has shape"):
        run(model, train_set, {"paired": 1.0}, teacher=spiking(1, width=0.25))
    for one, two in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, two)
    run(model, train_set, {"emd": 1.0}, teacher=spiking(1, width=0.25, steps=3))
    with pytest.raises(ModelError, match="'membrane' compares neuron by neuron and step by step"):
        run(model, train_set, {"membrane": 1.0}, teacher=spiking(1, steps=3))


def test_a_network_without_neurons_cannot_be_listened_to(
    make_net: Callable[..., nn.Module], train_set: ImageSet
) -> None:
    with pytest.raises(ModelError, match="needs spiking neurons, got TinyNet"):
        run(make_net(), train_set, {"paired": 1.0}, teacher=spiking(1))
    run(make_net(), train_set, {"logits": 1.0}, teacher=spiking(1))


class Blowing(Loss, frozen=True, kw_only=True):
    def __call__(self, step: Step) -> Tensor:
        return step.logits.sum() * torch.inf


def test_a_further_loss_that_is_not_finite_stops_the_run(train_set: ImageSet) -> None:
    register_loss("blowing", Blowing)
    try:
        with pytest.raises(ModelError, match="the loss 'blowing' stopped being finite at epoch 1, step 1 of 5"):
            run(spiking(0), train_set, {"blowing": 1.0})
    finally:
        LOSSES.unregister("blowing")


class Free(Loss, frozen=True, kw_only=True):
    """Gives and asks for what the test says."""

    def asks(self) -> Any:
        return ASKED[0]

    def __call__(self, step: Step) -> Any:
        return GIVEN[0](step)


ASKED: list[Any] = [frozenset()]
GIVEN: list[Callable[[Step], Any]] = []


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda step: step.logits.detach().mean(), "gives a value without gradient, which would not change training"),
        (lambda step: torch.tensor(1.0), "gives a value without gradient"),
        (lambda step: 0.5, "must give a tensor without dimensions, of a floating type, got float"),
        (lambda step: None, "must give .* got NoneType"),
        (lambda step: step.logits.mean((0, 1)), r"must give .* got torch.float32 \[4\]; take its mean"),
        (lambda step: (step.logits > 0).sum(), r"must give .* got torch.int64 \[\]"),
        (lambda step: step.nothing, "failed: AttributeError: 'Step' object has no attribute 'nothing'"),
        (lambda: 0.0, r"failed: TypeError: .*; mend its __call__\(self, step\)"),
    ],
)
@pytest.mark.parametrize("place", ["further", "task"])
def test_a_loss_that_is_none_is_named(give: Any, message: str, place: str, train_set: ImageSet) -> None:
    register_loss("free", Free)
    GIVEN[:] = [give]
    try:
        losses, changes = ({"free": 1.0}, {}) if place == "further" else ({}, {"loss": "free"})
        with pytest.raises(SpecError, match=rf"the loss 'free' \({__name__}.Free\) {message}"):
            run(spiking(0), train_set, losses, **changes)
    finally:
        LOSSES.unregister("free")


@pytest.mark.parametrize("asked", [{"rate"}, frozenset({"rates", 3}), ["rates"], "rates", None])
def test_what_a_loss_asks_for_is_known(asked: Any) -> None:
    register_loss("free", Free)
    ASKED[:] = [asked]
    try:
        with pytest.raises(
            SpecError, match=r"asks\(\) of the loss 'free' .* must give a frozenset of 'rates', 'spikes'"
        ):
            Recipe(epochs=1, lr=0.1, losses={"free": 1.0})
        ASKED[:] = [{"rates"}]
        assert Recipe(epochs=1, lr=0.1, losses={"free": 1.0}).labels() == ["free=1"]
    finally:
        LOSSES.unregister("free")
        ASKED[:] = [frozenset()]


def test_a_record_of_before_there_were_losses_is_still_read() -> None:
    import msgspec

    old = {
        "epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "valid_loss": None, "valid_accuracy": None, "lr": 0.1,
        "seconds": 1.0, "images_per_second": 2.0,
    }  # fmt: skip
    assert msgspec.convert(old, EpochRecord).losses == {}


def test_the_page_on_losses_says_what_there_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    settings = re.findall(r"--set '?([^'`]*)'?`", page)
    assert len(settings) == 2
    for setting in settings:
        found = parse_config(tomllib.loads(example[1]), "training.md", [setting]).qat
        assert found is not None
        assert set(found.losses) <= {"paired", "logits", "emd"}
    assert all(f"`{name}`" in page for name in LOSSES if name not in ("mean_logit", "tet"))
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    try:
        exec(compile(code[1], "docs/training.md", "exec"), names)
        assert names["recipe"].labels() == ["quiet=0.1(free=0.05)"]
    finally:
        LOSSES.unregister("quiet")


class Pooled(nn.Module):
    """Spikes that meet weights behind a maximum, whose operations depend on other spikes."""

    def __init__(self, heard: bool) -> None:
        super().__init__()
        self.stem, self.sn = nn.Conv2d(1, 4, 3, padding=1), LIF(v_threshold=0.3)
        self.conv, self.sn2 = nn.Conv2d(4, 4, 3, padding=1), LIF(v_threshold=0.3)
        self.fc, self.heard = nn.Linear(4, 4), heard

    def forward(self, x: Tensor) -> Tensor:
        steps = x.unsqueeze(0).repeat(2, 1, 1, 1, 1)
        first = self.sn(self.stem(steps.flatten(0, 1)).unflatten(0, steps.shape[:2]))
        held = torch.nn.functional.max_pool2d(first.flatten(0, 1), 2)
        second = self.sn2(self.conv(held).unflatten(0, steps.shape[:2]))
        return self.fc(second.mean((3, 4)) if self.heard else second.amax((3, 4)))


def test_operations_that_weigh_no_layer_are_named(train_set: ImageSet, caplog: pytest.LogCaptureFixture) -> None:
    losses = {"paired": {"layers": "synops"}}
    run(Pooled(True), train_set, losses, teacher=Pooled(True), epochs=1)
    assert "layers are weighted by synaptic operations without those of conv (" in caplog.text
    with pytest.raises(ModelError, match="no spike of this network is known to cause any; use layers = 'neurons'"):
        run(Pooled(False), train_set, losses, teacher=Pooled(False), epochs=1)


def test_a_network_that_writes_over_its_inputs_is_refused_in_its_first_step(train_set: ImageSet) -> None:
    class Writes(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(0.5))

    with pytest.raises(ModelError, match=r"Writes writes over its inputs"):
        run(Writes(True), train_set, {"paired": 1.0}, teacher=Pooled(True), epochs=1)
