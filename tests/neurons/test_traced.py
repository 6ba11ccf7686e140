"""`torch.compile` and `torch.export` take networks of neurons whole, with the spikes and gradients of eager calls."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import ModelError
from isofire.models import sew_resnet8
from isofire.neurons import IF, LIF, CubaLIF, MembraneQuantizer, Neuron, ParametricLIF, PerStep, Repeat, Sigmoid, native
from isofire.quantization import calibrate_, prepare
from isofire.quantizers import Levels, Uniform

pytestmark = pytest.mark.skipif(native.library() is None, reason="kernels not built")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def whole(model: nn.Module) -> Any:
    """`model` in one graph, errors if it cannot be; the graph is run as it was traced."""
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def network(**options: Any) -> Any:
    torch.manual_seed(0)
    return sew_resnet8(width=0.125, T=3, in_channels=1, num_classes=4, **options)


IMAGES = torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_inference(channels_last: bool) -> None:
    model = network().eval()
    order = torch.channels_last if channels_last else torch.contiguous_format
    images = IMAGES.contiguous(memory_format=order)
    model = model.to(memory_format=order)
    with torch.no_grad():
        assert torch.equal(whole(model)(images), model(images))


@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_a_training_step(neuron: str, assert_close: Any) -> None:
    eager = network(neuron=neuron).train()
    traced = copy.deepcopy(eager)
    logits = []
    for call in (eager, whole(traced)):
        logits.append(call(IMAGES))
        logits[-1].square().sum().backward()
    assert torch.equal(logits[0], logits[1])
    for (name, a), b in zip(eager.named_parameters(), traced.parameters(), strict=True):
        assert_close(b.grad, a.grad, note=name)
    for (name, a), b in zip(eager.named_buffers(), traced.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_it_is_one_operator_a_layer() -> None:
    program = torch.export.export(network().eval(), (IMAGES,))
    fired = [node for node in program.graph.nodes if "isofire.fire" in str(node.target)]
    assert len(fired) == sum(isinstance(module, Neuron) for module in network().modules())
    with torch.no_grad():
        assert torch.equal(program.module()(IMAGES), network().eval()(IMAGES))


def test_a_network_of_quantized_weights_and_membranes() -> None:
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 4}, membrane={"bits": 3, "placement": "post_reset"})
    model = prepare(network(), spec)
    calibrate_(model, IMAGES)
    for module in model.modules():
        if hasattr(module, "check_finite"):
            module.check_finite = False
    model = isofire.convert(model).eval()
    with torch.no_grad():
        assert torch.equal(whole(model)(IMAGES), model(IMAGES))


LAYERS: list[tuple[Any, Any]] = [
    (IF(v_reset=None), None),
    (LIF(3.0, decay_input=False, surrogate=Sigmoid(2.5)), (Uniform(3, range=(-1.0, 1.5)), "pre_fire")),
    (ParametricLIF(detach_reset=True), (Levels([-0.5, 0.0, 0.3, 1.1], ste="clipped"), "post_reset")),
    (LIF(v_reset=-0.5), (Uniform(2, range=(-1.0, 1.5), ste="plain"), "post_reset")),
]


@pytest.mark.parametrize(("neuron", "membrane"), LAYERS)
@pytest.mark.parametrize("repeat", [None, 4])
def test_one_layer(neuron: Any, membrane: Any, repeat: int | None, currents: Any, assert_close: Any) -> None:
    neuron.membrane = None if membrane is None else MembraneQuantizer(*membrane)
    x = currents(5, 2, 3, 4, 4)
    x = x if repeat is None else x[0]

    def gradients(call: Any) -> tuple[Tensor, list[Tensor]]:
        leaf = x.clone().requires_grad_()
        spikes = call(leaf, repeat=repeat)
        upstream = torch.arange(spikes.numel(), dtype=torch.float32).cos().view(spikes.shape)
        return spikes, list(torch.autograd.grad(spikes, [leaf, *neuron.parameters()], upstream))

    (spikes, got), (expected, wanted) = gradients(whole(neuron)), gradients(neuron)
    assert torch.equal(spikes, expected)
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b)


def test_several_sizes_of_batch() -> None:
    model = nn.Sequential(Repeat(3), PerStep(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), LIF()).eval()
    call = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        for count in (2, 5, 3):
            assert torch.equal(call(IMAGES[:count]), model(IMAGES[:count]))


@pytest.mark.parametrize("kind", ["reference", "torch"])
def test_other_paths_are_traced_step_by_step(kind: Any, currents: Any) -> None:
    x = currents(3, 2, 4)
    neuron = LIF(backend=kind)
    with torch.no_grad():
        assert torch.equal(whole(neuron)(x), neuron(x))


@pytest.mark.parametrize("membrane", [False, True])
@pytest.mark.parametrize("options", [{}, {"v_reset": None, "v_subtract": 0.5}])
def test_neurons_of_several_states_are_traced_step_by_step(options: dict[str, Any], membrane: bool) -> None:
    torch.manual_seed(0)
    neuron = CubaLIF(2.0, torch.tensor([2.0, 3.0, 4.0]), **options)
    model = nn.Sequential(Repeat(4), PerStep(nn.Linear(5, 3)), neuron, PerStep(nn.Linear(3, 2))).eval()
    if membrane:
        neuron.membrane = MembraneQuantizer(Uniform(3, range=(0, 1)), "post_reset")
    x, y = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2)) * 3
    with torch.no_grad():
        graphs = [whole(model), torch.export.export(model, (x,)).module()]
        if membrane:
            with pytest.raises(ModelError, match=r"torch\.jit\.trace writes down other numbers .* use torch\.export"):
                torch.jit.trace(model, x)
        else:
            graphs.append(torch.jit.trace(model, x))
        for graph in graphs:
            assert torch.equal(graph(y), model(y))
    forced = CubaLIF(backend="native")
    with pytest.raises(Exception, match="backend 'native' does not know these neurons in a compiled graph"):
        torch.export.export(forced, (x.view(1, 6, 5),))


@pytest.mark.parametrize("membrane", [None, {"bits": 3}, {"method": "firing", "bits": 3}, {"method": "lsq", "bits": 3}])
def test_graphs_of_the_tracer_are_saved_and_fire_alike_on_other_images(membrane: dict | None, tmp_path: Path) -> None:
    model, labels = network().eval(), torch.arange(len(IMAGES)) % 4
    if membrane is not None:
        isofire.quantize_(model, isofire.QuantSpec(membrane={**membrane, "placement": "post_reset"}), (IMAGES, labels))
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, IMAGES), tmp_path / "net.pt")
        found = torch.jit.load(tmp_path / "net.pt")
        for images in (IMAGES, 2 * IMAGES.flip(0), IMAGES[:2]):
            assert torch.equal(found(images), model(images))
