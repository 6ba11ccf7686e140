from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from isofire.errors import CheckpointError, ModelError, OutputError
from isofire.training import Recipe, architecture, load_weights, save_weights
from isofire.training.checkpoint import load_training, read_note, save_training
from isofire.training.optimizer import make_optimizer


def _filled(value: float) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    for tensor in model.state_dict().values():
        tensor.fill_(value)
    return model


def test_weights_come_back_bit_for_bit_with_their_note(tmp_path: Path, make_net: Callable[..., nn.Module]) -> None:
    written, read = make_net(0).to(memory_format=torch.channels_last), make_net(1)
    path = save_weights(tmp_path / "w.safetensors", written, {"epoch": 3, "accuracy": 0.1})
    assert load_weights(path, read) == {"epoch": 3, "accuracy": 0.1}
    for name, tensor in written.state_dict().items():
        assert torch.equal(tensor, read.state_dict()[name]), name


def test_tied_weights_are_kept(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    path = save_weights(tmp_path / "w.safetensors", model)
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    load_weights(path, other)
    assert torch.equal(other[0].weight, other[1].weight)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimizer_state_comes_back(tmp_path: Path, make_net: Callable[..., nn.Module], optimizer: str) -> None:
    recipe = Recipe(epochs=1, lr=0.1, optimizer=optimizer)
    nets = [make_net(seed).to(memory_format=torch.channels_last) for seed in (0, 1)]
    first, second = (make_optimizer(net, recipe) for net in nets)
    for _ in range(2):
        nets[0](torch.ones(3, 1, 8, 8)).sum().backward()
        first.step()
    path = save_training(tmp_path / "t.safetensors", nets[0], first, {"at": 1})
    assert read_note(path, "training") == {"at": 1}
    load_training(path, nets[1], second)
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert first.state[one].keys() == second.state[two].keys() != set()
        for key, tensor in first.state[one].items():
            assert torch.equal(tensor, second.state[two][key])


def _drop_all(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if name.startswith("optimizer/")]:
        del state[name]


def _drop_one(state: dict[str, torch.Tensor]) -> None:
    del state["optimizer/conv.bias/exp_avg"]


def _add_stranger(state: dict[str, torch.Tensor]) -> None:
    state["optimizer/nowhere.weight/exp_avg"] = torch.zeros(2)


def _add_key(state: dict[str, torch.Tensor]) -> None:
    state["optimizer/conv.bias/velocity"] = torch.zeros(6)


def _reshape(state: dict[str, torch.Tensor]) -> None:
    state["optimizer/conv.bias/exp_avg"] = torch.zeros(5)


def _lengthen_step(state: dict[str, torch.Tensor]) -> None:
    state["optimizer/conv.bias/step"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_all, r"missing there: conv\.bias/exp_avg, conv\.bias/exp_avg_sq, conv\.bias/step, .* and \d+ more;"),
        (_drop_one, r"missing there: conv\.bias/exp_avg; restore the file"),
        (_add_stranger, r"surplus there: nowhere\.weight/exp_avg;"),
        (_add_key, r"surplus there: conv\.bias/velocity;"),
        (_reshape, r"conv\.bias/exp_avg is float32 \[5\], not float32 \[6\];"),
        (_lengthen_step, r"conv\.bias/step is float32 \[3\], not float32 \[\];"),
    ],
)
def test_an_optimizer_state_that_does_not_fit_leaves_both_alone(
    tmp_path: Path, make_net: Callable[..., nn.Module], damage: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    recipe = Recipe(epochs=1, lr=0.1, optimizer="adamw")
    written, read = make_net(0), make_net(1)
    optimizers = [make_optimizer(net, recipe) for net in (written, read)]
    written(torch.ones(3, 1, 8, 8)).sum().backward()
    optimizers[0].step()
    path = save_training(tmp_path / "t.safetensors", written, optimizers[0], {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    damage(state)
    save_file(state, path, metadata=metadata)
    before = {name: tensor.clone() for name, tensor in read.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"the optimizer state of .* does not fit the model: {message}"):
        load_training(path, read, optimizers[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in read.state_dict().items())
    assert not optimizers[1].state


def test_a_parameter_without_a_gradient_has_no_optimizer_state(tmp_path: Path) -> None:
    nets = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)]
    first, second = (make_optimizer(net, Recipe(epochs=1, lr=0.1)) for net in nets)
    nets[0][1](torch.ones(1, 2)).sum().backward()
    first.step()
    load_training(save_training(tmp_path / "t.safetensors", nets[0], first, {}), nets[1], second)
    assert second.state.keys() == set(nets[1][1].parameters())


def test_weights_can_be_read_from_a_training_state(tmp_path: Path, make_net: Callable[..., nn.Module]) -> None:
    net, other = make_net(0), make_net(1)
    path = save_training(tmp_path / "t.safetensors", net, make_optimizer(net, Recipe(epochs=1, lr=0.1)), {})
    load_weights(path, other)
    assert torch.equal(net.conv.weight, other.conv.weight)


def test_another_architecture_is_named_and_the_model_left_alone(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.safetensors", _filled(1.0))
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Identity(), nn.Linear(1, 1))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(CheckpointError, match="belongs to another architecture") as caught:
        load_weights(path, model)
    text = str(caught.value)
    assert "missing there: 2.bias, 2.weight" in text
    assert "surplus there: 0.bias, 1.bias, 1.num_batches_tracked, 1.running_mean, 1.running_var and 1 more" in text
    assert "0.weight is float32 [3, 2, 3, 3] there, float32 [4, 2, 3, 3] here" in text
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_another_dtype_is_another_architecture(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.safetensors", nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"bias is float32 \[1\] there, float64 \[1\] here"):
        load_weights(path, nn.Linear(1, 1).double())


def test_the_hash_follows_names_shapes_and_dtypes_only() -> None:
    assert architecture(_filled(0.0)) == architecture(_filled(1.0))
    others = [nn.Linear(2, 3), nn.Linear(2, 3, bias=False), nn.Linear(3, 2), nn.Linear(2, 3).double(), _filled(0.0)]
    assert len({architecture(model) for model in others}) == 5


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = save_weights(tmp_path / "w.safetensors", _filled(1.0))
    path.write_bytes(path.read_bytes()[:keep])
    for read in (lambda: load_weights(path, _filled(0.0)), lambda: read_note(path, "weights")):
        with pytest.raises(CheckpointError, match="is truncated or no safetensors file"):
            read()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*nowhere.safetensors"):
        load_weights(tmp_path / "nowhere.safetensors", _filled(0.0))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "was not written by isofire"),
        ({"isofire": "{"}, "header of .* cannot be read"),
        ({"isofire": "[]"}, "format of .* is not 1"),
        ({"isofire": '{"format": "isofire.counts", "steps": 4}'}, "holds what isofire recorded"),
        ({"isofire": '{"format": 3}'}, "format of .* is not 1 or 2; read it with the isofire that wrote it"),
        ({"isofire": '{"format": 1}'}, "header of .* cannot be read"),
    ],
)
def test_a_foreign_header_is_refused(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = save_weights(tmp_path / "w.safetensors", _filled(1.0))
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        load_weights(path, _filled(0.0))


def test_weights_are_no_training_state(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.safetensors", _filled(1.0))
    with pytest.raises(CheckpointError, match="holds weights, not training"):
        read_note(path, "training")


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"bits": 3}

    with pytest.raises(ModelError, match="holds tensors only, but _extra_state of the state dict is a dict"):
        save_weights(tmp_path / "w.safetensors", Odd(1, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save_weights(tmp_path / "w.safetensors", _filled(1.0))
