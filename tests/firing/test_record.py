"""The recorder against brute force on networks whose spikes are their inputs, and on hand-computed neurons."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isofire.adapters import OverTime
from isofire.errors import DataError, ModelError, SpecError
from isofire.firing import FiringRecorder, SpikeCounts, compare, mean_firing_rate, spiking_layers
from isofire.firing.cost import measure_cost
from isofire.neurons import IF, LIF, Neuron, PerStep, Repeat

Spikes = Callable[..., Tensor]


def recorded(model: nn.Module, inputs: Tensor, batch_size: int, **settings: int) -> SpikeCounts:
    with FiringRecorder(model.eval(), **settings) as recorder:
        for batch in inputs.split(batch_size):
            model(batch)
    return recorder.counts


def test_counts_equal_brute_force(echo: type[nn.Module], spikes: Spikes) -> None:
    data = spikes(23, 2, 3, top=4)
    counts = recorded(echo(gain=2.0), data, batch_size=5, blocks=3, run=4)
    blocks = [image // 4 % 3 for image in range(23)]
    for layer, fired in (("first", data), ("block.1", 2 * data.flip(-1))):
        expected = torch.zeros(3, 2, 3, dtype=torch.int64)
        for image, block in enumerate(blocks):
            expected[block] += fired[image].sum(0).long()
        assert torch.equal(counts.counts[layer].long(), expected)
        assert torch.equal(counts.rates(layer), fired.double().mean((0, 1)).flatten())
    assert counts.layers == ("first", "block.1")
    assert counts.images_per_block.tolist() == [blocks.count(block) for block in range(3)]
    assert counts.steps == 3


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.integers(1, 40), batch=st.integers(1, 41), blocks=st.integers(1, 6), run=st.integers(1, 9))
def test_the_batch_size_does_not_matter(echo: type[nn.Module], images: int, batch: int, blocks: int, run: int) -> None:
    data = torch.randint(0, 2, (images, 2, 5)).float()
    once = recorded(echo(), data, images, blocks=blocks, run=run)
    split = recorded(echo(), data, batch, blocks=blocks, run=run)
    assert all(torch.equal(once.counts[layer], split.counts[layer]) for layer in once.layers)
    assert torch.equal(once.images_per_block, split.images_per_block)
    assert once.total("first") == int(data.sum())


def test_channels_last_spikes_are_stored_in_natural_order(given_neuron: type[nn.Module]) -> None:
    data = torch.randint(0, 2, (3, 5, 4, 6, 7)).float()
    strided = data.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    model = given_neuron()
    with FiringRecorder(model, blocks=2, run=2) as recorder:
        model(strided)
        model(data)
    both = torch.cat([data, data], 1)
    expected = torch.stack([both[:, [0, 1, 4, 5, 8, 9]].sum((0, 1)), both[:, [2, 3, 6, 7]].sum((0, 1))])
    counts = recorder.counts.counts["model"]
    assert counts.is_contiguous()
    assert torch.equal(counts, expected.int())


def test_three_neurons_by_hand() -> None:
    # tau 2, threshold 1, hard reset: input 2 gives V = 1 at once; 1.5 gives 0.75, then 1.125; 0.9 stays below 0.9
    model = LIF()
    current = torch.tensor([2.0, 1.5, 0.9]).expand(4, 6, 3)
    with FiringRecorder(model) as recorder:
        model(current)
    assert recorder.counts.rates("model").tolist() == [1.0, 0.5, 0.0]
    assert mean_firing_rate(recorder.counts) == 0.5


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("make", [IF, LIF])
def test_the_neurons_own_counts_are_those_of_their_spikes(
    make: Callable[..., Neuron], backend: str, channels_last: bool
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 6)
    nn.init.normal_(linear.weight)
    model = nn.Sequential(make(backend=backend), nn.Flatten(2), linear, make(backend=backend))
    currents = torch.rand(5, 11, 3, 4, 4) * 3
    if channels_last:
        currents = currents.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    outputs: list[Tensor] = []
    for index in (0, 3):
        model[index].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with FiringRecorder(model, blocks=2, run=3) as recorder, torch.no_grad():
        for batch in currents.split(4, dim=1):
            model(batch)
    ids = [image // 3 % 2 for image in range(11)]
    for layer, fired in (("0", torch.cat(outputs[::2], 1)), ("3", torch.cat(outputs[1::2], 1))):
        assert fired.sum() > 0
        for block in (0, 1):
            expected = fired[:, [image for image in range(11) if ids[image] == block]].sum((0, 1))
            assert torch.equal(recorder.counts.counts[layer][block], expected.int())


def test_only_passes_inside_the_context_count(echo: type[nn.Module], spikes: Spikes) -> None:
    model, data = echo().eval(), spikes(4, 3)
    model(data)
    recorder = FiringRecorder(model)
    model(data)
    with recorder:
        model(data)
    model(data)
    assert recorder.counts.n_images == 4
    before = recorder.counts
    with recorder:
        model(data)
    assert recorder.counts.n_images == 8
    assert recorder.counts.total() == 2 * before.total()
    assert before.n_images == 4


def test_hooks_are_gone_after_the_context(echo: type[nn.Module]) -> None:
    model = echo()
    with pytest.raises(ZeroDivisionError), FiringRecorder(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not model.first.counting


def test_recording_works_in_and_out_of_inference_mode(echo: type[nn.Module], spikes: Spikes) -> None:
    model, data = echo().eval(), spikes(4, 3)
    with FiringRecorder(model) as recorder:
        with torch.inference_mode():
            model(data)
        model(data)
        with torch.no_grad():
            model(data)
        loss = model(data).sum()
    loss.backward()
    assert recorder.counts.total("first") == 4 * int(data.sum())
    assert not recorder.counts.counts["first"].is_inference()


def test_a_choice_of_layers(echo: type[nn.Module], spikes: Spikes) -> None:
    model, data = echo().eval(), spikes(4, 3)
    with FiringRecorder(model, layers=["block.1"]) as recorder:
        model(data)
    assert recorder.counts.layers == ("block.1",)
    with pytest.raises(SpecError, match=r"got 'second'; it has first, block\.1"):
        FiringRecorder(model, layers=["block.1", "second"])
    with pytest.raises(SpecError, match="got none"):
        FiringRecorder(model, layers=[])


def test_a_model_without_spikes_is_refused() -> None:
    with pytest.raises(ModelError, match="got Linear without any"):
        FiringRecorder(nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"must be a torch\.nn\.Module, got str"):
        FiringRecorder("resnet")  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["blocks", "run"])
def test_settings_below_one_are_refused(echo: type[nn.Module], setting: str) -> None:
    with pytest.raises(SpecError, match=f"{setting} must be at least 1, got 0"):
        FiringRecorder(echo(), **{setting: 0})


def test_a_neuron_called_twice_is_refused(given_neuron: type[nn.Module]) -> None:
    neuron = given_neuron()
    model = nn.Sequential(neuron, nn.Identity(), neuron)
    assert list(spiking_layers(model)) == ["0"]
    with pytest.raises(ModelError, match="'0' was called more than once"), FiringRecorder(model):
        model(torch.ones(2, 1, 3))


def test_a_loop_around_neurons_that_see_all_steps_is_told() -> None:
    net = OverTime(nn.Sequential(Repeat(2), PerStep(nn.Linear(4, 3)), LIF()), 3)
    with pytest.raises(ModelError, match=r"'.*2' was called .* in one call: take isofire.adapters.OverTime away"):
        recorded(net, torch.rand(4, 4), 4)


def test_a_neuron_that_is_skipped_is_refused(echo: type[nn.Module], given_neuron: type[nn.Module]) -> None:
    model = echo()
    model.spare = given_neuron()
    with pytest.raises(ModelError, match="'spare' was not"), FiringRecorder(model):
        model(torch.ones(1, 2, 3))
    with FiringRecorder(model, layers=["first"]) as recorder:
        model(torch.ones(1, 2, 3))
    assert recorder.counts.total() == 6


def test_changing_shapes_are_refused(echo: type[nn.Module], spikes: Spikes) -> None:
    def second_batch(data: Tensor) -> None:
        model = echo()
        with FiringRecorder(model) as recorder:
            model(spikes(4, 3))
            model(data)
        recorder.counts  # noqa: B018

    second_batch(spikes(2, 3))
    with pytest.raises(ModelError, match=r"'first' must keep its shape \(3,\), got \(5,\)"):
        second_batch(spikes(4, 5))
    with pytest.raises(ModelError, match=r"T must stay 3 .* got T = 2"):
        second_batch(spikes(4, 3, steps=2))


def test_layers_that_disagree_on_images_are_refused(given_neuron: type[nn.Module]) -> None:
    class Halving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = given_neuron(), given_neuron()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)[:, ::2])

    model = Halving()
    with pytest.raises(ModelError, match=r"'a' saw N = 4 and 'b' N = 2 of a batch \[2, 4, 3\]"), FiringRecorder(model):
        model(torch.ones(2, 4, 3))


def test_layers_of_another_T_are_recorded_apart(given_neuron: type[nn.Module]) -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = given_neuron(), given_neuron()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)[::2])

    model = Pooling()
    with pytest.raises(ModelError, match=r"T = 2, N = 3 .*record the layers of one T"), FiringRecorder(model):
        model(torch.ones(4, 3, 5))
    for layer, steps in (("a", 4), ("b", 2)):
        with FiringRecorder(model, layers=layer) as recorder:
            model(torch.ones(4, 3, 5))
        assert recorder.counts.steps == steps


def test_outputs_without_time_and_batch_are_refused(given_neuron: type[nn.Module]) -> None:
    model = given_neuron()
    with pytest.raises(ModelError, match=r"spikes \[T, N, \.\.\.\], got \[2, 3\]"), FiringRecorder(model):
        model(torch.ones(2, 3))


def test_a_neuron_called_past_the_model_is_refused(echo: type[nn.Module]) -> None:
    model = echo()
    with pytest.raises(ModelError, match="'first' was called outside"), FiringRecorder(model):
        model.first(torch.ones(2, 1, 3))


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), float("inf"), 1.0000001])
def test_values_that_are_no_spikes_are_refused(echo: type[nn.Module], value: float) -> None:
    model = echo(gain=value).eval()
    with FiringRecorder(model) as recorder:
        model(torch.ones(1, 1, 3))
    told = rf"those of 'block\.1' do not: got {float(torch.tensor(value)):.9g}; "
    cure = r"hard \+ \(soft - soft\.detach\(\)\)" if value > 1 and value < 2 else "look for fractional or negative"
    cure = "let each sign be neurons of its own" if value == -1 else cure
    with pytest.raises(ModelError, match=told + ".*" + cure):
        recorder.counts  # noqa: B018
    with FiringRecorder(model) as recorder:
        model(torch.ones(1, 1, 3))
        with pytest.raises(ModelError, match=told):
            model(torch.ones(1, 1, 3))


def test_one_layer_may_be_named_alone(echo: type[nn.Module]) -> None:
    with FiringRecorder(model := echo(), layers="block.1") as recorder:
        model(torch.ones(1, 1, 3))
    assert recorder.counts.layers == ("block.1",)
    with pytest.raises(SpecError, match=r"got 'block'; it has .*block\.1"):
        FiringRecorder(model, layers="block")


def test_counts_of_a_broken_pass_are_refused(echo: type[nn.Module]) -> None:
    class Breaking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    model = echo()
    with FiringRecorder(model) as recorder:
        model(torch.ones(1, 1, 3))
        model.block[0] = Breaking()
        with pytest.raises(RuntimeError, match="out of memory"):
            model(torch.ones(1, 1, 3))
        with pytest.raises(ModelError, match="broke off"):
            model(torch.ones(1, 1, 3))
    with pytest.raises(ModelError, match="broke off"):
        recorder.counts  # noqa: B018


def test_nothing_recorded_and_nested_contexts_are_refused(echo: type[nn.Module]) -> None:
    with FiringRecorder(echo()) as recorder, pytest.raises(ModelError, match="already recording"), recorder:
        pass
    with pytest.raises(DataError, match="no image"):
        recorder.counts  # noqa: B018


def test_a_hook_that_changes_the_output_is_what_counts() -> None:
    neuron = LIF()
    handle = neuron.register_forward_hook(lambda _m, _i, output: 0 * output)
    with FiringRecorder(neuron) as recorder, torch.inference_mode():
        neuron(torch.full((4, 3, 5), 9.0))
    assert int(recorder.counts.total()) == 0
    handle.remove()
    with recorder, torch.inference_mode():
        neuron(torch.full((4, 3, 5), 9.0))
    assert int(recorder.counts.total()) == 60


@pytest.mark.parametrize(
    "measure", [lambda net, data: compare(net, net, data), lambda net, data: measure_cost(net, data)]
)
def test_batches_of_unlike_length_are_told_with_a_cure(measure: Callable[..., Any]) -> None:
    net = nn.Sequential(PerStep(nn.Linear(20, 16)), LIF(), PerStep(nn.Linear(16, 3))).eval()
    batches = [(torch.ones(steps, 4, 20), torch.arange(4) % 3) for steps in (4, 9)]
    with pytest.raises(
        ModelError, match=r"T must stay 4 .*got T = 9 \(neuron '1'\); pad or cut the recordings to one T"
    ):
        measure(net, batches)


def test_sparse_frames_are_told_how_they_become_dense() -> None:
    net = nn.Sequential(PerStep(nn.Linear(20, 3)), LIF()).eval()
    data = torch.ones(6, 8, 20).to_sparse(), torch.arange(8) % 3
    with pytest.raises(DataError, match=r"its inputs are torch.sparse_coo; give inputs.to_dense\(\)"):
        compare(net, net, data)


def test_a_last_batch_of_one_that_is_squeezed_is_told() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.layer, self.neuron, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 6), IF(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.layer(self.conv(x).amax((2, 3), keepdim=True).squeeze())
            return self.head(self.neuron(seen.expand(3, *seen.shape)))

    model, images = Squeezed().eval(), (torch.rand(5, 1, 6, 6), torch.arange(5) % 3)
    with pytest.raises(ModelError, match=r"got \[3, 6\] \(neuron 'neuron'\); an axis is missing, .* batch of one"):
        compare(model, model, images, batch_size=4)
    assert compare(model, model, images, batch_size=5).n_images == 5


class Patches(nn.Module):
    """Four parts of each image, in the batch or on an axis of their own."""

    def __init__(self, folded: bool) -> None:
        super().__init__()
        self.a, self.n, self.folded = nn.Linear(4, 6), LIF(), folded

    def forward(self, x: Tensor) -> Tensor:
        parts = self.a(nn.functional.unfold(x, 2, stride=2).transpose(1, 2))
        return self.n((parts.flatten(0, 1) if self.folded else parts).expand(3, *[-1] * (3 - self.folded)))


def test_parts_of_images_are_no_images() -> None:
    with FiringRecorder(Patches(folded=False)) as recorder:
        recorder._model(torch.rand(6, 1, 4, 4))
    assert (recorder.counts.n_images, recorder.counts.n_neurons()) == (6, 24)
    with (
        pytest.raises(
            ModelError, match=r"given \[6, 1, 4, 4\], its neurons saw N = 24 and T = 3; .* axis of their own"
        ),
        FiringRecorder(net := Patches(folded=True)),
    ):
        net(torch.rand(6, 1, 4, 4))


class Views(nn.Module):
    """Views of each image in the batch, [N, views, ...]."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.a, self.n, self.steps = nn.Linear(4, 6), LIF(), steps

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        spikes = self.n(self.a(x.flatten(0, 1)).expand(self.steps, -1, -1))
        return spikes.unflatten(1, x.shape[:2])


@pytest.mark.parametrize("images", [1, 2, 8])
@pytest.mark.parametrize("views", [3, 4])
@pytest.mark.parametrize("beside", [None, (0, 0), (1, 9), (16, 7)])
def test_views_of_images_are_no_images_whatever_the_batch(
    images: int, views: int, beside: tuple[int, int] | None
) -> None:
    # a mask, or a table of places, whose axes may be as long as anything
    shape = None if beside is None else (images, views) if beside == (0, 0) else beside
    given = (torch.rand(images, views, 4), *([] if shape is None else [torch.ones(shape)]))
    with pytest.raises(ModelError, match=f"its neurons saw N = {images * views} and T = 2"):  # noqa: SIM117
        with FiringRecorder(net := Views(2)):
            net(*given)


GIVEN = {
    "a list of images": (lambda xs: torch.stack(xs), [torch.rand(4) for _ in range(5)], 5),
    "graphs of several sizes": (lambda xs: torch.cat(xs), [torch.rand(3, 4), torch.rand(4, 4)], 7),
    "images last": (lambda x: x.permute(2, 0, 1).flatten(1), torch.rand(2, 2, 5), 5),
    "events": (
        lambda e: torch.zeros(5, 4).index_put((e[:, 0], e[:, 1]), torch.ones(len(e)), accumulate=True),
        torch.stack([torch.arange(40) % 5, torch.arange(40) % 4], 1), 5,
    ),
    "frames of which every other is seen": (lambda x: x[::2], torch.rand(6, 12, 4), 12),
    "one frame": (lambda x: x, torch.rand(1, 12, 4), 12),
}  # fmt: skip


@pytest.mark.parametrize("kind", GIVEN)
def test_images_are_counted_however_they_are_given(kind: str) -> None:
    made, given, images = GIVEN[kind]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = nn.Linear(4, 6), LIF()

        def forward(self, x: Any) -> Tensor:
            seen = made(x)
            return self.n(self.a(seen if seen.ndim == 3 else seen.expand(3, -1, -1)))

    with FiringRecorder(net := Net()) as recorder:
        net(given)
    assert recorder.counts.n_images == images


def test_two_inputs_may_become_one_batch() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = nn.Linear(4, 6), LIF()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.n(self.a(torch.cat([x, y])).expand(3, -1, -1))

    with FiringRecorder(net := Twins()) as recorder:
        net(torch.rand(5, 4), torch.rand(5, 4))
    assert recorder.counts.n_images == 10


@pytest.mark.parametrize("given", ["one", "by name", "time first", "rows", "tokens", "nothing", "beside"])
def test_as_many_images_as_the_model_is_given_in_any_way(given: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = nn.Linear(4, 6), LIF()

        def forward(self, x: Tensor | None = None, beside: Tensor | None = None) -> Tensor:
            if x is None:
                return self.n(torch.rand(3, 6, 6))
            x = x.float()
            x = x.unflatten(0, (3, -1)) if given == "rows" else x if x.ndim == 3 else x.expand(3, -1, -1)
            return self.n(self.a(x))

    images = {
        "one": ((torch.rand(1, 4),), {}), "by name": ((), {"x": torch.rand(6, 4)}),
        "time first": ((torch.rand(3, 6, 4),), {}), "rows": ((torch.rand(18, 4),), {}),
        "tokens": ((torch.randint(9, (6, 4)),), {}), "nothing": ((), {}),
        "beside": ((torch.rand(6, 4),), {"beside": torch.rand(2, 2)}),
    }  # fmt: skip
    net, (args, options) = Net(), images[given]
    with FiringRecorder(net) as recorder:
        net(*args, **options)
    assert recorder.counts.n_images == (1 if given == "one" else 6)


def test_copies_of_a_recorded_model_are_not_counted() -> None:
    model = nn.Sequential(Repeat(3), PerStep(nn.Linear(4, 5)), LIF())
    x = torch.rand(6, 4)
    with FiringRecorder(model) as recorder:
        model(x)
        copied = copy.deepcopy(model)
        copied(x)
    copied(x)
    kept = copy.deepcopy(recorder)
    assert recorder.counts.n_images == 6
    with recorder:
        model(x)
    assert (kept.counts.n_images, recorder.counts.n_images) == (6, 12)
