"""What Sinabs' layers do beyond the contract: several spikes a step, a floor, and outputs [N, T, classes]."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.adapters import adapter_of
from isofire.errors import ModelError
from isofire.neurons import IF, MembraneQuantizer
from isofire.quantizers import Uniform

layers: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed", exc_type=ImportError)


@pytest.mark.parametrize("placement", [None, "pre_fire", "post_reset"])
def test_counts_and_floor_are_those_of_isofire(placement: Any) -> None:
    # multiples of 1/64 are exact, whichever way the two write the floor
    x = (torch.randn(12, 5, 7, generator=torch.Generator().manual_seed(0)) * 96 + 16).round() / 64
    own, layer = IF(v_reset=None, several=True, v_floor=-1.0), layers.IAF(min_v_mem=-1.0)
    if placement is not None:
        own.membrane = MembraneQuantizer(Uniform(6, range=(-2.0, 5.875)), placement)
        adapter = adapter_of(layer)
        assert adapter is not None
        adapter.attach(layer, MembraneQuantizer(Uniform(6, range=(-2.0, 5.875)), placement))
    expected = own(x)
    assert expected.max() >= 3
    assert torch.equal(layer(x.transpose(0, 1)).transpose(0, 1), expected)


class Squeezed(nn.Module):
    """Built for batches of 12 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(1, 4, 3), layers.IAFSqueeze(batch_size=12, min_v_mem=-1.0)
        self.second, self.last = nn.Linear(144, 10), layers.IAFSqueeze(batch_size=12, min_v_mem=-1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.conv(x.unsqueeze(1).expand(-1, 5, -1, -1, -1).flatten(0, 1)))
        return self.last(self.second(x.flatten(1))).unflatten(0, (-1, 5))


def test_a_batch_first_network_with_squeezed_layers_is_quantized_and_compared() -> None:
    torch.manual_seed(0)
    model = Squeezed()
    data = [(torch.randn(12, 1, 8, 8) * 2, torch.arange(12) % 10) for _ in range(2)]
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 8}, membrane={"bits": 8, "range": "minmax"},
                             first_layer="quantize", last_layer="quantize")  # fmt: skip
    quantized = isofire.convert(isofire.calibrate(isofire.prepare(model, spec), data))
    found = isofire.compare(model, quantized, data)
    assert found.n_images == 24
    assert found.overall["mfr_fp"] > 0.02
    with torch.no_grad():
        assert model(data[0][0]).shape == (12, 5, 10)
    assert 0 < found.overall["emd_layer_mean"] < 0.2


def test_batches_of_another_size_than_a_layer_was_built_for_are_told() -> None:
    model, images, labels = Squeezed(), torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 8}, membrane={"bits": 8, "range": "minmax"},
                             first_layer="quantize")  # fmt: skip
    told = r"'first' was built for batches of 12 images, but sees 160 rows .* give the data as a list of batches of 12"
    with pytest.raises(ModelError, match=told):
        isofire.quantize_(copy.deepcopy(model), spec, (images, labels))
    with pytest.raises(ModelError, match=told):
        isofire.compare(model, model, (images, labels))
    # a multiple fits the layer's own reshape, which would take images for steps
    twice = r"sees 120 rows \[N \* T, ...\] of a batch of 24"
    with pytest.raises(ModelError, match=twice):
        isofire.quantize_(copy.deepcopy(model), spec, (images[:24], labels[:24]))
    with pytest.raises(ModelError, match=twice), isofire.FiringRecorder(model):
        model(images[:24])
    batches = [(images[:12], labels[:12]), (images[12:24], labels[12:24])]
    assert isofire.compare(model, isofire.quantize_(copy.deepcopy(model), spec, batches), batches).n_images == 24
    assert not model.first._forward_pre_hooks


def test_networks_for_one_batch_size_are_quantized_without_labels_too() -> None:
    torch.manual_seed(0)
    model = Squeezed()
    model.conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))  # type: ignore[assignment]
    images = 3 + torch.randn(12, 1, 8, 8)
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 8}, first_layer="quantize")
    quantized = isofire.quantize_(copy.deepcopy(model), spec, images)
    with torch.no_grad():
        mapped = quantized.conv[0](images)
    assert quantized.conv[1].running_mean is not None
    assert torch.allclose(quantized.conv[1].running_mean, mapped.mean((0, 2, 3)), atol=1e-5)


class Adaptive(nn.Module):
    """An adaptive neuron that takes its input whole, which is not Sinabs' default."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8)
        self.lif = layers.ALIF(tau_mem=8.0, tau_adapt=12.0, norm_input=False)
        self.out = nn.Linear(8, 3)
        self.leak = layers.ExpLeak(tau_mem=10.0).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leak(self.out(self.lif(2 * self.fc(x))))


FRAMES = torch.rand(12, 7, 6, generator=torch.Generator().manual_seed(1))


def spikes_by_hand(net: Adaptive) -> torch.Tensor:
    """Sinabs' equations of ALIF, step by step, [N, T, 8]."""
    keeps, slower = torch.exp(torch.tensor(-1 / 8.0)), torch.exp(torch.tensor(-1 / 12.0))
    v = raised = torch.zeros(len(FRAMES), 8)
    fired = []
    for current in (2 * net.fc(FRAMES)).detach().unbind(1):
        v, threshold = keeps * v + current, 1 + 1.8 * raised
        spike = (v >= threshold).float()
        v, raised = v - spike * threshold, slower * raised + (1 - slower) * spike
        fired.append(spike)
    return torch.stack(fired, 1)


@pytest.mark.parametrize("placement", [None, "post_reset"])
def test_copies_keep_what_sinabs_own_deep_copy_forgets(placement: Any) -> None:
    torch.manual_seed(2)
    net, data = Adaptive(), (FRAMES, torch.arange(12) % 3)
    assert copy.deepcopy(net.lif).norm_input, "Sinabs copies it by now: lost_in_copies is not needed any more"
    membrane = None if placement is None else {"bits": 16, "placement": placement, "range": [-20, 20]}
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 16}, membrane=membrane, first_layer="quantize")
    prepared = isofire.prepare(net, spec)
    # by the in-place verbs no copy is made; by `convert` and `calibrate` each makes another
    for made in (isofire.adapters.copy_of(net), isofire.convert(isofire.calibrate(prepared, data))):
        expected = spikes_by_hand(made)
        assert expected.sum() > 20
        with isofire.FiringRecorder(made) as recorder, torch.no_grad():
            made(FRAMES)
        assert abs(recorder.counts.total("lif") - int(expected.sum())) <= (0 if placement is None else 2)
    assert copy.deepcopy(prepared).lif.norm_input is (placement is None)
    assert [p.requires_grad for p in prepared.leak.parameters()] == [False] * len(list(net.leak.parameters()))


def test_a_network_that_lost_a_constant_in_a_copy_is_no_counterpart() -> None:
    torch.manual_seed(2)
    net, data = Adaptive(), (FRAMES, torch.arange(12) % 3)
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 8}, first_layer="quantize")
    by_deepcopy = isofire.quantize_(copy.deepcopy(net), spec, data)
    by_isofire = isofire.quantize_(isofire.adapters.copy_of(net), spec, data)
    assert isofire.compare(net, by_isofire, data).agreement > 0.8
    for measure in (
        lambda: isofire.compare(net, by_deepcopy, data),
        lambda: isofire.quantization.diagnose(by_deepcopy, data, baseline=net),
        lambda: isofire.quantization.repair_(by_deepcopy, net, data),
    ):
        with pytest.raises(ModelError, match=r"norm_input of neuron 'lif'.*False and True.*copy_of"):
            measure()


class _Unfolded(nn.Module):
    """IAF on [N, T, ...] between layers that have steps and images on one axis."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.neuron = steps, layers.IAF()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neuron(x.unflatten(0, (-1, self.steps))).flatten(0, 1)


def _convolutional(neuron: nn.Module, channels: int) -> nn.Module:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.neuron = nn.Conv2d(2, channels, 3, padding=1), neuron
            self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 4))
            self.conv.weight.data *= 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.neuron(self.conv(x.flatten(0, 1)))).unflatten(0, (-1, 4))

    return Network()


@pytest.mark.parametrize("channels", [6, 8])
def test_rates_are_corrected_along_the_channels_of_folded_steps(channels: int):
    """IAFSqueeze takes steps and images on one axis; with 8 channels on 8 rows a wrong axis would fit too."""
    x = (torch.rand(24, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 2}, correct="bias", first_layer="quantize")
    made = []
    for neuron in (layers.IAFSqueeze(num_timesteps=4), _Unfolded(4)):
        network = _convolutional(neuron, channels)
        quantized = isofire.quantize_(isofire.adapters.copy_of(network), spec, x)
        repaired = isofire.quantization.prepare(
            network, isofire.QuantSpec(weights=spec.weights, first_layer="quantize")
        )
        repaired = isofire.quantization.calibrate(repaired, x)
        isofire.quantization.repair_(repaired, network, x)
        assert not torch.equal(quantized.conv.bias, network.conv.bias)
        made.append((quantized.conv.bias, repaired.conv.bias))
    for folded, unfolded in zip(*made, strict=True):
        torch.testing.assert_close(folded, unfolded, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["lsq", "firing", "uniform"])
@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_sinabs_own_reset_brings_quantized_layers_to_rest(method: str, without: Any) -> None:
    torch.manual_seed(0)
    fire = layers.LIF(tau_mem=10.0)
    model = nn.Sequential(nn.Linear(6, 8), fire, nn.Linear(8, 3))
    x = torch.rand(5, 4, 6) * 4
    spec = isofire.QuantSpec(membrane={"method": method, "bits": 4, "placement": "post_reset"})
    isofire.quantize_(model, spec, (x, torch.arange(5) % 3))
    with without():
        first = model(x)
        assert fire.v_mem.any()
        fire.reset_states()
        assert not fire.v_mem.any()
        assert torch.equal(model(x), first)
