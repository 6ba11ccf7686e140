"""Spike-by-spike measures against brute force on single trains, and a comparison against spikes kept whole."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor, nn

from isofire.errors import DataError, ModelError, SpecError
from isofire.firing import compare
from isofire.firing.timing import (
    StreamedCKA,
    cka,
    compare_timing,
    first_spikes,
    joint_words,
    logit_kl,
    spike_words,
    total_variation,
    van_rossum,
    victor_purpura,
    word_counts,
)  # fmt: skip
from isofire.neurons import IF, LIF, PerStep, Repeat


def times(train: tuple[int, ...]) -> list[int]:
    return [t for t, spike in enumerate(train) if spike]


def by_alignment(a: tuple[int, ...], b: tuple[int, ...], q: float) -> float:
    """Victor-Purpura by trying every set of moved spikes, in order."""
    first, second = times(a), times(b)
    best = math.inf
    for k in range(min(len(first), len(second)) + 1):
        for x in itertools.combinations(first, k):
            for y in itertools.combinations(second, k):
                moved = sum(q * abs(s - t) for s, t in zip(x, y, strict=True))
                best = min(best, moved + len(first) + len(second) - 2 * k)
    return best


@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 1.0, 2.0, 5.0])
def test_victor_purpura_by_trying_every_alignment(q: float) -> None:
    every = list(itertools.product((0, 1), repeat=4))
    pairs = list(itertools.product(every, every))
    first, second = (torch.tensor([pair[i] for pair in pairs], dtype=torch.bool).T for i in (0, 1))
    expected = [by_alignment(a, b, q) for a, b in pairs]
    assert victor_purpura(first, second, q).tolist() == pytest.approx(expected)
    if q == 0:
        assert expected == [abs(sum(a) - sum(b)) for a, b in pairs]
    if q == 2:
        assert expected == [sum(x != y for x, y in zip(a, b, strict=True)) for a, b in pairs]


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_van_rossum_by_integration(tau: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 2, (2, 5))

        def gap(t: float, a: np.ndarray = a, b: np.ndarray = b) -> float:
            return sum((x - y) * math.exp(-(t - s) / tau) for s, (x, y) in enumerate(zip(a, b, strict=True)) if t >= s)

        square = sum(
            scipy.integrate.quad(lambda t: gap(t) ** 2, s, s + 1 if s < 5 else 60, limit=200)[0] for s in range(6)
        )
        found = float(van_rossum(torch.tensor(a), torch.tensor(b), tau))
        assert found == pytest.approx(math.sqrt(square / tau), abs=1e-6)
    one = torch.tensor([0, 1, 0])
    assert float(van_rossum(one, torch.zeros(3), tau)) ** 2 == pytest.approx(0.5)


def test_words_and_their_total_variation() -> None:
    spikes = torch.randint(0, 2, (3, 50, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    other = spikes.flip(0)
    words, late = spike_words(spikes), spike_words(other)
    counts = word_counts(words, 3)
    assert counts.shape == (8, 4)
    for neuron in range(4):
        trains = spikes.flatten(2)[:, :, neuron].T.int().tolist()
        expected = np.bincount([a + 2 * b + 4 * c for a, b, c in trains], minlength=8)
        assert counts[:, neuron].tolist() == expected.tolist()
    joint = joint_words(words, late, 3)
    assert joint.sum() == 200
    assert torch.equal(joint.sum(1), counts.sum(1))
    found = total_variation(counts, word_counts(late, 3))
    by_hand = [0.5 * np.abs(counts[:, i].numpy() - word_counts(late, 3)[:, i].numpy()).sum() / 50 for i in range(4)]
    assert found.tolist() == pytest.approx(by_hand)
    # time runs backwards: rates are what they were, words are not
    assert torch.equal(spikes.mean((0, 1)), other.mean((0, 1)))
    assert float(found.min()) > 0.05


def test_first_spikes() -> None:
    spikes = torch.tensor([[0, 1, 0], [1, 1, 0]])
    assert first_spikes(spikes).tolist() == [1, 0, 2]


def test_cka_against_its_definition_and_invariances() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, 6)))
    y = torch.from_numpy(rng.normal(size=(40, 9))) + x[:, :1]
    a, b = (z.numpy() - z.numpy().mean(0) for z in (x, y))
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert cka(x, y) == pytest.approx(expected)
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(6, 6)))[0])
    assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    assert math.isnan(cka(x, torch.ones(40, 2)))


def test_streamed_cka_does_not_depend_on_the_batches_but_for_noise() -> None:
    """Independent populations: the plain estimate is far from 0 at few images, the streamed one is not."""
    generator = torch.Generator().manual_seed(0)
    streamed, plain = StreamedCKA(), []
    for _ in range(100):
        x, y = torch.randn(8, 30, generator=generator), torch.randn(8, 30, generator=generator)
        streamed.add(x, y)
        plain.append(cka(x, y))
    assert np.mean(plain) > 0.7
    assert abs(streamed.value) < 0.05
    same, halves = StreamedCKA(), (StreamedCKA(), StreamedCKA())
    data = torch.randn(64, 10, generator=generator)
    for i, batch in enumerate(data.split(16)):
        same.add(batch, 2 * batch)
        halves[i % 2].add(batch, batch.flip(1) ** 2)
    assert same.value == pytest.approx(1)
    whole = StreamedCKA()
    for batch in data.split(16):
        whole.add(batch, batch.flip(1) ** 2)
    halves[0].merge(halves[1])
    assert halves[0].value == pytest.approx(whole.value)
    assert math.isnan(StreamedCKA().value)


def test_unbiased_hsic_by_brute_force() -> None:
    """Song et al.'s estimator as a sum over distinct images."""
    from isofire.firing.timing.similarity import _gram, _hsic

    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 3, generator=generator).double(), torch.randn(6, 2, generator=generator).double()
    first, second = x @ x.T, y @ y.T
    n = range(6)
    pairs = np.mean([float(first[i, j] * second[i, j]) for i, j in itertools.permutations(n, 2)])
    triples = np.mean([float(first[i, j] * second[i, m]) for i, j, m in itertools.permutations(n, 3)])
    quads = np.mean([float(first[i, j] * second[m, r]) for i, j, m, r in itertools.permutations(n, 4)])
    assert _hsic(_gram(x), _gram(y)) == pytest.approx(pairs - 2 * triples + quads)


def test_logit_kl_against_scipy() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    expected = scipy.stats.entropy(a.double().softmax(1).numpy(), b.double().softmax(1).numpy(), axis=1)
    assert logit_kl(a, b).tolist() == pytest.approx(expected)
    assert float(logit_kl(a, a + 3).max()) == pytest.approx(0, abs=1e-6)
    certain, open_ = torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)
    assert float(logit_kl(certain, open_)) == pytest.approx(math.log(2))
    assert float(logit_kl(open_, certain)) == math.inf


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            Repeat(4), PerStep(nn.Conv2d(1, 4, 3)), LIF(), PerStep(nn.Conv2d(4, 3, 3)), IF(),
            PerStep(nn.Flatten(), nn.Linear(12, 3)),
        )  # fmt: skip


@pytest.fixture
def pair() -> tuple[Net, Net]:
    torch.manual_seed(0)
    first = Net().eval()
    with torch.no_grad():
        first[1][0].weight *= 4
        first[3][0].weight *= 4
    second = copy.deepcopy(first)
    with torch.no_grad():
        second[1][0].weight += 0.2 * torch.randn_like(second[1][0].weight)
    return first, second


def test_a_comparison_by_spikes_kept_whole(pair: tuple[Net, Net]) -> None:
    images = torch.randn(21, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * 2
    data = images, torch.zeros(21, dtype=torch.int64)
    found = compare_timing(*pair, data, batch_size=8)
    kept: list[list[Tensor]] = [[], []]
    logits = []
    for model, place in zip(pair, kept, strict=True):
        handles = [model[i].register_forward_hook(lambda _m, _i, out, place=place: place.append(out)) for i in (2, 4)]
        with torch.no_grad():
            logits.append(model(images).mean(0))
        for handle in handles:
            handle.remove()
    assert (found.n_images, found.T, [item.layer for item in found.layers]) == (21, 4, ["2", "4"])
    assert found.logit_kl == pytest.approx(float(logit_kl(*logits).mean()))
    for item, a, b in zip(found.layers, *kept, strict=True):
        a, b = a.flatten(2), b.flatten(2)
        assert bool((a != b).any())
        assert item.neurons == a.shape[2]
        assert item.step_rates_fp == pytest.approx(a.mean((1, 2)).tolist())
        assert item.step_rates == pytest.approx(b.mean((1, 2)).tolist())
        assert item.flips_per_image == pytest.approx(float((a != b).sum()) / 21)
        assert item.flip_share == pytest.approx(float((a != b).sum() / (a.sum() + b.sum())))
        for q, value in item.victor_purpura.items():
            assert value == pytest.approx(float(victor_purpura(a.bool(), b.bool(), q).mean()))
        for tau, value in item.van_rossum.items():
            assert value == pytest.approx(float(van_rossum(a, b, tau).mean()))
        firsts = first_spikes(a).flatten().numpy(), first_spikes(b).flatten().numpy()
        assert item.first_spike_emd == pytest.approx(scipy.stats.wasserstein_distance(*firsts))
        assert item.first_spike_change == pytest.approx(np.abs(firsts[0] - firsts[1]).mean())
        words = [word_counts(spike_words(x), 4) for x in (a, b)]
        assert item.words_tv == pytest.approx(float(total_variation(*words).mean()))
        assert 0 <= item.words_tv_layer <= item.words_tv
        assert 0.3 < item.cka <= 1.1
    assert max(map(len, found.table().splitlines())) <= 100
    assert found.to_dict()["layers"][0]["cka"] == found.layers[0].cka


def test_equal_rates_with_other_timing_are_seen() -> None:
    """Spikes move from image to image and from step to step, and every rate, so every rate measure, stays."""

    class Shown(nn.Module):
        def __init__(self, shift: int) -> None:
            super().__init__()
            self.neuron, self.shift = IF(), shift

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron((x.roll(self.shift, 1) * 2).transpose(0, 1))

    inputs = (torch.rand(30, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    data = inputs, torch.zeros(30, dtype=torch.int64)
    rates = compare(Shown(0), Shown(1), data).overall
    assert rates["emd_max"] == rates["paired_mae"] == 0
    (layer,) = compare_timing(Shown(0), Shown(1), data).layers
    assert layer.flip_share > 0.5
    assert layer.words_tv > 0.1
    assert layer.first_spike_change > 0.3
    assert layer.victor_purpura[0.0] == 0 < layer.victor_purpura[0.5] < layer.victor_purpura[2.0]


def test_what_does_not_fit_is_refused(pair: tuple[Net, Net]) -> None:
    with pytest.raises(DataError, match="words need 1 to 10 steps, got 11"):
        spike_words(torch.zeros(11, 2))
    with pytest.raises(DataError, match="spikes 0 and 1"):
        spike_words(torch.full((2, 2), 2.0))
    with pytest.raises(SpecError, match="q must be"):
        victor_purpura(torch.zeros(2), torch.zeros(2), -1)
    with pytest.raises(SpecError, match="tau must be"):
        van_rossum(torch.zeros(2), torch.zeros(2), 0)
    for distance in (victor_purpura, van_rossum):
        with pytest.raises(DataError, match=r"alike, got \[3\] and \[2\]"):
            distance(torch.zeros(3), torch.zeros(2), 1)
    with pytest.raises(DataError, match="not defined for counts"):
        victor_purpura(torch.tensor([2.0, 0.0]), torch.zeros(2), 1)
    with pytest.raises(DataError, match=r"alike, got \[2, 3\] and \[2, 4\]"):
        logit_kl(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(DataError, match="images must be finite"):
        compare_timing(*pair, (torch.full((2, 1, 6, 6), math.nan), torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(DataError, match="the same 2 images or more, got 3 and 4"):
        cka(torch.ones(3, 1), torch.ones(4, 1))
    images = torch.randn(3, 1, 6, 6), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ModelError, match="same layers of neurons"):
        compare_timing(pair[0], nn.Sequential(*list(pair[1])[:3], PerStep(nn.Flatten(), nn.Linear(64, 3))), images)
