"""What an operation does is asked of the operation, not of the values at hand: other images have others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing.cost import SynapseCost, measure_cost
from isofire.neurons import IF, LIF

T, N, INPUTS, OUTPUTS = 4, 6, 12, 8
IMAGES = torch.rand(N, INPUTS, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 3


class Encoding(nn.Module):
    def __init__(self, encode: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encode, self.first, self.fire, self.last = encode, nn.Linear(INPUTS, OUTPUTS), LIF(), nn.Linear(OUTPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fire(self.first(self.encode(x.expand(T, -1, -1)))))


def at(model: nn.Module, place: str, images: Tensor = IMAGES, **options: int) -> SynapseCost:
    found = measure_cost(model.eval(), (images, torch.arange(len(images)) % 3), **options)
    return next(item for item in found.synapses if item.name == place)


BRIGHT = IMAGES.numpy() > 0.5
OF_BOTH_SIGNS = {
    "half of it": (lambda s: (s + 1) / 2, BRIGHT), "halved first": (lambda s: 0.5 * s + 0.5, BRIGHT),
    "halved last": (lambda s: 0.5 * (1 + s), BRIGHT), "by division": (lambda s: (s + 1).div(2), BRIGHT),
    "in place": (lambda s: s.clone().add_(1).mul_(0.5), BRIGHT), "the dark": (lambda s: (1 - s) / 2, ~BRIGHT),
    "the dark, below": (lambda s: (s - 1) / -2, ~BRIGHT), "of another height": (lambda s: 0.3 * s + 0.3, BRIGHT),
    "in halves": (lambda s: s.mul(0.25).mul(2).add(0.5), BRIGHT), "of height 2": (lambda s: s + 1, 2 * BRIGHT),
    "an offset for a bias": (lambda s: s + 0.3, np.ones_like(BRIGHT)), "both": (lambda s: 2 * s, np.ones_like(BRIGHT)),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_BOTH_SIGNS)
@pytest.mark.parametrize("sign", [torch.sign, lambda x: torch.where(x > 0, 1.0, -1.0)], ids=["sign", "where"])
def test_a_sign_raised_to_zero_and_one_is_an_event_where_it_is_one(name: str, sign: Callable[[Tensor], Tensor]) -> None:
    change, events = OF_BOTH_SIGNS[name]
    first = at(Encoding(lambda x: change(sign(x - 0.5))), "first")
    assert first.event_driven
    assert first.synops.mean == pytest.approx(events.sum() / N * T * OUTPUTS)
    assert first.through


def test_half_a_spike_is_what_a_sign_of_zero_becomes_and_multiplies() -> None:
    images = IMAGES.clone()
    images[:2, 0] = 0.5
    first = at(Encoding(lambda x: (torch.sign(x - 0.5) + 1) / 2), "first", images)
    assert first.synops.mean == pytest.approx(float((images > 0.5).sum()) / N * T * OUTPUTS)
    assert first.macs_every_step == pytest.approx(2 / N * T * OUTPUTS)


ROUNDED = {
    "round": lambda v: v.round().clamp(0, 2), "floor": lambda v: v.floor().clamp(0, 2),
    "relu": lambda v: F.relu(v.ceil()), "integers": lambda v: v.floor().int().float().clamp(min=0),
    "negated": lambda v: (-(-v).round()).clamp(0, 2), "stacked": lambda v: torch.stack([v.round()] * 2).amax(0).relu(),
    "raised": lambda v: (v.round() + 1).clamp(0, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUNDED)
def test_what_is_rounded_below_minus_one_is_levels_once_it_is_cut(name: str) -> None:
    images = IMAGES * 7 - 4
    levels = ROUNDED[name](images)
    assert levels.max() > 1
    first = at(Encoding(ROUNDED[name]), "first", images)
    assert first.event_driven
    assert first.synops.mean == pytest.approx(float(levels.sum()) / N * T * OUTPUTS)


@pytest.mark.parametrize("encode", [
    lambda v: v.round(), lambda v: v.round().clamp(0, 1.5), lambda v: (v.round() * 0.5).clamp(0, 2),
], ids=["below", "cut at no level", "scaled"])  # fmt: skip
def test_what_is_rounded_to_no_events_multiplies(encode: Callable[[Tensor], Tensor]) -> None:
    first = at(Encoding(encode), "first", IMAGES * 7 - 4)
    assert (first.event_driven, first.macs_every_step) == (False, T * INPUTS * OUTPUTS)


class Beside(nn.Module):
    """Spikes, and a map made of them, before the same weights."""

    def __init__(self, blur: Callable[[Tensor], Tensor], alone: bool) -> None:
        super().__init__()
        self.blur, self.alone, self.fire = blur, alone, IF()
        self.last = nn.Conv2d(2 if alone else 4, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(1.1 * x.expand(T, -1, 2, -1, -1)).flatten(0, 1)
        self.spikes = float(spikes.sum())
        made = self.blur(spikes)
        seen = made if self.alone else torch.cat([spikes, made], 1)
        return self.last(seen).unflatten(0, (T, -1)).mean((3, 4))


def turned(x: Tensor) -> Tensor:
    grid = F.affine_grid(torch.tensor([[[0.8, 0.3, 0.1], [-0.3, 0.8, 0]]]).expand(len(x), -1, -1), list(x.shape), False)
    return F.grid_sample(x, grid, align_corners=False)


BLURRED = {
    "bilinear": lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x[..., ::2, ::2], scale_factor=2, mode="bicubic"), "turned": turned,
    "root": lambda x: (x + 0.5 * x.roll(1, -1)).sqrt(), "squashed": lambda x: torch.tanh(x),
    "of averages": lambda x: F.interpolate(F.avg_pool2d(x, 2) ** 2, scale_factor=2),
    "difference": lambda x: F.relu(x - 0.3 * x.roll(1, -1)),
}  # fmt: skip
FULL, SILENT, CORNER = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
CORNER[0, 0, 0, 0] = 1


@pytest.mark.parametrize("alone", [False, True], ids=["beside spikes", "alone"])
@pytest.mark.parametrize("name", BLURRED)
def test_real_maps_that_are_whole_numbers_by_chance_multiply(name: str, alone: bool) -> None:
    torch.manual_seed(0)
    for images in (FULL, CORNER, torch.cat([FULL, CORNER, SILENT]), torch.cat([SILENT, FULL])):
        model = Beside(BLURRED[name], alone).eval()
        last = at(model, "last", images)
        with torch.no_grad():
            model(images)
        assert last.synops.mean == (0 if alone else pytest.approx(model.spikes * 3 / len(images)))
        assert last.macs_once == T * 2 * 16 * 3


class Inhibited(nn.Module):
    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join, self.one, self.other = join, nn.Linear(INPUTS, 8), nn.Linear(INPUTS, 8)
        self.fire, self.inhibit, self.mid, self.last = LIF(), LIF(), nn.Linear(8, 6), nn.Linear(6, 3)
        with torch.no_grad():
            for layer in (self.one, self.other):
                layer.weight.mul_(6)

    def joined(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = (fire(layer(x).expand(T, -1, -1)) for fire, layer in ((self.fire, self.one), (self.inhibit, self.other)))
        return a + b, self.join(a, b)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mid(self.joined(x)[1]))


@pytest.mark.parametrize("join", [
    lambda a, b: F.relu(a - b), lambda a, b: (a - b).clamp(min=0), lambda a, b: (a + b).clamp(max=1),
    lambda a, b: torch.maximum(a - b, torch.zeros(())), lambda a, b: a * b, lambda a, b: torch.fmod(a + b, 2),
], ids=["relu", "clamp", "or", "maximum", "and", "exclusive or"])  # fmt: skip
def test_what_other_images_would_have_clipped_counts_by_value(join: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(4)
    model = Inhibited(join).eval()
    with torch.no_grad():
        by_image = [float(model.joined(image)[1].sum()) * 6 for image in IMAGES.split(1)]
    for image, right in zip(IMAGES.split(1), by_image, strict=True):
        mid = at(model, "mid", image)
        assert (mid.synops.mean, mid.event_driven, bool(mid.through)) == (right, True, True)
    assert at(model, "mid").synops.mean == pytest.approx(np.mean(by_image))


@pytest.mark.parametrize("join", [
    lambda a, b: F.relu(a + 0.3 * b), lambda a, b: (a - b).clamp(-1, 1), lambda a, b: (a + b).clamp(max=2),
    lambda a, b: F.leaky_relu(0.5 * a + b + 0.1),
], ids=["relu", "clamp", "of two", "leaky"])  # fmt: skip
def test_what_clips_no_image_passes_spikes_on(join: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(4)
    model = Inhibited(join).eval()
    mid = at(model, "mid")
    assert mid.synops.mean == pytest.approx(float(model.joined(IMAGES)[0].detach().sum()) / N * 6)
    assert mid.through == ()


def test_a_difference_of_scaled_spikes_is_real_once_it_may_be_clipped() -> None:
    torch.manual_seed(4)
    model = Inhibited(lambda a, b: F.relu(a - 0.3 * b)).eval()
    for image in IMAGES.split(1):
        assert (at(model, "mid", image).synops.mean, at(model, "mid", image).macs_once) == (0, T * 8 * 6)


def test_a_relu_leaves_spikes_beside_normalized_pixels_spikes() -> None:
    class Mixed(Encoding):
        def forward(self, x: Tensor) -> Tensor:
            still = x.expand(T, -1, -1)
            spikes = self.fire(self.first(4 * still))
            self.spikes = float(spikes.sum())
            return self.mixed(F.relu(torch.cat([spikes, still - 0.5], -1)))

    torch.manual_seed(0)
    model = Mixed(lambda x: x)
    model.mixed = nn.Linear(OUTPUTS + INPUTS, 3)
    model.last = nn.Identity()
    mixed = at(model, "mixed")
    with torch.no_grad():
        model(IMAGES)
    assert mixed.synops.mean == pytest.approx(model.spikes / N * 3)
    assert mixed.macs_every_step == T * INPUTS * 3
