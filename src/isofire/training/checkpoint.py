"""Weights and training states on disk: one safetensors file each, whole or absent.

Weights on few levels, as quantized networks have them, are packed codes (`isofire.training.packing`).

The tensors are named `model/<name in the state dict>` and `optimizer/<parameter>/<key>`; a JSON header in the file's
metadata says what they belong to. Nothing is pickled. No generator state is stored, as `isofire.training.seeds`
derives every draw from the position of the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from isofire.adapters import find_neurons
from isofire.errors import CheckpointError, ModelError
from isofire.files import check_file, write_atomic
from isofire.formats import told_format, told_unopened
from isofire.quantization import spec_of
from isofire.quantization.on_levels import keep_levels_of_file_, require_levels
from isofire.quantization.parts import require_whole
from isofire.quantizers import fit_quantizers_
from isofire.quantizers.base import under
from isofire.training.header import FORMAT, PACKED, Header, Kind, read_header, versions
from isofire.training.packing import DamagedError, count, is_packed_shape, packed, unpacked
from isofire.training.same_spec import check_spec

_NAMES_SHOWN = 5


def architecture(model: nn.Module) -> str:
    """Hash the names, shapes and dtypes of a model's state dict (SHA-256, hex); the values do not matter.

    Examples
    --------
    >>> architecture(nn.Linear(2, 3)) == architecture(nn.Linear(2, 3)) != architecture(nn.Linear(3, 2))
    True
    """
    lines = [f"{name} {list(t.shape)} {t.dtype}" for name, t in sorted(model_tensors(model).items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def save_weights(path: str | os.PathLike[str], model: nn.Module, note: Mapping[str, Any] | None = None) -> Path:
    """Write the state dict of a model, quantizer parameters and buffers included.

    Parameters
    ----------
    path
        Ends in `.safetensors` by custom.
    model
        Its state dict must hold nothing but tensors.
    note
        JSON values to keep with it.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ModelError
        If the state dict holds something else than tensors, or quantized weights were changed since.
    """
    return _write(path, "weights", model, _prefixed("model", model_tensors(model)), note or {})


def load_weights(path: str | os.PathLike[str], model: nn.Module) -> dict[str, Any]:
    """Copy the weights of a file, of either kind, into `model` and return the file's note.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, of another format, of another architecture, or quantized by another spec. The
        model is then untouched.
    """
    header, tensors = _read(path)
    check_spec(path, header.spec, model)
    _load_model(path, model, tensors)
    if header.spec is not None:
        keep_levels_of_file_(model)
    return header.note


def save_training(
    path: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer, note: Mapping[str, Any]
) -> Path:
    """Write a model's state dict and its optimizer's state; see `save_weights`."""
    tensors = _prefixed("model", model_tensors(model)) | _prefixed("optimizer", _optimizer_tensors(model, optimizer))
    return _write(path, "training", model, tensors, note)


def read_note(path: str | os.PathLike[str], kind: Kind) -> dict[str, Any]:
    """Read the note of a file and check its kind, without touching a model.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is of the other kind.
    """
    header, _ = _read(path, with_tensors=False)
    if header.kind != kind:
        raise CheckpointError(f"{path} holds {header.kind}, not {kind}; name another file or folder")
    return header.note


def peek_note(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The note of a weights file; None for a safetensors file that another program wrote.

    Raises
    ------
    CheckpointError
        If it is missing or no safetensors file, or holds a training state.
    """
    return None if _open(path, with_tensors=False)[0] is None else read_note(path, "weights")


def count_values(path: str | os.PathLike[str]) -> int:
    """How many values all tensors of a file hold, by its header alone.

    Raises
    ------
    CheckpointError
        If it is missing or no safetensors file.
    """
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return count(shapes, {name: file.get_tensor(name) for name in shapes if is_packed_shape(name)})


def load_plain_weights(path: str | os.PathLike[str], model: nn.Module) -> None:
    """Copy a state dict that another program saved as safetensors into `model`.

    Raises
    ------
    CheckpointError
        If the file is missing or no safetensors file, or does not fit: the message names what is missing, surplus or of
        another shape. The model is then untouched.
    """
    _, tensors = _open(path)
    _load_model(path, model, _prefixed("model", tensors))


def load_training(path: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy weights and optimizer state of a file into `model` and `optimizer`.

    Raises
    ------
    CheckpointError
        If the file cannot be read, belongs to another architecture, or its optimizer state does not fit `optimizer`.
        Both are then untouched.
    """
    header, tensors = _read(path)
    state, parameters = under("optimizer/", tensors), dict(model.named_parameters())
    _check_model(path, model, tensors)
    _check_optimizer(path, header, state, parameters)
    _load_model(path, model, tensors)
    for full, tensor in state.items():
        name, _, key = full.rpartition("/")
        parameter = parameters[name]
        # torch keeps its step counter on the CPU and lays out all else like the parameter (channels_last or not)
        place = torch.empty_like(tensor if key == "step" else parameter, requires_grad=False)
        optimizer.state[parameter][key] = place.copy_(tensor)


def _write(
    path: str | os.PathLike[str], kind: Kind, model: nn.Module, tensors: dict[str, Tensor], note: Mapping[str, Any]
) -> Path:
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    if kind == "weights":
        require_levels(model)
        require_whole(model)
    held = packed(plain) if kind == "weights" else plain
    spec = spec_of(model)
    header = Header(
        spec=None if spec is None else spec.to_dict(),
        format=FORMAT if held.keys() == plain.keys() else PACKED,
        kind=kind,
        architecture=architecture(model),
        versions=versions(),
        note=dict(note),
        optimizer=sorted(under("optimizer/", tensors)),
    )
    text = msgspec.json.encode(header).decode()
    return write_atomic(path, lambda part: save_file(held, part, metadata={"isofire": text}))


def _read(path: str | os.PathLike[str], with_tensors: bool = True) -> tuple[Header, dict[str, Tensor]]:
    text, tensors = _open(path, with_tensors)
    if text is None:
        raise CheckpointError(
            f"{path} was not written by isofire (no header), so it holds weights alone; name their network too: "
            "--model package.module:builder, from Python isofire.models.open_named(builder, file)"
        )
    return read_header(path, text), tensors


def _open(path: str | os.PathLike[str], with_tensors: bool = True) -> tuple[str | None, dict[str, Tensor]]:
    with _opened(path) as file:
        text = (file.metadata() or {}).get("isofire")
        tensors = {name: file.get_tensor(name) for name in (file.keys() if with_tensors else ())}
        return text, tensors if text is None else unpacked(tensors)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except DamagedError as error:
        raise CheckpointError(f"{path} is damaged: {error}; restore it from a copy") from error
    except FileNotFoundError as error:
        cut_off = Path(path).with_name("log.txt").is_file()
        made = "make it with isofire train or quantize, or"
        cure = "the run in that folder has not come to its end: give its command again, or" if cut_off else made
        raise CheckpointError(f"there is no checkpoint at {path}; {cure} name another file") from error
    except OSError as error:
        raise CheckpointError(f"{path} is {told_unopened(path, error)}") from error
    except SafetensorError as error:
        if (told := told_format(path)) is not None:
            raise CheckpointError(f"{path} is no network that isofire wrote, it looks like {told}") from error
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}); if isofire wrote it, restore it from a copy"
        ) from error


def _load_model(path: str | os.PathLike[str], model: nn.Module, tensors: dict[str, Tensor]) -> None:
    _check_model(path, model, tensors)
    model.load_state_dict(under("model/", tensors))


def _check_model(path: str | os.PathLike[str], model: nn.Module, tensors: dict[str, Tensor]) -> None:
    stored = under("model/", tensors)
    fit_quantizers_(model, stored)
    own = model_tensors(model)
    surplus = sorted(stored.keys() - own.keys())
    differences = _lacking(own.keys() - stored.keys(), surplus)
    if unlike := [name for name in sorted(own.keys() & stored.keys()) if _form(own[name]) != _form(stored[name])]:
        differences.append(_some(f"{name} is {_form(stored[name])} there, {_form(own[name])} here" for name in unlike))
    if differences:
        cure = _states(model, [*surplus, *unlike]) or (
            "build the model as it was when the file was written; a builder that converts a trained network "
            "(as_isofire) loads its weights itself, without --weights"
        )
        raise CheckpointError(f"{path} belongs to another architecture: {'; '.join(differences)}; {cure}")


def _states(model: nn.Module, names: list[str]) -> str | None:
    """The cure where all that does not fit are states that neurons kept from a forward pass."""
    neurons, parameters = tuple(find_neurons(model)), dict(model.named_parameters())
    kept = [name for name in names if name not in parameters and name.rpartition(".")[0] in neurons]
    if not kept or kept != names:
        return None
    return (
        "these are states that neurons kept from a forward pass; bring the network to rest before its state dict is "
        "taken, and the one that it is loaded into (isofire.adapters.reset_(model)), or leave them out"
    )


def _check_optimizer(
    path: str | os.PathLike[str], header: Header, state: dict[str, Tensor], parameters: dict[str, nn.Parameter]
) -> None:
    owners = {full: parameters.get(full.rpartition("/")[0]) for full in state}
    surplus = [full for full in state if full not in header.optimizer or owners[full] is None]
    differences = _lacking(set(header.optimizer) - state.keys(), surplus)
    for full, owner in sorted(owners.items()):
        there, wanted = _form(state[full]), "float32 []" if full.endswith("/step") or owner is None else _form(owner)
        if owner is not None and there != wanted:
            differences.append(f"{full} is {there}, not {wanted}")
    if differences:
        raise CheckpointError(
            f"the optimizer state of {path} does not fit the model: {'; '.join(differences[:_NAMES_SHOWN])}; "
            "restore the file, or remove it and train anew"
        )


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model.

    Raises
    ------
    ModelError
        If it holds something else than tensors, or sparse ones.
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"a checkpoint holds tensors only, but {name} of the state dict is a {type(value).__name__}; "
                "register it as a buffer"
            )
        if value.layout is not torch.strided:
            layout = str(value.layout).removeprefix("torch.")
            raise ModelError(
                f"a checkpoint holds dense tensors only, but {name} of the state dict is {layout}; let the network's "
                "code build it (register_buffer(..., persistent=False)), or hold it dense"
            )
    return state


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _lacking(missing: Iterable[str], surplus: Iterable[str]) -> list[str]:
    named = {"missing there": sorted(missing), "surplus there": sorted(surplus)}
    return [f"{what}: {_some(names)}" for what, names in named.items() if names]


def _some(items: Iterable[str]) -> str:
    names = list(items)
    rest = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + rest
