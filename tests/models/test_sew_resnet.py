"""SEW-ResNets against counts and blocks worked out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, heard
from isofire.errors import ModelError, SpecError
from isofire.models import SEWBlock, SEWResNet, build, sew_resnet8, sew_resnet18
from isofire.models.sew_resnet import CONNECT
from isofire.neurons import IF, LIF, Neuron
from isofire.running import evaluating


def count_neurons(model: nn.Module, image: Tensor) -> int:
    """Spiking neurons that one image [C, H, W] meets, over all layers."""
    sizes: list[int] = []
    neurons = find_neurons(model)
    with heard(neurons, lambda _, spikes: sizes.append(spikes[0, 0].numel())), torch.no_grad(), evaluating(model):
        model(image.unsqueeze(0))
    return sum(sizes)


def test_neurons_of_sew_resnet8(spikes_of: Any, images: Any) -> None:
    model = sew_resnet8()
    assert count_neurons(model, torch.zeros(3, 32, 32)) == 86_016
    # stem and first stage: 3 layers of 16 * 32 * 32; then 3 a stage (two in the block, one in the shortcut)
    sizes = [s[0, 0].numel() for s in spikes_of(model, images(1, 3, 32, 32)).values()]
    assert sizes == [16_384] * 3 + [8_192] * 3 + [4_096] * 3
    assert sum(p.numel() for p in model.parameters()) == 78_042


def test_neurons_of_sew_resnet18() -> None:
    model = sew_resnet18()
    assert count_neurons(model, torch.zeros(3, 32, 32)) == 614_400
    layers = [module for module in model.modules() if isinstance(module, Neuron)]
    assert len(layers) == 1 + 2 * 8 + 3
    assert [block.conv1.out_channels for stage in model.stages for block in stage] == [
        64,
        64,
        128,
        128,
        256,
        256,
        512,
        512,
    ]


@pytest.mark.parametrize("training", [False, True])
def test_counting_leaves_the_model_as_it_was(training: bool) -> None:
    model = sew_resnet8(width=0.25).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert count_neurons(model, torch.ones(3, 8, 8)) == 86_016 // 4 // 16
    assert all(module.training == training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("width", "channels"), [(0.25, [4, 8, 16]), (1.0, [16, 32, 64]), (1.5, [24, 48, 96])])
def test_width(width: float, channels: list[int]) -> None:
    model = sew_resnet8(width=width)
    assert [stage[0].conv2.out_channels for stage in model.stages] == channels
    assert model.stem.out_channels == channels[0]
    assert model.fc.in_features == channels[-1]
    assert count_neurons(model, torch.zeros(3, 32, 32)) == round(86_016 * width)


def test_connect_by_hand() -> None:
    out, identity = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0, 2.0])
    assert CONNECT["add"](out, identity).tolist() == [0.0, 1.0, 1.0, 3.0]
    assert CONNECT["and"](out, identity).tolist() == [0.0, 0.0, 0.0, 2.0]
    assert CONNECT["iand"](out, identity).tolist() == [0.0, 0.0, 1.0, 0.0]


def one_tap(conv: nn.Conv2d, row: int, column: int) -> None:
    """A convolution that takes one pixel twice."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, row, column] = 2.0


@pytest.mark.parametrize(
    ("connect", "expected"), [("add", [1, 1, 1, 2]), ("and", [0, 0, 0, 1]), ("iand", [1, 0, 1, 0])]
)
def test_a_block_by_hand(connect: str, expected: list[int]) -> None:
    block = SEWBlock(1, 1, 1, connect, IF).eval()
    one_tap(block.conv1, 1, 0)  # the pixel to the left
    one_tap(block.conv2, 1, 1)
    x = torch.tensor([1.0, 0.0, 1.0, 1.0]).expand(2, 1, 1, 1, 4)  # A = [0, 1, 0, 1] at every step, S = x
    with torch.no_grad():
        assert block(x).tolist() == [[[[expected]]]] * 2


@pytest.mark.parametrize(("connect", "expected"), [("add", [1, 2]), ("and", [0, 1]), ("iand", [1, 0])])
def test_a_block_that_changes_shape_by_hand(connect: str, expected: list[int]) -> None:
    block = SEWBlock(1, 1, 2, connect, IF).eval()
    one_tap(block.conv1, 1, 2)  # pixels 1 and 3
    one_tap(block.conv2, 1, 1)
    one_tap(block.conv_down, 0, 0)  # pixels 0 and 2
    x = torch.tensor([1.0, 0.0, 1.0, 1.0]).expand(2, 1, 1, 1, 4)  # A = [0, 1], S = [1, 1]
    with torch.no_grad():
        assert block(x).tolist() == [[[[expected]]]] * 2


def test_only_blocks_that_change_shape_have_a_shortcut_layer() -> None:
    assert not hasattr(SEWBlock(4, 4, 1, "add", LIF), "sn_down")
    assert hasattr(SEWBlock(4, 8, 1, "add", LIF), "sn_down")
    assert hasattr(SEWBlock(4, 4, 2, "add", LIF), "sn_down")


def test_the_stem_runs_once_a_forward(images: Any) -> None:
    model, seen = sew_resnet8(width=0.25, T=5), []
    model.stem.register_forward_hook(lambda _m, inputs, _o: seen.append(tuple(inputs[0].shape)))
    assert model(images(2, 3, 8, 8)).shape == (5, 2, 10)
    assert seen == [(2, 3, 8, 8)]
    assert model.stem_bn.num_batches_tracked == 1
    assert model(images(3, 2, 3, 8, 8)).shape == (3, 2, 10)
    assert seen[1:] == [(6, 3, 8, 8)]


@pytest.mark.parametrize("connect", list(CONNECT))
def test_a_static_image_equals_its_copies_in_time(connect: str, lively: Any, images: Any) -> None:
    model, x = lively(sew_resnet8(width=0.25, connect=connect)).double(), images(3, 3, 12, 12).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.expand(4, *x.shape)))


def test_frames_act_from_their_step_on(lively: Any, images: Any) -> None:
    model, frames = lively(sew_resnet8(width=0.25)), images(4, 2, 3, 12, 12)
    changed = frames.clone()
    changed[2] = images(2, 3, 12, 12, seed=9)
    with torch.no_grad():
        before, after = model(frames), model(changed)
    assert torch.equal(before[:2], after[:2])
    assert (before[2] != after[2]).any()
    assert (before[3] != after[3]).any()


def test_add_gives_counts_up_to_the_depth_of_a_stage(lively: Any, images: Any) -> None:
    model, outputs = lively(sew_resnet18(width=1 / 16)), []
    for stage in model.stages:
        for block in stage:
            block.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    with torch.no_grad():
        model(images(2, 3, 16, 16))
    for index, out in enumerate(outputs):
        # the shortcut's neurons start every stage but the first anew; there the stem's spikes come on top
        assert set(out.unique().tolist()) <= {float(v) for v in range(index % 2 + 3)}
    assert max(float(out.max()) for out in outputs) == 3.0


@pytest.mark.parametrize("connect", list(CONNECT))
@pytest.mark.parametrize(
    ("neuron", "options"),
    [
        ("if", {}),
        ("if", {"v_reset": None}),
        ("lif", {}),
        ("lif", {"tau": 3.3, "v_threshold": 0.6, "v_reset": -0.4}),
        ("lif", {"decay_input": False, "v_reset": None}),
        ("plif", {"init_tau": 1.3}),
    ],
)
def test_zero_init_residual_starts_blocks_as_identity(connect: str, neuron: str, options: dict[str, Any]) -> None:
    model = sew_resnet8(width=0.25, connect=connect, neuron=neuron, neuron_options=options, zero_init_residual=True)
    block = model.stages[0][0]
    x = (torch.rand(5, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.6).float()
    for training in (False, True):
        with torch.no_grad():
            assert torch.equal(block.train(training)(x), x)


def test_convolutions_start_with_kaiming_fan_out() -> None:
    torch.manual_seed(0)
    for conv in sew_resnet18(width=0.5).modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.out_channels * math.prod(conv.kernel_size)
            spread = 5 / math.sqrt(2 * conv.weight.numel())
            assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=spread)


@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_every_parameter_learns(neuron: str, images: Any) -> None:
    torch.manual_seed(0)
    model = sew_resnet8(width=0.5, neuron=neuron)
    model(images(8, 3, 16, 16)).mean(0).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


CONFIGS: list[dict[str, Any]] = [
    {},
    {"T": 2, "width": 0.5, "connect": "iand", "in_channels": 1, "num_classes": 7, "zero_init_residual": True},
    {"neuron": "if", "neuron_options": {"v_reset": None, "v_threshold": 0.75}, "surrogate": "sigmoid", "alpha": 3.0},
    {"neuron": "plif", "neuron_options": {"init_tau": 1.5, "detach_reset": True}, "surrogate": "triangle"},
]


@pytest.mark.parametrize("arguments", CONFIGS)
def test_a_model_is_rebuilt_from_json_and_its_weights(arguments: dict[str, Any], lively: Any, images: Any) -> None:
    model = lively(sew_resnet8(**{"width": 0.25, **arguments}))
    again = build(json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert again.T == model.T
    assert str(again) == str(model)
    x = images(2, arguments.get("in_channels", 3), 8, 8)
    again.eval()
    with torch.no_grad():
        assert not torch.equal(again(x), model(x))
        assert not again.load_state_dict(model.state_dict()).missing_keys
        assert torch.equal(again(x), model(x))


def test_weights_of_another_width_do_not_load() -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch for stem\.weight"):
        sew_resnet8(width=0.5).load_state_dict(sew_resnet8(width=0.25).state_dict())


def test_a_network_of_other_depth_and_width(images: Any) -> None:
    model = SEWResNet((2, 1), (3, 5), T=2, neuron=LIF, in_channels=1, num_classes=4)
    assert model.config is None
    assert model(images(3, 1, 9, 7)).shape == (2, 3, 4)
    assert count_neurons(model, torch.zeros(1, 9, 7)) == 5 * 3 * 63 + 3 * 5 * 20


@pytest.mark.parametrize("shape", [(3, 8, 8), (8,), (1, 2, 2, 3, 8, 8)])
def test_inputs_that_are_no_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"images must be \[N, C, H, W\] or \[T, N, C, H, W\], got shape"):
        sew_resnet8(width=0.25)(torch.zeros(shape))


def test_no_frames() -> None:
    with pytest.raises(ModelError, match="T >= 1 steps, got shape"):
        sew_resnet8(width=0.25)(torch.zeros(0, 2, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"T": 0}, r"T must be a whole number in 1\.\.65,536, got 0"),
        ({"T": 2.5}, r"T must be a whole number in 1\.\.65,536, got 2.5"),
        ({"num_classes": 0}, "num_classes must be a whole number in 1..1,000,000, got 0"),
        ({"in_channels": -1}, "in_channels must be a whole number in 1..65,536, got -1"),
        ({"connect": "or"}, "connect must be one of add, and, iand, got 'or'"),
        ({"width": 0.001}, r"width must be finite and leave at least one channel, got 0.001 \(of (16|64)\)"),
        ({"width": -1.0}, "width must be finite and leave at least one channel, got -1.0"),
        ({"width": math.nan}, "width must be finite and leave at least one channel, got nan"),
        ({"width": math.inf}, "width must be finite and leave at least one channel, got inf"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    for builder in (sew_resnet8, sew_resnet18):
        with pytest.raises(SpecError, match=message):
            builder(**arguments)


@pytest.mark.parametrize(("blocks", "widths"), [((1,), (4, 8)), ((), ()), ((0, 1), (4, 8)), ((1, 1), (4, 0))])
def test_bad_stages(blocks: Any, widths: Any) -> None:
    with pytest.raises(SpecError, match="blocks and widths need one entry >= 1 a stage"):
        SEWResNet(blocks, widths, neuron=LIF)


def test_a_block_with_an_unknown_connection() -> None:
    with pytest.raises(SpecError, match="connect must be one of add, and, iand, got 'xor'"):
        SEWBlock(2, 2, 1, "xor", LIF)


def test_logits_do_not_depend_on_the_rest_of_the_batch(lively: Any, images: Any) -> None:
    # float64: convolutions of another batch size round differently, which may move a membrane over the threshold
    model, x = lively(sew_resnet8(width=0.25)).double(), images(4, 3, 12, 12).double()
    with torch.no_grad():
        together: Tensor = model(x)
        apart = torch.cat([model(image.unsqueeze(0)) for image in x], 1)
    torch.testing.assert_close(together, apart)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ModelError, match=r"takes images of 3 channels, got shape \(2, 1, 8, 8\)"):
        sew_resnet8(width=0.25)(torch.zeros(2, 1, 8, 8))
