from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.data import Events, EventSet, ImageSet
from isofire.errors import CheckpointError, ModelError, OutputError, SpecError
from isofire.models import sew_resnet8
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import calibrate_, prepare
from isofire.quantizers import LSQ, LQNet, Quantizer
from isofire.spec import QuantSpec
from isofire.training import EpochRecord, Recipe, evaluate, load_weights, train
from isofire.training.checkpoint import read_note
from isofire.training.losses import mean_logit, tet
from isofire.training.resume import state_hash

MakeNet = Callable[..., nn.Module]
RECIPE = Recipe(epochs=4, lr=0.05, batch_size=12, label_smoothing=0.1, flip=True, pad=1, cutout=2, clip_norm=2.0)


class Stop(Exception):
    """Raised by a test to interrupt a run."""


def _stop_at(epoch: int) -> Callable[[EpochRecord], None]:
    def stop(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Stop

    return stop


def _run(net: nn.Module, *sets: ImageSet | None, recipe: Recipe = RECIPE, **options: Any) -> Any:
    return train(net, *sets, recipe, progress=False, device="cpu", **options)


def _same(one: nn.Module, two: nn.Module) -> bool:
    other = two.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.state_dict().items())


def _outcome(history: tuple[EpochRecord, ...]) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.train_loss, r.train_accuracy, r.valid_loss, r.valid_accuracy, r.lr) for r in history]


def test_it_learns_the_small_set(make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet) -> None:
    net, recipe = make_net(dropout=0.0), Recipe(epochs=15, lr=0.05, batch_size=10, loss="tet")
    result = _run(net, train_set, valid_set, recipe=recipe)
    assert result.history[0].train_accuracy < 0.8
    assert result.final.train_accuracy == 1.0
    assert result.final.valid_accuracy >= 0.95
    assert evaluate(net, valid_set).accuracy == result.final.valid_accuracy
    assert result.final.train_loss < 0.2 < result.history[0].train_loss


@pytest.mark.parametrize(
    "options", [{"optimizer": "adamw", "lr": 0.01}, {"precision": "bf16"}, {"schedule": "one_cycle"}]
)
def test_every_kind_of_recipe_learns(make_net: MakeNet, train_set: ImageSet, options: dict[str, Any]) -> None:
    recipe = Recipe(**{"epochs": 12, "lr": 0.05, "batch_size": 10, "channels_last": False, **options})
    assert _run(make_net(dropout=0.0), train_set, None, recipe=recipe).final.train_accuracy >= 0.95


@pytest.mark.parametrize("loss", ["mean_logit", "tet"])
def test_one_epoch_equals_a_plain_loop(make_net: MakeNet, train_set: ImageSet, loss: str) -> None:
    recipe = Recipe(
        epochs=1, lr=0.1, batch_size=10, warmup_epochs=0.4, loss=loss, label_smoothing=0.1, weight_decay=0.0,
        momentum=0.0, clip_norm=0.5,
    )  # fmt: skip
    net, plain, seen = make_net(dropout=0.0), make_net(dropout=0.0), []
    hook = net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    record = _run(net, train_set, None, recipe=recipe).final
    hook.remove()
    losses, pixels = [], train_set.normalize(train_set.images)
    rates = [0.05, 0.1, 0.1, 0.1 * 0.75, 0.1 * 0.25]
    for batch, rate in zip(seen, rates, strict=True):
        index = torch.stack([(pixels == image).flatten(1).all(1).nonzero()[0, 0] for image in batch])
        output, labels = plain(batch), train_set.labels[index]
        value = (tet if loss == "tet" else mean_logit)(output, labels, 0.1)
        plain.zero_grad()
        value.backward()
        norm = sum(float(p.grad.square().sum()) for p in plain.parameters()) ** 0.5
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter -= rate * parameter.grad * min(1.0, 0.5 / norm)
        losses.append(value.item())
    assert len({tuple(image.flatten().tolist()) for batch in seen for image in batch}) == 50
    assert record.train_loss == pytest.approx(sum(losses) / 5, rel=1e-5)
    for one, two in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_the_history_says_what_happened(make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet) -> None:
    seen: list[EpochRecord] = []
    result = _run(make_net(), train_set, valid_set, on_epoch=seen.append)
    assert list(result.history) == seen
    assert [record.epoch for record in seen] == [1, 2, 3, 4]
    # 4 steps an epoch, warm-up over the first, cosine over the other 12
    assert [record.lr for record in seen] == pytest.approx(
        [0.05, 0.05 * 0.853553, 0.05 * 0.37059, 0.05 * 0.017037], rel=1e-4
    )
    assert all(record.seconds > 0 and record.images_per_second > 0 for record in seen)
    assert all(record.images_per_second == pytest.approx(48 / record.seconds) for record in seen)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet
) -> None:
    nets = [make_net() for _ in range(3)]
    results = []
    nets[1].eval()
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        torch.rand(seed + 5)
        values = {name: getattr(RECIPE, name) for name in RECIPE.__struct_fields__} | {"seed": seed}
        results.append(_run(net, train_set, valid_set, recipe=Recipe(**values)))
    assert _same(nets[0], nets[1])
    assert _outcome(results[0].history) == _outcome(results[1].history)
    assert not _same(nets[0], nets[2])


def test_the_callers_random_numbers_are_untouched(make_net: MakeNet, train_set: ImageSet) -> None:
    state = torch.get_rng_state()
    _run(make_net(), train_set, None)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resuming_after_two_of_four_epochs_gives_the_same_bits(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet, optimizer: str
) -> None:
    recipe = Recipe(epochs=4, lr=0.02, batch_size=12, optimizer=optimizer, flip=True, pad=1)
    whole, cut, resumed = make_net(), make_net(), make_net()
    expected = _run(whole, train_set, valid_set, recipe=recipe)
    with pytest.raises(Stop):
        _run(cut, train_set, valid_set, recipe=recipe, out=tmp_path, on_epoch=_stop_at(2))
    found = _run(resumed, train_set, valid_set, recipe=recipe, out=tmp_path)
    assert _same(whole, resumed)
    assert not _same(whole, cut)
    assert _outcome(found.history) == _outcome(expected.history)


def test_resuming_within_an_epoch_gives_the_same_bits(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet
) -> None:
    whole, cut, resumed = make_net(), make_net(), make_net()
    expected = _run(whole, train_set, valid_set)
    calls = 0

    def stop(module: nn.Module, _: object) -> None:
        nonlocal calls
        calls += module.training
        if calls == 8:
            raise Stop

    hook = cut.register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        _run(cut, train_set, valid_set, out=tmp_path, checkpoint_every=3)
    hook.remove()
    position = read_note(tmp_path / "last.safetensors", "training")["position"]
    assert (position["epoch"], position["step"]) == (1, 2)
    found = _run(resumed, train_set, valid_set, out=tmp_path, checkpoint_every=3)
    assert _same(whole, resumed)
    assert _outcome(found.history) == _outcome(expected.history)
    assert found.history[1].seconds > position["seconds"] > 0


def test_a_finished_run_is_read_not_repeated(tmp_path: Path, make_net: MakeNet, train_set: ImageSet) -> None:
    first, second = make_net(), make_net()
    history = _run(first, train_set, None, out=tmp_path).history
    calls: list[EpochRecord] = []
    assert _run(second, train_set, None, out=tmp_path, on_epoch=calls.append).history == history
    assert calls == []
    assert _same(first, second)


def test_the_best_weights_are_kept_and_can_be_chosen(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet
) -> None:
    net = make_net()
    states = {}

    def keep(record: EpochRecord) -> None:
        states[record.epoch] = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    recipe = Recipe(epochs=6, lr=1.5, batch_size=10, schedule="constant")
    result = _run(net, train_set, valid_set, recipe=recipe, out=tmp_path, on_epoch=keep)
    accuracies = [record.valid_accuracy for record in result.history]
    best = accuracies.index(max(accuracies)) + 1
    assert best < 6, "this recipe must make the last epoch worse than the best for the test to tell them apart"
    chosen = make_net(5)
    assert result.load_best_(chosen) is result.best
    assert result.best.epoch == best
    assert all(torch.equal(tensor, chosen.state_dict()[name]) for name, tensor in states[best].items())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in states[6].items())
    load_weights(tmp_path / "last.safetensors", chosen)
    assert _same(net, chosen)


def test_without_a_validation_set_nothing_is_chosen(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    net = make_net()
    result = train(net, train_set, None, RECIPE, out=tmp_path)
    assert "no validation set: no epoch is chosen" in capsys.readouterr().err
    assert result.best is None
    assert result.final.valid_accuracy is None
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.safetensors"}
    with pytest.raises(SpecError, match="no validation set was given, so no epoch was chosen"):
        result.load_best_(net)


def test_without_a_folder_the_best_weights_are_gone(
    make_net: MakeNet, train_set: ImageSet, valid_set: ImageSet
) -> None:
    net = make_net()
    with pytest.raises(SpecError, match="weights of the best epoch were not kept; give train"):
        _run(net, train_set, valid_set).load_best_(net)


def _change(**options: Any) -> Recipe:
    return Recipe(**{name: getattr(RECIPE, name) for name in RECIPE.__struct_fields__} | options)


def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, make_net: MakeNet, make_images: Callable[..., ImageSet], train_set: ImageSet
) -> None:
    with pytest.raises(Stop):
        _run(make_net(), train_set, None, out=tmp_path, on_epoch=_stop_at(1))
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"run of other recipe: lr 0.05 there, 0.1 here, seed 0 there, 1 here;"):
        _run(make_net(), train_set, None, recipe=_change(lr=0.1, seed=1), out=tmp_path)
    with pytest.raises(CheckpointError, match=r"run of other data: train_set '[0-9a-f]+' there, '[0-9a-f]+' here"):
        _run(make_net(), make_images(50, "train", 7), None, out=tmp_path)
    with pytest.raises(CheckpointError, match="run of other data: valid_set none there"):
        _run(make_net(), train_set, make_images(8, "valid", 7), out=tmp_path)
    frozen = make_net()
    frozen.conv.bias.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"other trainable parameters: conv\.bias 'trained' there, none here"):
        _run(frozen, train_set, None, out=tmp_path)
    wider = make_net()
    wider.heads.append(nn.Linear(96, 4))
    with pytest.raises(CheckpointError, match=r"trainable parameters: heads\.2\.weight none there, 'trained' here"):
        _run(wider, train_set, None, out=tmp_path)
    with_buffer = make_net()
    with_buffer.register_buffer("levels", torch.zeros(3))
    with pytest.raises(CheckpointError, match=r"other initial weights or buffers: hash '[0-9a-f]{16}' there,"):
        _run(with_buffer, train_set, None, out=tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def _named(model: nn.Module, **config: Any) -> nn.Module:
    model.config = config  # type: ignore[assignment]
    return model


def test_a_checkpoint_of_another_initial_model_is_refused(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet
) -> None:
    options = {"T": 2, "widths": (8, 16), "neuron_options": {"tau": 2.0}}
    _run(_named(make_net(), **options), train_set, None, out=tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"other initial weights or buffers: hash '[0-9a-f]{16}' there, '") as e:
        _run(_named(make_net(1), **options), train_set, None, out=tmp_path)
    assert "choose another folder" in str(e.value)
    with pytest.raises(CheckpointError, match="run of other model config: T 2 there, 4 here;"):
        _run(_named(make_net(), **options | {"T": 4}), train_set, None, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"config: neuron_options \{'tau': 2.0\} there, \{'tau': 4.0\} here;"):
        _run(_named(make_net(), **options | {"neuron_options": {"tau": 4.0}}), train_set, None, out=tmp_path)
    with pytest.raises(CheckpointError, match="config: T 2 there, none here"):
        _run(make_net(), train_set, None, out=tmp_path)
    moved = make_net()
    moved.norm.running_mean += 0.5
    with pytest.raises(CheckpointError, match="other initial weights or buffers"):
        _run(_named(moved, **options), train_set, None, out=tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    same = _named(make_net(), **options)
    assert _run(same, train_set, None, out=tmp_path).final.epoch == RECIPE.epochs


def test_a_checkpoint_of_another_spec_is_refused(tmp_path: Path, train_set: ImageSet) -> None:
    def prepared(bits: int) -> nn.Module:
        model = prepare(network(), QuantSpec(weights={"method": "lsq", "bits": bits}))
        return calibrate_(model, train_set.batches(10))

    def network() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return sew_resnet8(T=2, width=0.1, in_channels=1, num_classes=4)

    one = prepared(4)
    for name, tensor in prepared(2).state_dict().items():
        assert tensor.shape == one.state_dict()[name].shape
    with pytest.raises(Stop):
        _run(one, train_set, None, out=tmp_path, on_epoch=_stop_at(1))
    with pytest.raises(CheckpointError, match=r"run of other quantization: weights \{.*'bits': 4.*'bits': 2"):
        _run(prepared(2), train_set, None, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"run of other quantization: weights .* there, none here"):
        _run(network(), train_set, None, out=tmp_path)
    whole, resumed = prepared(4), prepared(4)
    _run(whole, train_set, None)
    _run(resumed, train_set, None, out=tmp_path)
    assert _same(whole, resumed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_the_state_hash_follows_values_names_and_types_alone(dtype: torch.dtype) -> None:
    values = torch.arange(24.0).view(1, 2, 3, 4)

    def holder(tensor: Tensor, name: str = "a") -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return module

    own = state_hash(holder(values.to(dtype)))
    assert own == state_hash(holder(values.to(dtype).to(memory_format=torch.channels_last)))
    assert own == state_hash(holder(values.to(dtype).transpose(0, 3).contiguous().transpose(0, 3)))
    other = values.clone()
    other[0, 1, 2, 3] += 1
    unlike = [other.to(dtype), values.to(dtype).view(2, 1, 3, 4), values.double(), values.to(dtype).flatten()[3]]
    hashes = {own, state_hash(holder(values.to(dtype), "b")), *(state_hash(holder(tensor)) for tensor in unlike)}
    assert len(hashes) == 6


def test_a_truncated_checkpoint_is_refused(tmp_path: Path, make_net: MakeNet, train_set: ImageSet) -> None:
    _run(make_net(), train_set, None, recipe=_change(epochs=1), out=tmp_path)
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is truncated"):
        _run(make_net(), train_set, None, recipe=_change(epochs=1), out=tmp_path)


def test_a_used_folder_is_not_overwritten(tmp_path: Path, make_net: MakeNet, train_set: ImageSet) -> None:
    _run(make_net(), train_set, None, out=tmp_path)
    with pytest.raises(OutputError, match="already holds a training run; resume it or choose another folder"):
        _run(make_net(), train_set, None, out=tmp_path, resume=False)


def test_the_checkpoint_says_how_it_was_made(tmp_path: Path, make_net: MakeNet, train_set: ImageSet) -> None:
    _run(make_net(), train_set, None, out=tmp_path)
    identity = read_note(tmp_path / "last.safetensors", "training")["identity"]
    assert Recipe.from_mapping(identity["recipe"]) == RECIPE
    assert identity["data"] == {"train_set": train_set.fingerprint, "valid_set": None}
    assert identity["processes"] == 1
    assert "conv.weight" in identity["trainable"]
    assert json.dumps(identity)


class Exploding(nn.Module):
    """Gives logits that turn infinite at the seventh step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 4)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += self.training
        return self.linear(images.flatten(1)) * (float("inf") if self.calls == 7 else 1.0)


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(
    tmp_path: Path, train_set: ImageSet, valid_set: ImageSet
) -> None:
    with pytest.raises(
        ModelError, match=r"the loss stopped being finite at epoch 2, step 2 of 5, with learning rate 0.0"
    ) as e:
        _run(Exploding(), train_set, valid_set, recipe=Recipe(epochs=3, lr=0.05, batch_size=10), out=tmp_path)
    assert "lower lr, lengthen warmup_epochs or set clip_norm" in str(e.value)
    assert "last.safetensors keeps the state before" in str(e.value)
    kept = nn.ModuleDict({"linear": nn.Linear(64, 4)})
    note = load_weights(tmp_path / "last.safetensors", kept)
    assert note["position"]["epoch"] == 1
    assert all(bool(parameter.isfinite().all()) for parameter in kept.parameters())


class Nan(torch.autograd.Function):
    """Identity whose gradient is NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * float("nan")


def test_a_weight_that_is_not_finite_is_never_written(tmp_path: Path, train_set: ImageSet) -> None:
    class Poisoned(Exploding):
        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            logits = self.linear(images.flatten(1))
            return Nan.apply(logits) if self.calls == 5 else logits

    with pytest.raises(ModelError, match="a weight stopped being finite at epoch 1, step 5 of 5"):
        _run(Poisoned(), train_set, None, recipe=Recipe(epochs=1, lr=0.05, batch_size=10), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_quantizer_that_meets_a_diverged_weight_is_told_as_diverged_training(
    tmp_path: Path, train_set: ImageSet
) -> None:
    spec = QuantSpec(weights={"method": "uniform", "bits": 4, "range": [-1, 1]}, last_layer="quantize")
    layers = PerStep(nn.Conv2d(1, 4, 3)), LIF(), PerStep(nn.Flatten(), nn.Linear(144, 4))
    model = prepare(nn.Sequential(Repeat(2), *layers), spec)
    recipe = Recipe(epochs=1, lr=1e30, batch_size=10, warmup_epochs=0)
    with pytest.raises(ModelError, match=r"a weight stopped being finite at epoch 1, step \d of 5, with learning") as e:
        _run(model, train_set, None, recipe=recipe, out=tmp_path)
    assert isinstance(e.value.__cause__, ModelError)


def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet, make_images: Callable[..., ImageSet]
) -> None:
    with pytest.raises(SpecError, match="must not exceed the training samples, got 128 x 1 for 50"):
        _run(make_net(), train_set, None, recipe=Recipe(epochs=1, lr=0.1))
    test = make_images(20, "test", 3)
    with pytest.raises(SpecError, match=r"train_set must not be the test split \(quadrants\)"):
        _run(make_net(), test, None)
    with pytest.raises(SpecError, match="valid_set must not be the test split"):
        _run(make_net(), train_set, test)
    for options in ({"checkpoint_every": 3}, {"checkpoint_every": 0, "out": tmp_path}):
        with pytest.raises(SpecError, match="checkpoint_every must be at least 1 and needs a folder out"):
            _run(make_net(), train_set, None, **options)
    with pytest.raises(SpecError, match="device must name a torch device, got 'gpu'"):
        train(make_net(), train_set, None, RECIPE, device="gpu", progress=False)
    with pytest.raises(ModelError, match="the model gives 2 logits but the labels reach 3"):
        _run(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), train_set, None)
    with pytest.raises(ModelError, match="'tet' needs logits of every step"):
        _run(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), train_set, None, recipe=_change(loss="tet"))


def test_event_recordings_train_too() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, count = torch.arange(24) % 2, 40
    x, y = (torch.randint(0, 4, (24 * count,), generator=generator, dtype=torch.uint8) for _ in range(2))
    x += 4 * labels.repeat_interleave(count).to(torch.uint8)
    t = torch.arange(count, dtype=torch.int32).repeat(24) * 100
    events = Events(x, y, x % 2, t)
    data = EventSet("halves", "train", events, torch.arange(25) * count, labels, ("left", "right"), 4, 8, 4, 1000)
    net = nn.Sequential(nn.Flatten(2), nn.Linear(2 * 4 * 8, 2))
    recipe = Recipe(epochs=5, lr=0.1, batch_size=8, loss="tet")
    assert _run(net, data, data, recipe=recipe).final.valid_accuracy == 1.0
    with pytest.raises(SpecError, match=r"pad, flip and cutout are for an isofire\.data\.ImageSet, halves holds"):
        _run(net, data, None, recipe=Recipe(epochs=1, lr=0.1, batch_size=8, flip=True))


def _quantized(net: nn.Module, quantizer: Quantizer) -> nn.Module:
    quantizer.calibrate(net.conv.weight)
    with torch.no_grad():
        parametrize.register_parametrization(net.conv, "weight", quantizer)
    return net


def test_quantizer_rate_zero_freezes_quantizers_only(make_net: MakeNet, train_set: ImageSet) -> None:
    steps, weights = [], []
    for rate in (0.0, 1.0):
        net = _quantized(make_net(), LSQ(3))
        before = net.conv.parametrizations.weight.original.clone()
        steps.append(net.conv.parametrizations.weight[0].step.item())
        _run(net, train_set, None, recipe=_change(quantizer_lr=rate))
        steps.append(net.conv.parametrizations.weight[0].step.item())
        weights.append(torch.equal(before, net.conv.parametrizations.weight.original))
    assert steps[0] == steps[1] == steps[2] != steps[3]
    assert weights == [False, False]


@pytest.mark.parametrize("make", [lambda: LSQ(3), lambda: LQNet(2, channels=6)], ids=["lsq", "lqnet"])
def test_quantizers_travel_with_the_checkpoint(
    tmp_path: Path, make_net: MakeNet, train_set: ImageSet, make: Callable[[], Quantizer]
) -> None:
    whole, cut, resumed = (_quantized(make_net(), make()) for _ in range(3))
    _run(whole, train_set, None)
    with pytest.raises(Stop):
        _run(cut, train_set, None, out=tmp_path, on_epoch=_stop_at(2))
    _run(resumed, train_set, None, out=tmp_path)
    assert _same(whole, resumed)
    assert any("parametrizations.weight.0" in name for name in whole.state_dict())
