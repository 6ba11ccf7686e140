"""A layer of neurons as a chip's neurons do it: what is equal, what must be changed, and what cannot be had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from isofire.integer.arithmetic import DecayRule
from isofire.integer.decays import ChipDecay, ShiftBy, nearest_decay
from isofire.integer.hardware import NeuronRules
from isofire.integer.neuron_form import NeuronForm
from isofire.integer.refusals import Refusal

_EQUAL = 1e-6
"""Time constants this close, relatively, are one: float32 holds them."""
Gain = Literal["keep", "l2"]


@dataclass
class ChipNeuron:
    """A layer's neurons before and after.

    Parameters
    ----------
    exact
        Equal in every spike to the float network's, with the chip's kind of synapse.
    changed
        What the chip's neuron does.
    decay, synapse_decay
        As codes.
    reset
        The chip's.
    correction
        What thresholds were multiplied by for the chip's decays.
    refusals
        What `changed` does otherwise than `exact`, each with the rule that allows it.
    early
        Steps by which it fires earlier than the float network's neuron: 1 where that uses a current one step later.
    """

    exact: NeuronForm
    changed: NeuronForm
    decay: ChipDecay
    synapse_decay: ChipDecay
    reset: Literal["subtract", "zero"]
    correction: Tensor
    refusals: list[Refusal]
    early: int


def on_chip(
    name: str, form: NeuronForm, rules: NeuronRules, *, output: bool, shift_by: ShiftBy = "factor", gain: Gain = "keep"
) -> ChipNeuron:
    """What a chip's neuron makes of a layer.

    Parameters
    ----------
    output
        Whether it is the last layer, whose spikes a step may have another limit.
    gain
        "l2": thresholds are multiplied by how much more, in the root of summed squares, a membrane answers an input
        with the chip's decays than with its own.
    """
    refused: list[Refusal] = []
    early = int(form.synapse == "before_input")
    exact = _with_kind(name, form, rules, refused)
    changed = _with_synapse(name, exact, rules, refused)
    decay = nearest_decay(rules.decay, changed.tau, synapse=False, shift_by=shift_by)
    synapse_decay = nearest_decay(rules.synapse_decay, changed.tau_synapse, synapse=True, shift_by=shift_by)
    changed = replace(changed, tau=decay.tau)
    if rules.synapse != "none":
        changed = replace(changed, tau_synapse=synapse_decay.tau)
    ratio = _ratio(changed, exact)
    _refuse_decays(name, exact, changed, rules, (decay, synapse_decay), refused)
    # a layer that can no longer be moved at all keeps its threshold
    correction = torch.where((ratio > 0) & (gain == "l2"), ratio, torch.ones_like(ratio))
    changed = changed.scaled(correction)
    reset = _reset(name, exact, rules, refused)
    several = _several(name, exact, rules, reset, output, refused)
    changed = replace(changed, subtract=None, soft=reset == "subtract", several=several)
    changed = replace(changed, floor=_floor(name, exact, rules, refused))
    return ChipNeuron(exact, changed, decay, synapse_decay, reset, correction, refused, early)


def _with_kind(name: str, form: NeuronForm, rules: NeuronRules, refused: list[Refusal]) -> NeuronForm:
    """The same spikes with the current of the chip's kind: one that is used after it has decayed is a share of one that
    is used before, so that the threshold is that share. Where nothing leaks, inputs are whole and thresholds larger."""
    if rules.decay is None and form.decay_input:
        floor = _scaled_floor(name, form, form.tau, refused)
        form = replace(form.scaled(form.tau), decay_input=False, floor=floor)
    if not form.has_synapse or rules.synapse == "none":
        return form
    kept = 1.0 - 1.0 / form.tau_synapse
    if bool((kept == 0.0).any()):
        if form.synapse == "after_decay" and rules.synapse == "after":
            return form
        says = "some of its currents are kept from step to step and others are not (tau_syn = 1)"
        refused.append(Refusal(name, "synapses", says, "give every neuron tau_syn > 1, or all of them 1"))
        return form
    if rules.synapse == "after" and form.synapse != "after_decay":
        floor = _scaled_floor(name, form, kept, refused)
        return replace(form.scaled(kept), synapse="after_decay", floor=floor)
    if rules.synapse == "before" and form.synapse == "after_decay":
        floor = _scaled_floor(name, form, 1.0 / kept, refused)
        return replace(form.scaled(1.0 / kept), synapse="before_decay", floor=floor)
    return replace(form, synapse="after_decay" if rules.synapse == "after" else "before_decay")


def _scaled_floor(name: str, form: NeuronForm, by: Tensor, refused: list[Refusal]) -> float | None:
    if form.floor is None or by.unique().numel() == 1:
        return None if form.floor is None else form.floor * float(by.flatten()[0])
    says = "membranes have a lower bound and currents with time constants of each neuron's own"
    refused.append(Refusal(name, "floor", says, "train with v_floor=None"))
    return None


def _with_synapse(name: str, exact: NeuronForm, rules: NeuronRules, refused: list[Refusal]) -> NeuronForm:
    one = torch.ones((), dtype=torch.float64)
    if exact.has_synapse and rules.synapse == "none":
        says = "its neurons have a synaptic current, the chip's have none"
        refused.append(Refusal(name, "synapse", says, "train with LIF or IF neurons"))
        if bool((exact.synapse_gain == 0.0).any()):
            says = "its currents are wiped before they are used (tau_syn = 1): no input reaches its membranes"
            refused.append(Refusal(name, "synapses", says, "give every neuron tau_syn > 1"))
            return replace(exact, tau_synapse=one, synapse="before_decay")
        # the charge that one input brings in all
        return replace(exact.scaled(1.0 / exact.synapse_gain), tau_synapse=one, synapse="before_decay")
    if not exact.has_synapse and rules.synapse == "after":
        says = "its neurons have no synaptic current, the chip's always have one"
        refused.append(
            Refusal(name, "synapse", says, "train with CubaLIF(synapse='after_decay'), whose current the chip has")
        )
        return replace(exact, tau_synapse=2.0 * one, synapse="after_decay")
    return exact


def _refuse_decays(
    name: str, exact: NeuronForm, changed: NeuronForm, rules: NeuronRules, codes: tuple[ChipDecay, ChipDecay],
    refused: list[Refusal],
) -> None:  # fmt: skip
    membrane = replace(exact, tau=changed.tau)
    pairs = [("membrane", membrane, exact.tau, changed.tau, rules.decay, codes[0].code)]
    if exact.has_synapse and rules.synapse != "none":
        current = replace(exact, tau_synapse=changed.tau_synapse)
        pairs.append(("synapse", current, exact.tau_synapse, changed.tau_synapse, rules.synapse_decay, codes[1].code))
    for what, alone, before, after, rule, code in pairs:
        if _same(before, after):
            continue
        if what == "synapse" and rules.synapse == "after" and bool(((after == 1.0) & (before > 1.0)).any()):
            says = (
                f"the synapse's time constant of {_shown(before)} steps becomes a shift of 0, which wipes the current "
            )
            says += "before it is used: no input reaches the membrane and the layer is silent"
            cure = "take shift_by='factor', which never shifts by 0, or a longer time constant"
        else:
            says = f"the {what}'s time constant of {_shown(before)} steps becomes {_shown(after)} ({_how(rule, code)})"
            cure = f"train with {_near(rule)}"
            if bool((after.isinf() & before.isfinite()).any()):
                says += "; by that its membranes keep every input for ever"
            else:
                says += f"; by that its membranes answer {_percent(_ratio(alone, exact))} to an input"
                cure += ", or correct thresholds by gain='l2'"
        refused.append(Refusal(name, "decays", says, cure))


def _ratio(form: NeuronForm, exact: NeuronForm) -> Tensor:
    """How much more a membrane answers; 1 where it does not leak before or after."""
    return (form.response() / exact.response()).nan_to_num(1.0, 1.0, 1.0)


def _reset(name: str, form: NeuronForm, rules: NeuronRules, refused: list[Refusal]) -> Literal["subtract", "zero"]:
    wanted: Literal["subtract", "zero"] = "subtract" if form.soft else "zero"
    if wanted in rules.reset:
        if form.subtract is not None:
            share = float((form.subtract / form.threshold).max())
            has = f"a spike subtracts {share:.4g} times the threshold" if share else "its neurons are never reset"
            cure = "train with neurons that subtract the threshold at once (v_reset=None, no v_subtract)"
            refused.append(Refusal(name, "reset", f"{has}, the chip's subtract the threshold", cure))
        return wanted
    other = rules.reset[0]
    says = f"its neurons reset by {'subtracting' if form.soft else 'returning to rest'}, the chip's do the other"
    cure = f"train with v_reset={'0.0' if form.soft else 'None'}"
    refused.append(Refusal(name, "reset", says, cure))
    return other


def _several(name: str, form: NeuronForm, rules: NeuronRules, reset: str, output: bool, refused: list[Refusal]) -> bool:
    most = rules.output_spikes if output else rules.spikes
    several = most != 1
    if several != form.several:
        has, takes = (
            ("any number", "one") if form.several else ("one", "any number" if most is None else f"up to {most}")
        )
        cure = "train with several=True (and v_reset=None)" if several else "train with several=False"
        refused.append(Refusal(name, "spikes", f"its neurons fire {has} a step, the chip's {takes}", cure))
    return several and reset == "subtract"


def _floor(name: str, form: NeuronForm, rules: NeuronRules, refused: list[Refusal]) -> float | None:
    if form.floor is None or rules.floor:
        return form.floor
    says = f"membranes do not fall below {form.floor:g} from rest, the chip's have no such bound"
    refused.append(Refusal(name, "floor", says, "train with v_floor=None"))
    return None


def _same(before: Tensor, after: Tensor) -> bool:
    # as shares that are lost, in which a missing leak is 0
    return bool(((1.0 / before - 1.0 / after).abs() <= _EQUAL / before.clamp(max=1e12)).all())


def _shown(tau: Tensor) -> str:
    low, high = float(tau.min()), float(tau.max())
    return f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"


def _how(rule: DecayRule | None, code: Tensor) -> str:
    if rule is None:
        return "the chip has no decay"
    low, high = int(code.min()), int(code.max())
    d = f"{low}" if low == high else f"{low}..{high}"
    return f"a shift by {d}" if rule.kind == "shift" else f"{d} of {2**rule.bits} lost a step"


def _near(rule: DecayRule | None) -> str:
    if rule is None:
        return "neurons that do not leak (IF)"
    return "time constants that are powers of two" if rule.kind == "shift" else f"{2**rule.bits} / tau whole"


def _percent(ratio: Tensor) -> str:
    low, high = 100 * (float(ratio.min()) - 1), 100 * (float(ratio.max()) - 1)
    return f"{low:+.1f} %" if abs(high - low) < 0.05 else f"{low:+.1f} to {high:+.1f} %"
