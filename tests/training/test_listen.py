"""Rates, spikes and membranes that losses get, against the recorder's counts and a step-by-step simulation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing import FiringRecorder
from isofire.models import sew_resnet8
from isofire.neurons import IF, LIF, Neuron, PerStep, Repeat, native
from isofire.quantization import calibrate_, prepare
from isofire.spec import QuantSpec
from isofire.training import listen
from isofire.training.listen import Listener
from isofire.training.silence import SilenceWatch

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(backend: str = "auto") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sew_resnet8(width=0.25, T=3)
    for module in model.modules():
        if isinstance(module, Neuron):
            module.backend = backend  # type: ignore[assignment]
    return model


def small(neuron: Neuron, steps: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(Repeat(steps), PerStep(nn.Linear(3, 5)), neuron, PerStep(nn.Linear(5, 2)))


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_rates_are_the_recorders_and_their_gradient_is_that_of_a_plain_mean(backend: str) -> None:
    model, plain = network(backend), network(backend)
    listener, spikes = Listener(model), {}
    with listener.listening({"rates"}):
        logits = model(IMAGES)
    heard = listener.heard(logits, {"rates"})
    for name in heard.rates:
        plain.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: spikes.update({name: out}))
    expected = plain(IMAGES)
    with FiringRecorder(network(backend)) as recorder:
        recorder._model(IMAGES)
    assert heard.presentations == 18
    assert list(heard.rates) == list(recorder.counts.layers)
    for name, rates in heard.rates.items():
        assert rates.flatten().double().tolist() == pytest.approx(recorder.counts.rates(name).tolist(), abs=1e-7)
    weights = {name: torch.arange(rates.numel()).cos().view_as(rates) for name, rates in heard.rates.items()}
    for net, found in ((model, heard.rates), (plain, {name: out.mean((0, 1)) for name, out in spikes.items()})):
        total = sum((found[name] * weight).sum() for name, weight in weights.items())
        (total + (logits if net is model else expected).sum()).backward()
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(native.library() is None, reason="kernels not built")
def test_the_compiled_neurons_own_sums_are_taken_also_while_silence_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sew_resnet8(T=4).eval()
    listener, found = Listener(model), []
    monkeypatch.setattr(listen, "over_images", lambda counts: found.append(len(counts)) or counts.int().sum(0))
    with SilenceWatch(model).looking(0), listener.listening({"rates"}):
        model(torch.randn(3, 3, 32, 32))
    # the sum over steps and images outside of the kernels costs more than the whole step
    assert found == [3] * len(listener.neurons)


def test_spikes_are_the_neurons_output_with_its_gradient() -> None:
    model = network()
    listener = Listener(model)
    with listener.listening({"spikes"}):
        logits = model(IMAGES)
    spikes = listener.heard(logits, {"spikes"}).spikes
    assert spikes["stem_sn"].shape == (3, 6, 4, 8, 8)
    assert set(spikes["stem_sn"].unique().tolist()) == {0.0, 1.0}
    spikes["stem_sn"].sum().backward()
    assert model.stem.weight.grad is not None
    assert float(model.stem.weight.grad.abs().sum()) > 0


def by_hand(drive: Tensor, threshold: float, tau: float) -> list[Tensor]:
    v, found = torch.zeros_like(drive), []
    for _ in range(4):
        h = v + (drive - v) / tau
        found.append(h / threshold)
        v = torch.where(h >= threshold, torch.zeros_like(h), h)
    return found


def test_membranes_are_the_potentials_before_the_comparison_in_thresholds() -> None:
    model = small(LIF(2.0, v_threshold=0.25))
    x = torch.rand(7, 3, generator=torch.Generator().manual_seed(2)) * 3
    listener = Listener(model)
    with listener.listening({"membranes"}):
        logits = model(x)
    membranes = listener.heard(logits, {"membranes"}).membranes["2"]
    expected = torch.stack(by_hand(model[1][0](x), 0.25, 2.0))
    torch.testing.assert_close(membranes, expected)
    assert (expected > 1).any()
    assert (expected < 1).any()
    (given,) = torch.autograd.grad(membranes[0].sum(), model[1][0].bias, retain_graph=True)
    torch.testing.assert_close(given, torch.full((5,), 7 / 2 / 0.25))


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_membranes_of_a_quantized_layer_are_what_its_quantizer_gives(placement: str) -> None:
    spec = QuantSpec(membrane={"bits": 2, "placement": placement, "range": (-1.0, 1.0)})  # type: ignore[arg-type]
    model = calibrate_(prepare(small(LIF(2.0)), spec))
    x = torch.rand(7, 3, generator=torch.Generator().manual_seed(2)) * 3
    expected = model(x)
    listener = Listener(model)
    with listener.listening({"membranes"}):
        logits = model(x)
    membranes = listener.heard(logits, {"membranes"}).membranes["2"]
    assert set((membranes * 3).round(decimals=4).unique().tolist()) <= {-3.0, -1.0, 1.0, 3.0}
    assert membranes.shape == (4, 7, 5)
    torch.testing.assert_close(logits, expected)


def test_the_network_is_afterwards_as_it_was() -> None:
    model = network()
    before, names = copy.deepcopy(model.state_dict()), [type(m).__name__ for m in model.modules()]
    listener = Listener(model)
    with torch.no_grad(), listener.listening({"rates", "membranes", "spikes"}):
        model.eval()(IMAGES)
    assert [type(m).__name__ for m in model.modules()] == names
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    for module in model.modules():
        assert not module._forward_hooks
        if isinstance(module, Neuron):
            assert (module.backend, module.membrane, module.counting) == ("auto", None, False)


def test_a_neuron_that_is_called_twice_or_never_is_told() -> None:
    class Twice(nn.Module):
        def __init__(self, calls: int) -> None:
            super().__init__()
            self.one, self.two, self.calls = IF(), IF(), calls

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            for _ in range(self.calls):
                x = self.two(x)
            return x

    for calls, words in ((2, "'two' was called more than once"), (0, "'two' was not called")):
        model = Twice(calls)
        listener = Listener(model)
        with pytest.raises(ModelError, match=words):
            _hear(listener, model)


def _hear(listener: Listener, model: nn.Module) -> None:
    with listener.listening({"rates"}):
        output = model(torch.rand(2, 3, 4))
    listener.heard(output, {"rates"})
