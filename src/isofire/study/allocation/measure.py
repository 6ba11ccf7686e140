"""The networks that a choice of bits needs: made, compared, and what each layer's bits do alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.errors import SpecError
from isofire.firing import Comparison, Observation, observe
from isofire.firing.cost import measure_cost
from isofire.firing.cost.memory import Memory, memory_of
from isofire.firing.evidence.outcome import HEADLINE
from isofire.quantization import make_plan, prepare, reestimates
from isofire.quantization.fake_weights import original, weight_quantizers
from isofire.quantizers import MembraneSetting
from isofire.spec import CONSTANT_TARGETS, TARGETS, QuantSpec, Rule
from isofire.study.cell import COST_IMAGES, Cell, run_cell
from isofire.study.splits import AnySet
from isofire.training.distributed import pick_device

MEASURE = HEADLINE
Bits = Mapping[tuple[str, str], int]
"""(target, module) -> bits."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One number of bits for one layer, and what it does alone.

    Parameters
    ----------
    name, target
        Module, and "weights" or "membrane".
    bits
        As the spec counts them.
    bytes
        What the layer then keeps.
    drift
        EMD, layers weighted by their neurons, of the network in which nothing else is quantized, less the control's;
        not below 0.
    accuracy_drop
        Share of images, against the control; negative where more are right.
    synops, energy_uj
        Change of the network's, against the control's, per inference; None where no budget limits either.
    """

    name: str
    target: str
    bits: int
    bytes: float
    drift: float
    accuracy_drop: float = 0.0
    synops: float | None = None
    energy_uj: float | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """A network with bits of its own, and what came of it.

    Parameters
    ----------
    spec
        A rule for every layer.
    bits
        Of each layer.
    comparison
        Against the baseline.
    cost
        "synops" and "energy_uj" per inference; empty where nobody asked.
    """

    spec: QuantSpec
    bits: Bits
    comparison: Comparison
    cost: Mapping[str, float]

    @property
    def drift(self) -> float:
        """EMD, layers weighted by their neurons."""
        return self.comparison.overall[MEASURE]

    @property
    def accuracy_drop(self) -> float:
        """Share of images."""
        return _drop(self.comparison)


class Workshop:
    """Makes and measures.

    Parameters
    ----------
    costs
        Whether operations are measured too.
    step
        Called after each network.
    others
        As in `isofire.study.allocation.allocate`.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: QuantSpec,
        train_set: AnySet,
        *,
        costs: bool,
        step: Callable[[], None],
        seed: int,
        calibration_images: int,
        batch_size: int,
        device: torch.device | str | None,
    ) -> None:
        self.model, self.base, self.train_set, self.costs, self.step = model, spec, train_set, costs, step
        self.seed, self.calibration_images, self.batch_size = seed, calibration_images, batch_size
        self.place = pick_device(device)
        plan = make_plan(model, spec)
        chosen = [choice for choice in plan.choices if choice.setting is not None]
        self.layers: dict[tuple[str, str], Any] = {
            (c.target, c.name): c.setting for c in chosen if c.target not in CONSTANT_TARGETS
        }
        for (_, name), setting in self.layers.items():
            if getattr(setting, "bits", None) is None:
                raise SpecError(
                    f"{setting.method} of {name!r} has no bits to choose from; take another method, or leave the layer "
                    "float"
                )
            if isinstance(setting, MembraneSetting) and setting.shares_scale:
                raise SpecError(
                    f"{setting.method} of {name!r} shares its scale with weights, which are float where layers are "
                    "tried one by one; take another method for the states, or leave them float"
                )
        # constants are rounded as the spec says
        kept = [choice for choice in chosen if choice.target in CONSTANT_TARGETS]
        self.constants = tuple(Rule.one(c.name, c.target, c.setting) for c in kept)

    def observe(self, images: AnySet) -> Observation:
        """What the baseline does on these images."""
        return observe(self.model, images, batch_size=self.batch_size, device=self.place)

    def spec(self, bits: Bits) -> QuantSpec:
        """A rule for each of these layers, and nothing else."""
        rules = [
            Rule.one(name, target, msgspec.structs.replace(self.layers[target, name], bits=count))
            for (target, name), count in bits.items()
        ]
        return self._only(*rules)

    def _only(self, *rules: Rule, **changes: Any) -> QuantSpec:
        return msgspec.structs.replace(self.base, **dict.fromkeys(TARGETS), rules=(*rules, *self.constants), **changes)

    def cell(self, spec: QuantSpec | None, images: AnySet, seen: Observation) -> Cell:
        """Quantize and compare; None is the control."""
        cell = run_cell(
            self.model,
            spec,
            mode="ptq",
            train_set=self.train_set,
            test_set=images,
            seed=self.seed,
            observed=seen,
            calibration_images=self.calibration_images,
            batch_size=self.batch_size,
            device=self.place,
        )
        self.step()
        return cell

    def made(self, bits: Bits, images: AnySet, seen: Observation) -> Made:
        """The network with these bits."""
        spec = self.spec(bits)
        cell = self.cell(spec, images, seen)
        return Made(spec=spec, bits=bits, comparison=cell.comparison, cost=self.cost(cell.model, images))

    def cost(self, model: nn.Module, images: AnySet) -> dict[str, float]:
        """Mean operations and energy of an inference, on the first 100 images.

        Raises
        ------
        SpecError
            If the budget limits them and a part of the network is not in them.
        """
        if not self.costs:
            return {}
        found = measure_cost(model, images, max_images=COST_IMAGES)
        if found.left_out:
            raise SpecError(
                f"a budget of operations or energy needs all of them counted, and this is left out: "
                f"{'; '.join(map(str, found.left_out))}; limit bytes instead"
            )
        return {"synops": found.synops.mean, "energy_uj": found.energy().total / 1e6}

    def sizes(self, bits: list[int], seen: Observation) -> list[Option]:
        """What each number of bits makes each layer keep, which is known before anything is calibrated; nothing else
        of them is. Of weights that layers share, one layer alone keeps them here."""
        neurons = {name: seen.counts.n_neurons(name) for name in seen.counts.layers}
        found = []
        for count in bits:
            memory = memory_of(self._prepared(dict.fromkeys(self.layers, count)), neurons)
            for target, name in self.layers:
                kept = _kept(memory, target, name)
                found.append(Option(name=name, target=target, bits=count, bytes=kept, drift=0.0))
        return found

    def _prepared(self, bits: Bits) -> nn.Module:
        """With weights on the levels that they have by themselves."""
        model = prepare(self.model, self.spec(bits))
        for name, quantizer in weight_quantizers(model):
            quantizer.calibrate(original(model.get_submodule(name)))
        return model

    def options(self, bits: list[int], images: AnySet, seen: Observation) -> tuple[list[Option], dict[str, float]]:
        """What each number of bits does to each layer alone; and what there is before any of them: cost, "drift" and
        "accuracy_drop" of the control, which quantizes nothing."""
        anew = reestimates(self.model, self.base)
        plain = self._before(False, images, seen)
        base = self._before(True, images, seen) if anew else plain
        found = []
        for target, name in self.layers:
            for count in bits:
                only = self.spec({(target, name): count})
                cell = self.cell(only, images, seen)
                neurons = {layer.layer: layer.neurons for layer in cell.comparison.layers}
                kept = _kept(memory_of(cell.model, neurons), target, name)
                now, against = self.figures(cell, images), base if reestimates(self.model, only) else plain
                change: dict[str, Any] = {key: now[key] - against[key] for key in now}
                change["drift"] = max(0.0, change["drift"])
                found.append(Option(name=name, target=target, bits=count, bytes=kept, **change))
        return found, base

    def _before(self, anew: bool, images: AnySet, seen: Observation) -> dict[str, float]:
        """What there is before any layer is quantized, with constants rounded as the spec says."""
        if self.constants:
            spec = self._only(reestimate_bn="always" if anew else "never")
            return self.figures(self.cell(spec, images, seen), images)
        if anew:
            return self.figures(self.cell(None, images, seen), images)
        return {"drift": 0.0, "accuracy_drop": 0.0, **self.cost(self.model.to(self.place), images)}

    def figures(self, cell: Cell, images: AnySet) -> dict[str, float]:
        """What limits can be set on, of one network, bytes aside."""
        found = cell.comparison
        return {"drift": found.overall[MEASURE], "accuracy_drop": _drop(found), **self.cost(cell.model, images)}


def _drop(found: Comparison) -> float:
    # .98 - .97 is a little more than .01, which one image in 100 may be allowed to be
    return round(found.accuracy_fp - found.accuracy, 12)


def _kept(memory: Memory, target: str, name: str) -> float:
    """Bytes of a layer's weights, or states."""
    return (memory.weights if target == "weights" else memory.states)[name].total / 8
