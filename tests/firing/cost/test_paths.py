"""What a spike causes, found by brute force: one spike at a time is put in, and every non-zero contact is counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing import compare
from isofire.firing.cost import measure_cost, reach, reach_on
from isofire.neurons import IF, PerStep, Repeat

LABELS = torch.zeros(5, dtype=torch.int64)


class OwnLinear(nn.Module):
    """A linear class of one's own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class WrittenOut(OwnLinear):
    """The same by elements, without any matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) * self.weight).sum(-1)


class Einsum(OwnLinear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ni,oi->no", x, self.weight)


class FromTheLeft(OwnLinear):
    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.T).T


class Standardised(nn.Conv2d):
    """Weights that are made anew in every forward."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def written_into(x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 2, *x.shape[1:])
    out[:, 0] = x
    out[:, 1, 0] = x[:, 1]
    return out.flatten(1, 2)


def scattered(x: Tensor) -> Tensor:
    """Two channels added up into one by places, and both beside it."""
    index = torch.zeros(len(x), 2, *x.shape[2:], dtype=torch.int64)
    out = torch.zeros(len(x), 3, *x.shape[2:]).scatter_add(1, index, x)
    out[:, torch.tensor([2, 1])] = x
    return out


def numbered(x: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    out = torch.zeros(len(x), 2, 6, 6)
    return out.index_put_((torch.arange(len(x))[:, None, None, None], torch.arange(2)[:, None, None], columns, rows), x,
                          accumulate=True)  # fmt: skip


BETWEEN = {
    "average pool": (nn.AvgPool2d(2), 2, 3),
    "average pool with a border": (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), 2, 4),
    "average pool without its border": (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), 2, 3),
    "sum pool": (nn.LPPool2d(1, 2), 2, 3),
    "sum pool by hand": (Lambda(lambda x: F.avg_pool2d(x, 2) * 4), 2, 3),
    "uneven windows": (nn.AdaptiveAvgPool2d(4), 2, 4),
    "mean": (Lambda(lambda x: x.mean((2, 3), keepdim=True)), 2, 1),
    "borders": (nn.Sequential(nn.ReflectionPad2d(1), nn.ZeroPad2d(1)), 2, 10),
    "wrapped": (nn.CircularPad2d(1), 2, 8),
    "moved": (Lambda(lambda x: torch.cat([x.flip(2), x.roll(1, 3)], 1)[:, 1:]), 3, 6),
    "chosen": (Lambda(lambda x: x[:, torch.tensor([1, 1, 0])]), 3, 6),
    "upsampled": (nn.Upsample(scale_factor=2), 2, 12),
    "masked": (Lambda(lambda x: x * (torch.arange(6) % 2)), 2, 6),
    "scaled and shifted": (Lambda(lambda x: 0.5 * x + 0.25), 2, 6),
    "in place": (Lambda(lambda x: x.clone().mul_(0.25).add_(1).relu_()), 2, 6),
    "written into": (Lambda(written_into), 4, 6),
    "written by places": (Lambda(scattered), 3, 6),
    "transposed by places": (Lambda(numbered), 2, 6),
    "added by places": (Lambda(lambda x: torch.ones(len(x), 3, 6, 6).index_add(1, torch.tensor([2, 2]), x)), 3, 6),
    "a part of another": (Lambda(lambda x: torch.slice_scatter(torch.zeros_like(x), x[:, :, 2:], 2, 1, 5)), 2, 6),
    "copies of parts": (Lambda(lambda x: torch.stack([x[:, 1].clone(), x[:, 0].double().float()], 1)), 2, 6),
    "copies of images": (Lambda(lambda x: torch.stack([image.clone() for image in x])), 2, 6),
    "shuffled": (nn.PixelUnshuffle(2), 8, 3),
    "norm": (nn.BatchNorm2d(2).eval(), 2, 6),
    "a path and another": (Lambda(lambda x: x + x.flip(3)), 2, 6),
}


def contacts(between: nn.Module, layer: nn.Module, ones: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Synapses that one spike of each neuron comes to, by putting each spike in alone."""
    found = torch.zeros(shape)
    size = torch.zeros(1, *shape)
    rest = between(size)
    for place in itertools.product(*map(range, shape)):
        one = size.clone()
        one[(0, *place)] = 1
        for element in (between(one) - rest).abs().gt(1e-7).flatten().nonzero().flatten():
            alone = torch.zeros(rest.numel())
            alone[element] = 1
            found[place] += ones(alone.view(rest.shape)).count_nonzero()
    return found


def all_ones(layer: nn.Module) -> nn.Module:
    """The layer with weights of 1, in float64."""
    copy = type(layer)(*layer.made)  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.fill_(float(parameter.ndim > 1))
    return copy


@pytest.mark.parametrize("name", BETWEEN)
def test_events_go_through_whatever_is_linear(name: str) -> None:
    torch.manual_seed(0)
    between, channels, size = BETWEEN[name]
    layer, ones = (nn.Conv2d(channels, 3, 2, padding=1) for _ in range(2))
    with torch.no_grad():
        ones.weight.fill_(1)
        ones.bias.zero_()  # type: ignore[union-attr]
        expected = contacts(between, layer, ones, (2, 6, 6))
    model = nn.Sequential(
        Repeat(3), PerStep(nn.Conv2d(1, 2, 3, padding=1)), IF(v_threshold=0.3), PerStep(between, layer), IF(),
        PerStep(nn.Flatten(), nn.Linear(3 * (size + 1) ** 2, 3)),
    ).eval()  # fmt: skip
    images = torch.rand(5, 1, 6, 6) * 3
    found = reach(model, images[:2])
    assert found.left_out == ()
    assert torch.equal(found["2"].view(2, 6, 6).float(), expected)
    spikes = []
    model[2].register_forward_hook(lambda _m, _i, out: spikes.append(out))
    cost = measure_cost(model, (images, LABELS))
    with torch.no_grad():
        spikes.clear()
        model(images)
    measured = next(item for item in cost.synapses if item.name == "3.1")
    by_image = (spikes[0].sum(0) * expected).flatten(1).sum(1)
    assert measured.event_driven
    assert measured.macs_once == 0
    assert by_image.min() > 0
    assert measured.synops.mean == pytest.approx(float(by_image.mean()))
    assert measured.synops.max == float(by_image.max())


def spiking(layer: nn.Module, first: nn.Module, rest: nn.Module) -> nn.Sequential:
    return nn.Sequential(Repeat(4), PerStep(first), IF(v_threshold=0.3), PerStep(layer), IF(), PerStep(rest)).eval()


@pytest.mark.parametrize(("layer", "fan"), [
    (OwnLinear(8, 7), 7), (WrittenOut(8, 7), 7), (Einsum(8, 7), 7), (FromTheLeft(8, 7), 7), (nn.Linear(8, 7), 7),
    (nn.Sequential(nn.Unflatten(1, (8, 1)), nn.ConvTranspose1d(8, 7, 1), nn.Flatten()), 7),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_layers_that_are_no_modules_of_torch(layer: nn.Module, fan: int) -> None:
    torch.manual_seed(0)
    model = spiking(layer, nn.Linear(6, 8), nn.Linear(7, 3))
    images = torch.rand(5, 6) * 3
    cost = measure_cost(model, (images, LABELS))
    spikes = next(item.spikes for item in cost.neurons if item.name == "2")
    place = next(item for item in cost.synapses if item.name.startswith("3.0"))
    assert spikes.mean > 0
    assert place.synops.mean == pytest.approx(spikes.mean * fan)
    assert place.synops.max == spikes.max * fan
    assert torch.equal(reach(model, images[:2])["2"], torch.full((8,), float(fan), dtype=torch.float64))
    assert cost.memory.weights[place.name].weights == 8 * fan
    assert cost.left_out == ()


def test_transposed_convolution_by_hand() -> None:
    """Kernel 2, stride 2: every input comes to 2 x 2 places of 4 channels."""
    torch.manual_seed(0)
    model = spiking(nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(1, 8, 3, padding=1),
                    nn.Sequential(nn.Flatten(), nn.Linear(4 * 256, 3)))  # fmt: skip
    cost = measure_cost(model, (torch.rand(5, 1, 8, 8) * 4, LABELS))
    place = next(item for item in cost.synapses if item.name == "3.0")
    assert place.synops.mean == pytest.approx(16 * cost.neurons[0].spikes.mean)


def test_weights_made_anew_in_every_forward() -> None:
    torch.manual_seed(0)
    layer = Standardised(3, 4, 3)
    model = spiking(layer, nn.Conv2d(1, 3, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    plain = spiking(nn.Conv2d(3, 4, 3), nn.Conv2d(1, 3, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    plain.load_state_dict(model.state_dict())
    images = torch.rand(5, 1, 6, 6) * 4
    for found in (measure_cost(model, (images, LABELS)), measure_cost(plain, (images, LABELS))):
        assert [item.name for item in found.synapses] == ["1.0", "3.0", "5.0.1"]
    expected = next(item for item in measure_cost(plain, (images, LABELS)).synapses if item.name == "3.0").synops
    assert (
        next(item for item in measure_cost(model, (images, LABELS)).synapses if item.name == "3.0").synops == expected
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.att = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.att(x, x, x, need_weights=False)[0]


def test_attention_by_hand() -> None:
    """5 tokens of 8: spikes meet 24 weights each; 2 heads of 4 x 5 x 5 products, twice; then 5 x 8 x 8."""
    torch.manual_seed(0)
    model = spiking(Attention(), nn.Linear(6, 8), nn.Sequential(nn.Flatten(), nn.Linear(40, 3)))
    cost = measure_cost(model, (torch.rand(5, 5, 6) * 4, LABELS), batch_size=3)
    found = {item.name: item for item in cost.synapses}
    spikes = next(item.spikes for item in cost.neurons if item.name == "2")
    assert spikes.mean > 0
    assert spikes.p50 != spikes.max
    assert found["3.0.att.in_proj_weight"].synops.mean == pytest.approx(24 * spikes.mean)
    assert found["3.0.att.in_proj_weight"].synops.max == 24 * spikes.max
    assert found["3.0.att (activations)"].macs_once == 4 * 2 * (2 * 4 * 5 * 5)
    assert found["3.0.att.out_proj"].macs_once == 4 * 5 * 8 * 8
    parameters = sum(item.numel() for item in model.parameters())
    assert cost.memory.weight_bits == 32 * parameters


@pytest.mark.parametrize("cell", ["lstm", "gru", "by hand"])
def test_recurrent_weights(cell: str) -> None:
    """Input weights see spikes, those of the state multiply: gates x 5 x 8 an event, gates x 5 x 5 a step."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.back = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5, 5))

        def forward(self, x: Tensor) -> Tensor:
            state, states = torch.zeros(x.shape[1], 5), []
            for step in x:
                state = torch.tanh(step @ self.into.T + state @ self.back.T)
                states.append(state)
            return torch.stack(states)

    class Only(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            out = self.layer(x)
            return out[0] if isinstance(out, tuple) else out

    torch.manual_seed(0)
    layer, gates = {"lstm": (nn.LSTM(8, 5), 4), "gru": (nn.GRU(8, 5), 3), "by hand": (Own(), 1)}[cell]
    model = nn.Sequential(
        Repeat(4), PerStep(nn.Linear(6, 8)), IF(v_threshold=0.3), Only(layer), PerStep(nn.Linear(5, 3))
    )
    cost = measure_cost(model.eval(), (torch.rand(5, 6) * 3, LABELS))
    found = list(cost.synapses)
    spikes = cost.neurons[0].spikes
    assert spikes.mean > 0
    by_name = {item.name.rpartition(".")[2]: item for item in found}
    names = ("into", "back") if cell == "by hand" else ("weight_ih_l0", "weight_hh_l0")
    assert by_name[names[0]].synops.mean == pytest.approx(gates * 5 * spikes.mean)
    assert by_name[names[1]].macs_once == 4 * gates * 5 * 5
    stored = {name.rpartition(".")[2]: item.weights for name, item in cost.memory.weights.items()}
    assert stored[names[0]] == gates * 40
    assert stored[names[1]] == gates * 25
    assert reach(model, torch.rand(2, 6))["2"].tolist() == [gates * 5.0] * 8


class Twice(nn.Module):
    def __init__(self, loop: bool) -> None:
        super().__init__()
        self.enc, self.n0, self.n1, self.out = nn.Linear(6, 8), IF(), IF(), nn.Linear(8, 3)
        self.loop = loop

    def forward(self, x: Tensor) -> Tensor:
        if self.loop:
            u, v = (torch.stack([self.enc(part) for _ in range(4)]) for part in (x, 1 - x))
        else:
            x = x.unsqueeze(0).expand(4, *x.shape)
            u, v = self.enc(x), self.enc(1 - x)
        return self.out(self.n0(u) + self.n1(v))


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("batch_size", [16, 4, 1])
def test_a_layer_used_twice(loop: bool, batch_size: int) -> None:
    torch.manual_seed(0)
    cost = measure_cost(
        Twice(loop), (torch.rand(16, 6) * 0.9, torch.zeros(16, dtype=torch.int64)), batch_size=batch_size
    )
    layer = cost.synapses[0]
    assert (layer.macs_once, layer.macs_every_step) == (2 * 48, 2 * 4 * 48)
    assert layer.density <= 1
    assert layer.effective <= 1
    assert cost.memory.weights["enc"].weights == 48


class TwoSizes(nn.Module):
    """One head on two maps, and one image set of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.repeat, self.stem, self.fire = Repeat(3), nn.Conv2d(1, 2, 3, padding=1), IF(v_threshold=0.3)
        self.pool, self.head = PerStep(nn.MaxPool2d(2)), PerStep(nn.Conv2d(2, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(self.repeat(self.stem(x)))
        return self.head(spikes).mean((3, 4)) + self.head(self.pool(spikes)).mean((3, 4))


def test_maps_and_images_of_two_sizes() -> None:
    torch.manual_seed(0)
    model = TwoSizes().eval()
    batches = [(torch.rand(2, 1, 6, 6) * 3, LABELS[:2]), (torch.rand(3, 1, 8, 8) * 3, LABELS[:3])]
    cost = measure_cost(model, batches)
    ones = nn.Conv2d(2, 4, 3, padding=1, bias=False)
    expected = []
    with torch.no_grad():
        ones.weight.fill_(1)
        for images, _ in batches:
            spikes = model.fire(model.repeat(model.stem(images)))
            total = sum(
                ones(x.flatten(0, 1)).unflatten(0, x.shape[:2]).sum((0, 2, 3, 4)) for x in (spikes, model.pool(spikes))
            )
            expected += total.tolist()
    head = next(item for item in cost.synapses if item.name == "head.0")
    assert head.event_driven
    assert head.through == ("max_pool2d_with_indices",)
    assert head.synops.mean == pytest.approx(sum(expected) / 5)
    assert head.synops.max == pytest.approx(max(expected))


def test_what_is_not_linear_is_left_out_by_name() -> None:
    """Behind maximum pooling no spike has a cost of its own; beside it the rest is still exact."""
    torch.manual_seed(0)
    model = TwoSizes().eval()
    found = reach(model, torch.rand(2, 1, 6, 6))
    assert [item.name for item in found.left_out] == ["head.0"]
    assert "max_pool2d" in found.left_out[0].reason
    assert found.left_out[0].share == 1


class Unknown(nn.Module):
    """Multiplies with its weights in a way that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.weight.T)


def test_what_no_rule_knows_is_told() -> None:
    torch.manual_seed(0)
    model = spiking(Unknown(), nn.Linear(6, 8), nn.Linear(7, 3))
    cost = measure_cost(model, (torch.rand(5, 6) * 3, LABELS))
    (item,) = cost.left_out
    assert item.name == "3.0"
    assert item.share == pytest.approx(56 / (48 + 56 + 21))
    assert "3.0" in cost.table().splitlines()[-1]
    assert [entry["name"] for entry in cost.to_dict()["left_out"]] == ["3.0"]
    assert reach(model, torch.rand(2, 6)).left_out[-1].name == "3.0"


def test_layers_that_events_of_the_input_drive_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(PerStep(nn.Linear(6, 8)), IF(), PerStep(nn.Linear(8, 3))).eval()
    events = torch.randint(0, 2, (4, 30, 6)).float()
    found = reach(model, events[:, :2])
    assert found.left_out == ()
    (item,) = found.by_input
    assert item.name == "0.0"
    assert item.share == pytest.approx(48 / (48 + 24))
    compared = compare(model, model, (events, torch.zeros(30, dtype=torch.int64)))
    assert "NOT IN THESE SynOps: 0.0" in compared.table()
    assert compared.synops is not None
    row = compared.row()
    assert (row["synops"], row["synops_left_out"]) == (compared.synops.overall.quantized, None)
    assert row["synops_by_input"].startswith("0.0: driven by the input's events")
    cost = measure_cost(model, (events, torch.zeros(30, dtype=torch.int64)))
    assert cost.synops.mean == pytest.approx(compared.synops.overall.baseline + 8 * float(events.sum()) / 30)


@pytest.mark.parametrize("frames", [False, True])
def test_a_few_images_of_a_batch_are_enough(frames: bool) -> None:
    """Also where inputs are flat, [N, F], and their second axis is no axis of images."""
    torch.manual_seed(0)
    layers = PerStep(nn.Linear(6, 8)), IF(v_threshold=0.3), PerStep(nn.Linear(8, 3))
    model = nn.Sequential(*layers) if frames else nn.Sequential(Repeat(4), *layers)
    inputs = torch.rand(4, 9, 6) if frames else torch.rand(9, 6)
    found = reach_on(model.eval(), inputs)
    assert next(iter(found.values())).tolist() == [3.0] * 8


class ByMask(nn.Module):
    """The two most active neurons of each image go on."""

    def __init__(self, scatter: bool) -> None:
        super().__init__()
        self.first, self.fire, self.last, self.scatter = (
            nn.Linear(6, 12),
            IF(v_threshold=0.3),
            nn.Linear(12, 3),
            scatter,
        )
        self.kept = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(self.first(x).expand(4, -1, -1))
        rates = spikes.sum(0) + torch.arange(12) / 24
        best = rates.topk(2, 1)
        mask = torch.zeros_like(rates).scatter(1, best.indices, 1.0) if self.scatter else rates >= best.values[:, 1:]
        self.kept = spikes * mask if self.scatter else torch.where(mask, spikes, 0.0)
        return self.last(self.kept)


@pytest.mark.parametrize("scatter", [True, False])
def test_spikes_that_a_mask_of_the_image_lets_through(scatter: bool) -> None:
    torch.manual_seed(0)
    model, images = ByMask(scatter).eval(), torch.rand(5, 6) * 3
    with torch.no_grad():
        model(images)
    expected = float(model.kept.sum()) / 5 * 3
    assert expected > 0
    cost = measure_cost(model, (images, LABELS))
    assert cost.synops.mean == pytest.approx(expected)
    assert [item.name for item in reach(model, images[:2]).left_out] == ["last"]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_upsampling_lays_a_spike_over_several_places(mode: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fire, self.conv, self.spikes = IF(), nn.Conv2d(2, 3, 2), torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            self.spikes = self.fire(x.expand(4, -1, -1, -1, -1)).flatten(0, 1)
            larger = F.interpolate(self.spikes, size=(7, 5), mode=mode)
            return self.conv(larger).flatten(1).unflatten(0, (4, -1))

    torch.manual_seed(0)
    model, images = Net().eval(), torch.rand(5, 2, 3, 3)
    with torch.no_grad():
        model(images)
    spikes = model.spikes
    # which place of the small map each of the large one is taken from, by the definition of the two modes
    shift = 0.5 if mode == "nearest-exact" else 0.0
    rows, columns = ([int((place + shift) * 3 / size) for place in range(size)] for size in (7, 5))
    wanted = sum(
        float(spikes[:, :, rows[r + i], columns[c + j]].sum())
        for r, c, i, j in itertools.product(range(6), range(4), range(2), range(2))
    )
    cost = measure_cost(model, (images, LABELS))
    assert cost.left_out == ()
    assert cost.synapses[-1].synops.mean == pytest.approx(wanted * 3 / 5)
