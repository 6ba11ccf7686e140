"""What is timed, against what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn

import isofire
from benchmarks.peers import peer_of, same_spikes
from isofire.models import SEWResNet, pretrained, sew_resnet8
from isofire.models.pretrained import REGISTER
from isofire.neurons import LIF, MembraneQuantizer
from isofire.quantization import calibrate_, prepare
from isofire.quantizers import Levels, Quantizer, Table, Uniform
from isofire.training import Recipe
from isofire.training.objective import Objective

Case = dict[str, Callable[[], object]]
BATCH = 128


def network() -> SEWResNet:
    """The trained SEW-ResNet-8 where there is one, else a random one (spike rates then differ from a trained one's)."""
    torch.manual_seed(0)
    name = "sew_resnet8-cifar10"
    model = pretrained(name) if name in REGISTER else sew_resnet8()
    assert isinstance(model, SEWResNet)
    return model


def images(count: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 32, 32, generator=generator)


def training_step() -> Case:
    """One step (forward, backward, SGD) of SEW-ResNet-8 at batch 128, T = 4; base: SpikingJelly 2.0 as it comes."""
    ours = network().train()
    assert same_spikes(copy.deepcopy(ours), images(8))
    tuned = peer_of(ours).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = torch.arange(BATCH) % 10
    return {
        "spikingjelly": _step(peer_of(ours), images(), labels),
        "spikingjelly, channels_last": _step(tuned, _last(images()), labels),
        "isofire, reference path": _step(_backend(ours, "reference"), _last(images()), labels),
        "isofire, torch path": _step(_backend(ours, "torch"), _last(images()), labels),
        "isofire": _step(_backend(ours, "auto"), _last(images()), labels),
    }


def qat_step() -> Case:
    """One training step with quantizers; base: the same step in full precision (higher is faster)."""
    model = network().train()
    labels = torch.arange(BATCH) % 10
    cases = {"full precision": _step(_backend(model, "auto"), _last(images()), labels)}
    specs = {
        "uniform 4 bit": {"weights": {"method": "uniform", "bits": 4, "range": "minmax"}},
        "lsq 4 bit": {"weights": {"method": "lsq", "bits": 4}},
        "lqnet 3 bit": {"weights": {"method": "lqnet", "bits": 3}},
        "membrane 4 bit pre_fire": {"membrane": {"bits": 4}},
        "membrane 4 bit post_reset": {"membrane": {"bits": 4, "placement": "post_reset"}},
    }
    for name, spec in specs.items():
        prepared = prepare(model, isofire.QuantSpec(**spec))
        calibrate_(prepared, images())
        cases[name] = _step(prepared.train(), _last(images()), labels)
    return cases


def firing_losses() -> Case:
    """One QAT step (LSQ 4 bit, membranes 4 bit post_reset) with losses on firing; base: the same step with the task's
    loss alone. A loss that asks for the teacher runs it forward too, so "teacher forward" is the least it can add."""
    teacher, batch, labels = _backend(network().eval(), "auto"), _last(images()), torch.arange(BATCH) % 10
    membrane = {"bits": 4, "placement": "post_reset"}
    prepared = prepare(teacher, isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, membrane=membrane))
    calibrate_(prepared, images())
    rows: dict[str, dict[str, Any]] = {
        "QAT step": {},
        "paired": {"paired": 1.0},
        "emd": {"emd": 1.0},
        "mean_rate": {"mean_rate": 1.0},
        "logits": {"logits": 1.0},
        "emd, stored rates": {"emd": {"against": "stored"}},
        "membrane": {"membrane": 1.0},
    }
    cases = {name: _objective_step(prepared, teacher, batch, labels, losses) for name, losses in rows.items()}
    return {**cases, "teacher forward": _infer(teacher, batch)}


def inference() -> Case:
    """A batch of 128 in eval mode; base: SpikingJelly 2.0 as it comes."""
    ours = network().eval()
    tuned = peer_of(ours).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {
        "spikingjelly": _infer(peer_of(ours), images()),
        "spikingjelly, channels_last": _infer(tuned, _last(images())),
        "isofire, torch path": _infer(_backend(ours, "torch"), _last(images())),
        "isofire": _infer(_backend(ours, "auto"), _last(images())),
    }


def recording() -> Case:
    """A batch of 128 in eval mode with every neuron's spikes counted; base: the same without counting."""
    model, batch = _backend(network().eval(), "auto"), _last(images())
    recorded = copy.deepcopy(model)
    # entered once, as for a whole data set
    isofire.FiringRecorder(recorded).__enter__()
    return {"inference": _infer(model, batch), "inference and recording": _infer(recorded, batch)}


def distance() -> Case:
    """Exact EMD of two sets of 1,000,000 rates (counts out of 40,000); base: scipy.stats.wasserstein_distance."""
    generator = np.random.default_rng(0)
    a, b = (generator.binomial(40_000, generator.beta(1, 8, 1_000_000)) for _ in range(2))
    rates = [torch.from_numpy(x / 40_000) for x in (a, b)]
    counts = [torch.from_numpy(x) for x in (a, b)]
    return {
        "scipy": lambda: scipy.stats.wasserstein_distance(a / 40_000, b / 40_000),
        "isofire.emd (rates, sorting)": lambda: isofire.emd(*rates),
        "isofire emd_from_counts (integers)": lambda: isofire.firing.emd_from_counts(*counts, 40_000, 40_000),
    }


def membrane_tables() -> Case:
    """A layer of 32 x 16 x 16 LIF neurons, T = 4, batch 32, channels_last, membranes quantized post_reset; base: the
    uniform grid of 4 levels. A table is compared edge by edge up to 64 levels and searched beyond, which gathers."""
    x = torch.randn(128, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last).unflatten(0, (4, 32))
    cases = {"uniform, 4 levels": _layer(Uniform(2, range=(-1.0, 1.0), ste="plain"), x)}
    for bits in (2, 4, 6, 8):
        table = Uniform(bits, range=(-1.0, 1.0)).table()
        assert table is not None
        for groups in (1, 32):
            own = {"granularity": "channel", "channels": groups, "channel_axis": 1} if groups > 1 else {}
            levels = Levels(list(range(1 << bits)), **own)  # type: ignore[arg-type]
            levels.set_table(Table(*(part.expand(groups, -1).contiguous() for part in table)))
            cases[f"table, {1 << bits} levels{', one a channel' if own else ''}"] = _layer(levels, x)
    return cases


def _layer(quantizer: Quantizer, x: Tensor) -> Callable[[], object]:
    neuron = LIF()
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset")

    def run() -> None:
        with torch.no_grad():
            neuron(x)

    return run


CASES: dict[str, Callable[[], Case]] = {
    "training step": training_step,
    "QAT step": qat_step,
    "firing losses": firing_losses,
    "inference": inference,
    "recording": recording,
    "membrane tables": membrane_tables,
    "EMD": distance,
}

ROUNDS = {"recording": 60, "membrane tables": 60}
"""Cases whose rows differ by little take more rounds than the usual 9."""


def _step(model: nn.Module, batch: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch).mean(0), labels).backward()
        optimizer.step()

    return run


def _objective_step(
    model: nn.Module, teacher: nn.Module, batch: Tensor, labels: Tensor, losses: dict[str, Any]
) -> Callable[[], None]:
    model = copy.deepcopy(model).train()
    recipe = Recipe(epochs=1, lr=0.01, losses=losses)
    objective = Objective(recipe, model, teacher, torch.device("cpu"), True)
    objective.prepare(lambda _: iter([batch]), lambda tensor: tensor[None], nullcontext)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)

    def run() -> None:
        _, _, total, _ = objective(lambda: model(batch), batch, labels, 0.0, nullcontext)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return run


def _infer(model: nn.Module, batch: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            model(batch)

    return run


def _backend(model: SEWResNet, backend: str) -> SEWResNet:
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, isofire.neurons.Neuron):
            module.backend = backend  # type: ignore[assignment]
    return model


def _last(batch: Tensor) -> Tensor:
    return batch.contiguous(memory_format=torch.channels_last)
