"""One step of training: forward, backward, optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Row, Rows
from benchmarks.networks import Given, backend, last, trained
from benchmarks.peers import COMPILED, peer_of
from isofire.quantization import calibrate_, prepare
from isofire.training import Recipe
from isofire.training.objective import Objective

BATCH = 128


def training_step(given: Given) -> Rows:
    """SpikingJelly beside isofire, in full precision."""
    model, rows = trained().train(), Rows()
    images, labels = given.labelled(BATCH, "train")
    rows.add("spikingjelly", lambda: step(peer_of(model), images, labels), same=False)
    rows.add("spikingjelly, channels_last", lambda: step(last(peer_of(model)), last(images), labels), same=False)
    rows.add(COMPILED, lambda: _compiled(last(peer_of(model)), last(images), labels), same=False)
    for name, path in (("isofire, torch operations", "torch"), ("isofire", "auto")):
        rows.add(name, lambda path=path: step(backend(model, path), last(images), labels), same=False)
    return rows


def qat_step(given: Given) -> Rows:
    """Quantizers in the loop."""
    model, rows = trained().train(), Rows()
    images, labels = given.labelled(BATCH, "train")
    specs: dict[str, dict[str, Any]] = {
        "uniform, 4 bits": {"weights": {"method": "uniform", "bits": 4, "range": "minmax"}},
        "lsq, 4 bits": {"weights": {"method": "lsq", "bits": 4}},
        "lqnet, 3 bits": {"weights": {"method": "lqnet", "bits": 3}},
        "states of 4 bits, pre_fire": {"membrane": {"bits": 4}},
        "states of 4 bits, post_reset": {"membrane": {"bits": 4, "placement": "post_reset"}},
    }
    rows.add("full precision", lambda: step(backend(model, "auto"), last(images), labels), same=False)
    for name, spec in specs.items():
        prepared = prepare(model, isofire.QuantSpec(**spec))
        calibrate_(prepared, images)
        rows.add(name, lambda net=prepared: step(net.train(), last(images), labels), same=False)
    return rows


def firing_losses(given: Given) -> Rows:
    """Losses on firing beside the task's."""
    rows, (images, labels) = Rows(), given.labelled(BATCH, "train")
    teacher, batch = backend(trained(), "auto"), last(images)
    membrane = {"bits": 4, "placement": "post_reset"}
    prepared = prepare(teacher, isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, membrane=membrane))  # type: ignore[arg-type]
    calibrate_(prepared, images)
    losses: dict[str, dict[str, Any]] = {
        "QAT step": {},
        "paired": {"paired": 1.0},
        "emd": {"emd": 1.0},
        "mean_rate": {"mean_rate": 1.0},
        "logits": {"logits": 1.0},
        "emd, stored rates": {"emd": {"against": "stored"}},
        "membrane": {"membrane": 1.0},
    }
    for name, loss in losses.items():
        rows.add(
            name, lambda loss=loss: _objective_step(prepared, teacher, batch, labels, loss), same=False
        )  # fmt: skip
    rows.add("teacher forward", lambda: lambda: _forward(teacher, batch), same=False)
    return rows


def _compiled(model: nn.Module, images: Tensor, labels: Tensor) -> Row:
    return step(torch.compile(model), images, labels)  # type: ignore[arg-type]


def step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images).mean(0), labels).backward()
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


def _forward(model: nn.Module, batch: Tensor) -> None:
    with torch.inference_mode():
        model(batch)


CASES = (
    Case(
        "training-step",
        "One step (forward, backward, SGD) at batch 128 of SEW-ResNet-8, T = 4, trained, training images of CIFAR-10; "
        "base: SpikingJelly 2.0 as it comes.",
        training_step,
    ),
    Case("qat-step", "The same step with quantizers; base: isofire in full precision.", qat_step, 7, 1),
    Case(
        "firing-losses",
        "A step of QAT (LSQ 4 bits, states of 4 bits) with losses on firing; base: with the task's loss alone. A loss "
        "that asks for the teacher runs it forward too, so \"teacher forward\" is the least that it can add.",
        firing_losses, 5, 1,
    ),
)  # fmt: skip
