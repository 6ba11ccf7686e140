from __future__ import annotations

import pytest
import torch
from torch import nn

import isofire
from isofire.errors import DataError, ModelError
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import reestimate_batch_norm


def _batches(n: int = 5, size: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 4, 4, generator=generator) * 2 + 1 for _ in range(n)]


def test_statistics_are_those_over_all_batches() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(99)
    batches = _batches()
    assert reestimate_batch_norm(norm, [(batch, torch.zeros(16)) for batch in batches]) == 1
    torch.testing.assert_close(norm.running_mean, torch.cat(batches).mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, torch.cat(batches).var((0, 2, 3)))


def test_a_later_layer_sees_the_batch_normalized_by_its_own_statistics() -> None:
    first, second = nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, affine=False)
    assert reestimate_batch_norm(nn.Sequential(first, second), _batches()) == 2
    torch.testing.assert_close(second.running_mean, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(second.running_var, torch.full((3,), 1280 / 1279), atol=1e-4, rtol=0)


def test_what_comes_before_a_layer_runs_in_eval_mode() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).train()
    reestimate_batch_norm(model, _batches())
    inputs = [model[1](batch) for batch in _batches()]
    torch.testing.assert_close(model[2].running_mean, torch.cat(inputs).mean((0, 2, 3)))
    torch.testing.assert_close(model[2].running_var, torch.cat(inputs).var((0, 2, 3)))


def test_only_batch_norm_trains_and_everything_is_put_back() -> None:
    modes = {}
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3))
    model.train()
    model[2].eval()
    for module in model:
        module.register_forward_hook(lambda m, *_: modes.__setitem__(m, (m.training, torch.is_grad_enabled())))
    reestimate_batch_norm(model, _batches())
    assert [modes[module] for module in model] == [(False, False), (True, False), (True, False)]
    assert [module.training for module in model] == [True, True, False]
    assert model.training
    assert [model[1].momentum, model[2].momentum] == [0.3, 0.1]
    assert model[1].num_batches_tracked == 5


def test_a_model_without_batch_norm_is_not_run() -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    model.register_forward_hook(fail)
    assert reestimate_batch_norm(model, [torch.zeros(1, 2)]) == 0


def test_no_batches_are_refused_and_the_statistics_kept() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(7)
    with pytest.raises(DataError, match="needs at least one batch to be measured on, got none"):
        reestimate_batch_norm(norm, [])
    assert norm.running_mean.tolist() == [7, 7, 7]


def test_a_failure_puts_statistics_momentum_and_modes_back() -> None:
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.fill_(7)
    with pytest.raises(ModelError, match="running_mean should contain 9 elements"):
        reestimate_batch_norm(norm, [*_batches(1), torch.zeros(2, 9, 4, 4)])
    assert norm.running_mean.tolist() == [7, 7, 7]
    assert (norm.momentum, norm.training, int(norm.num_batches_tracked)) == (0.1, False, 0)


class _Sometimes(nn.Module):
    """A norm that only some batches reach, or some rows of each."""

    def __init__(self, reached) -> None:
        super().__init__()
        self.bn, self.reached = nn.BatchNorm1d(3), reached

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.reached(x)
        out = x.clone()
        if bool(rows.any()):
            out[rows] = self.bn(x[rows])
        return out


@pytest.mark.parametrize(
    "reached",
    [
        lambda x: torch.full((len(x),), len(x) == 14),
        lambda x: torch.full((len(x),), len(x) != 30),
        lambda x: x[:, 0] > 0.3,
    ],
    ids=["the last batch alone", "the first and the last", "some rows"],
)
def test_a_norm_has_the_mean_of_what_reaches_it(reached) -> None:
    data = torch.randn(94, 3, generator=torch.Generator().manual_seed(5)) + torch.linspace(-2, 2, 94).unsqueeze(1)
    batches = [data[:50], data[50:80], data[80:]]
    model = _Sometimes(reached)
    reestimate_batch_norm(model, batches)
    seen = torch.cat([batch[reached(batch)] for batch in batches])
    torch.testing.assert_close(model.bn.running_mean, seen.mean(0))
    torch.testing.assert_close(model.bn.running_var, seen.var(0))


def test_a_norm_called_several_times_only_later_weighs_its_values_alike() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.bn(part) for part in x.split(10)])

    data = torch.randn(60, 2, generator=torch.Generator().manual_seed(6)) + torch.arange(60.0).unsqueeze(1)
    model = Steps()
    reestimate_batch_norm(model, [data[:10], data[10:]])
    torch.testing.assert_close(model.bn.running_mean, data.mean(0))
    torch.testing.assert_close(model.bn.running_var, data.var(0))


def test_sorted_data_give_the_same_in_any_cut() -> None:
    """Images of one class each batch, as folders give them: the classes' distance is part of the variance."""
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(7)) + torch.arange(64).unsqueeze(1) / 8
    for size in (2, 8, 63, 64):
        norm = nn.BatchNorm1d(3)
        reestimate_batch_norm(norm, data.split(size))
        torch.testing.assert_close(norm.running_var, data.var(0))


class _OwnNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, training=False)


def test_statistics_that_are_not_measured_anew_are_named(caplog: pytest.LogCaptureFixture) -> None:
    norm = _OwnNorm()
    model = nn.Sequential(nn.BatchNorm2d(3), norm).eval()
    assert reestimate_batch_norm(model, [torch.randn(8, 3, 4, 4) + 5]) == 1
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert "stay as they are: 1" in caplog.text


def _of_images(x: torch.Tensor) -> list[torch.Tensor]:
    """What an instance norm keeps: means over images of their means and unbiased variances."""
    rows = x.double().flatten(2)
    return [rows.mean(2).mean(0).float(), rows.var(2).mean(0).float()]


@pytest.mark.parametrize("sizes", [[40], [7, 30, 3], [1] * 4 + [36]])
def test_instance_norms_have_the_mean_of_their_images(sizes: list[int]) -> None:
    data = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(8)) * torch.rand(40, 3, 1, 1) + 5
    norm = nn.InstanceNorm2d(3, track_running_stats=True, momentum=0.3).eval()
    assert reestimate_batch_norm(norm, data.split(sizes)) == 1
    torch.testing.assert_close([norm.running_mean, norm.running_var], _of_images(data))
    assert (norm.momentum, norm.training) == (0.3, False)


@pytest.mark.parametrize("method", ["uniform", "gptq"])
def test_quantization_measures_instance_norms_anew(method: str) -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(6, track_running_stats=True)
    neurons = nn.Sequential(LIF(v_threshold=0.3), PerStep(nn.Flatten(), nn.Linear(54, 3)))
    model = nn.Sequential(nn.Conv2d(2, 6, 3), norm, Repeat(4), neurons).eval()
    images = torch.rand(64, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    spec = isofire.QuantSpec(weights={"method": method, "bits": 2}, first_layer="quantize")
    isofire.quantize_(model, spec, (images, torch.arange(64) % 3))
    with torch.no_grad():
        torch.testing.assert_close([norm.running_mean, norm.running_var], _of_images(model[0](images)))


class _Deep(nn.Module):
    """Norms behind one another, each in front of neurons; one for all where it is shared."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = [nn.BatchNorm1d(16) for _ in range(3)]
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.norms = nn.ModuleList(norms[:1] * 3 if shared else norms)
        self.neurons = nn.ModuleList(LIF(v_threshold=0.5, backend="torch") for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(0).repeat(4, 1, 1)
        for layer, norm, neuron in zip(self.layers, self.norms, self.neurons, strict=True):
            x = neuron(norm(layer(x).flatten(0, 1)).unflatten(0, (4, -1)))
        return x


def _given(model: _Deep, x: torch.Tensor) -> list[torch.Tensor]:
    """What each norm is given, float64 [C, n], where each normalises by what it is given; written out."""
    found, x = [], x.double().unsqueeze(0).repeat(4, 1, 1)
    for layer in model.layers:
        y = (x @ layer.weight.double().T + layer.bias.double()).flatten(0, 1)
        found.append(y.T)
        v, spikes = torch.zeros_like(x[0]), []
        for current in ((y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()).unflatten(0, (4, -1)):
            v = v + (current - v) / 2
            spikes.append((v >= 0.5).double())
            v = v * (v < 0.5)
        x = torch.stack(spikes)
    return found


@pytest.mark.parametrize("size", [96, 32])
@pytest.mark.parametrize("shared", [False, True])
def test_later_norms_see_what_earlier_ones_make_of_the_batch(size: int, shared: bool) -> None:
    x = torch.rand(96, 16, generator=torch.Generator().manual_seed(2)) * 2
    model = _Deep(shared=shared).eval()
    with torch.no_grad():
        assert reestimate_batch_norm(model, x.split(size)) == (1 if shared else 3)
        seen = [torch.cat(parts, 1) for parts in zip(*[_given(model, part) for part in x.split(size)], strict=True)]
        joint = _given(model, x)
    if shared:
        seen, joint = [torch.cat(seen, 1)], [torch.cat(joint, 1)]
    for norm, own, together in zip(model.norms, seen, joint, strict=False):
        torch.testing.assert_close(norm.running_mean.double(), own.mean(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var.double(), own.var(1), rtol=1e-3, atol=1e-4)
        if size == len(x):
            torch.testing.assert_close(norm.running_var.double(), together.var(1), rtol=1e-3, atol=1e-4)
    # the first has nothing before it
    if not shared:
        torch.testing.assert_close(model.norms[0].running_var.double(), joint[0].var(1), rtol=1e-5, atol=1e-7)


def test_cutting_many_images_into_batches_matters_less_than_which_images_they_are() -> None:
    x = torch.rand(2048, 16, generator=torch.Generator().manual_seed(2)) * 2
    model = _Deep(shared=False).eval()
    with torch.no_grad():
        first, other = ([rows.var(1) for rows in _given(model, part)] for part in x.split(1024))
        reestimate_batch_norm(model, x[:1024].split(128))
    for norm, joint, again in list(zip(model.norms, first, other, strict=True))[1:]:
        assert (norm.running_var / joint - 1).abs().median() < (again / joint - 1).abs().median()


@pytest.mark.parametrize(("images", "told"), [(1, "'1.1' (2 of 3)"), (2, None)])
def test_channels_that_no_longer_vary_are_told(images: int, told: str | None, caplog: pytest.LogCaptureFixture) -> None:
    layer, norm = nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)
    # the last channel has no variance before either
    norm.running_var.copy_(torch.tensor([1.0, 0.5, 0.0]))
    model = nn.Sequential(Repeat(4), PerStep(layer, norm))
    reestimate_batch_norm(model, [torch.rand(images, 3, generator=torch.Generator().manual_seed(0))])
    assert ("one value alone" in caplog.text) == bool(told)
    assert (told or "") in caplog.text
