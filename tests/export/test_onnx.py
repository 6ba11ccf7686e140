"""An ONNX file computes what the network does, spike by spike, by a runtime that knows nothing of isofire."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isofire import QuantSpec, data, quantize_
from isofire.errors import ModelError, SpecError
from isofire.models import build
from isofire.neurons import IF, PerStep, Repeat

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from isofire.export import write_onnx  # noqa: E402

IMAGES = next(iter(data.load("digits", "test").batches(16)))[0]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
    images, _ = next(iter(data.load("digits", "train").batches(128)))
    for _ in range(10):
        model.train()(images)
    return model.eval()


def _run(path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def test_codes_stand_for_weights_and_every_spike_is_the_same(network, tmp_path) -> None:
    spec = QuantSpec(
        weights={"method": "lsq", "bits": 4},
        membrane={"method": "levels", "levels": [-0.5, 0.0, 0.4, 0.9], "placement": "post_reset"},
    )
    quantized = quantize_(copy.deepcopy(network), spec, data.load("digits", "train").first(64))
    found = write_onnx(tmp_path / "net.onnx", quantized, IMAGES)
    assert sum(found.differing.values()) == 0
    assert found.logits_error is not None
    assert found.logits_error <= 1e-5
    kinds = set(found.codes.values())
    assert "int4" in kinds
    assert found.codes["stem"].startswith("float32")
    # any number of images, and outputs that are not all alike
    with torch.no_grad():
        wanted = quantized(IMAGES[:5])
    assert wanted.std() > 0
    assert torch.allclose(_run(tmp_path / "net.onnx", IMAGES[:5]), wanted, atol=1e-5)
    graph = onnx.load(str(tmp_path / "net.onnx")).graph
    stored = {item.name: item for item in graph.initializer}
    name = next(layer for layer, kind in found.codes.items() if kind == "int4")
    codes = onnx.numpy_helper.to_array(stored[f"network.{name}.weight.codes"]).astype(np.int64)
    step = onnx.numpy_helper.to_array(stored[f"network.{name}.weight.step"])
    weight = quantized.get_submodule(name).weight.detach().numpy()
    np.testing.assert_allclose(codes * step.reshape(-1, *(1,) * (codes.ndim - 1)), weight, rtol=1e-6)
    assert [output.name for output in graph.output] == ["output"]


def test_levels_without_a_step_stay_float32(network, tmp_path) -> None:
    spec = QuantSpec(
        weights={"method": "lqnet", "bits": 3}, membrane={"bits": 2, "placement": "pre_fire", "range": [0, 1]}
    )
    quantized = quantize_(copy.deepcopy(network), spec, data.load("digits", "train").first(64))
    found = write_onnx(tmp_path / "net.onnx", quantized, IMAGES)
    assert all(kind.startswith("float32") for kind in found.codes.values())
    assert sum(found.differing.values()) == 0


def test_too_few_images_and_other_outputs_are_refused_and_leave_no_file(network, tmp_path) -> None:
    with pytest.raises(SpecError, match="two or more"):
        write_onnx(tmp_path / "net.onnx", network, IMAGES[:1])

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(network)

        def forward(self, x: Tensor):
            return self.net(x), x

    with pytest.raises(ModelError, match="one tensor"):
        write_onnx(tmp_path / "net.onnx", Pair(), IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"ceil_mode": True}, {"padding": 1, "count_include_pad": False}])
def test_average_pools_give_the_same_output_and_a_divisor_of_ones_own_is_refused(options: dict, tmp_path) -> None:
    def pooled(**more: object) -> nn.Module:
        torch.manual_seed(0)
        pool = nn.AvgPool2d(3, 2, **options, **more)  # type: ignore[arg-type]
        layers = PerStep(nn.Conv2d(1, 4, 2)), IF(v_threshold=0.3), PerStep(pool, nn.Flatten(), nn.LazyLinear(3))
        return nn.Sequential(Repeat(2), *layers).eval()

    images = torch.rand(4, 1, 7, 7, generator=torch.Generator().manual_seed(0)) * 2
    for network, said in ((pooled(), None), (pooled(divisor_override=3), "no average pool with a divisor_override")):
        network(images)
        if said is None:
            found = write_onnx(tmp_path / "net.onnx", network, images)
            assert found.logits_error is not None
            assert found.logits_error < 1e-5
        else:
            with pytest.raises(ModelError, match=said):
                write_onnx(tmp_path / "other.onnx", network, images)


@pytest.mark.parametrize("method", ["lsq", "mint", "qsnn", "spquant"])
def test_states_of_methods_that_learn_are_written_while_gradients_are_on(method: str, network, tmp_path) -> None:
    membrane = {"method": method} | ({} if method == "spquant" else {"bits": 4})
    spec = QuantSpec(weights={"method": "lsq", "bits": 4}, membrane=membrane, first_layer="quantize")
    quantized = quantize_(copy.deepcopy(network), spec, data.load("digits", "train").first(64))
    assert torch.is_grad_enabled()
    found = write_onnx(tmp_path / "net.onnx", quantized, IMAGES)
    assert sum(found.differing.values()) == 0
