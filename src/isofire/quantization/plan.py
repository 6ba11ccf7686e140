"""Which setting each module gets: the spec's rules resolved against a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from isofire.adapters import find_neurons, no_neurons, refuse_compiled, refuse_integers
from isofire.conversion import shown
from isofire.errors import SpecError
from isofire.neurons import Neuron
from isofire.quantization.patterns import compile_pattern, matches
from isofire.quantization.temporal import TemporalLayer, check_temporal
from isofire.quantizers import ConstantSetting, MembraneSetting, Setting, WeightSetting
from isofire.spec import TARGETS, QuantSpec, Rule
from isofire.text_table import TextTable, total

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NOT_SUPPORTED = "kind not supported"
_CHANNELS = "channels of a membrane: axis 1 of a step [N, C, ...]; of tokens [N, L, D], the tokens"
S = TypeVar("S", bound=Setting)
UNSUPPORTED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.RNNBase, nn.Bilinear, nn.Embedding)


@dataclass(frozen=True)
class LayerAssignment:
    """What happens to one module: its setting (None leaves it alone) and the rule that says so."""

    name: str
    kind: str
    target: str
    setting: WeightSetting | MembraneSetting | ConstantSetting | None
    rule: str
    supported: bool = True
    """Whether there are methods for its kind."""

    def of(self, kind: type[S]) -> S:
        """The setting, which is of this kind for the choice's target."""
        assert isinstance(self.setting, kind)
        return self.setting


@dataclass(frozen=True, repr=False)
class QuantPlan:
    """Every weighted layer and every layer of neurons with its choice, in the model's order."""

    choices: tuple[LayerAssignment, ...]

    def chosen(self, target: str) -> list[LayerAssignment]:
        """The assignments of a target ("weights", "membrane", "decays", "thresholds", "biases") that quantize."""
        return [choice for choice in self.choices if choice.target == target and choice.setting is not None]

    def __str__(self) -> str:
        # as wide as it gets, so that no rule is cut
        table = self._table()
        return table.text(total(table.widths())) + (f"\n{_CHANNELS}" if self._of_channels() else "")

    def __repr__(self) -> str:
        chosen = sum(choice.setting is not None for choice in self.choices)
        return f"QuantPlan({chosen} of {len(self.choices)} modules are quantized)"

    def _repr_html_(self) -> str:
        return self._table().html() + (f"<p>{_CHANNELS}</p>" if self._of_channels() else "")

    def _of_channels(self) -> bool:
        return any(getattr(choice.setting, "granularity", None) == "channel" for choice in self.chosen("membrane"))

    def _table(self) -> TextTable:
        titles = ("module", "kind", "target", "setting", "rule")
        rows = [(c.name, c.kind, c.target, describe(c.setting), c.rule) for c in self.choices]
        return TextTable(titles, rows, texts=frozenset(range(len(titles))))


def make_plan(model: nn.Module, spec: QuantSpec) -> QuantPlan:
    """Resolve the spec against the model.

    Raises
    ------
    ModelError
        If the model has no spiking neuron, or is compiled.
    SpecError
        If the spec is no `QuantSpec`, a rule matches nothing, its pattern is not valid, it sets a target that its
        modules don't have, a default reaches no module, or weights are to change with the step in a layer or network
        that has no steps for them.
    """
    if not isinstance(spec, QuantSpec):
        raise SpecError(f"a spec is an isofire.QuantSpec, got {shown(spec)}; of a dict: QuantSpec.from_dict(it)")
    refuse_compiled(model)
    refuse_integers(model)
    weighted = [name for name, module in model.named_modules() if isinstance(module, (*WEIGHTED, TemporalLayer))]
    neurons = find_neurons(model)
    if not neurons:
        raise no_neurons(model)
    others = _own_kinds(model, weighted, neurons)
    _check_rules(spec.rules, weighted, list(neurons), others)
    policy = {}
    if weighted and spec.last_layer == "float":
        policy[weighted[-1]] = "last_layer"
    if weighted and spec.first_layer == "float":
        policy[weighted[0]] = "first_layer"
    choices = []
    for name, module in model.named_modules():
        choices += [_unsupported(own, module, spec) for own in _own_weights(name, module, weighted, neurons)]
        if isinstance(module, (*WEIGHTED, TemporalLayer)):
            setting, rule = _resolve(name, "weights", spec, policy.get(name))
            choices.append(LayerAssignment(name, type(module).__name__, "weights", setting, rule))
            choices += _constants(name, module, ("biases",), spec, policy.get(name))
        elif name in neurons:
            setting, rule = _resolve(name, "membrane", spec, None)
            choices.append(LayerAssignment(name, type(module).__name__, "membrane", setting, rule))
            choices += _constants(name, module, ("decays", "thresholds"), spec, None)
        elif isinstance(module, UNSUPPORTED):
            choices.append(_unsupported(name, module, spec))
    _check_reach(spec, choices)
    for choice in choices:
        timed = isinstance(choice.setting, WeightSetting) and choice.setting.time_steps is not None
        if timed and not isinstance(model.get_submodule(choice.name), TemporalLayer):
            check_temporal(model, choice.name)
    return QuantPlan(tuple(choices))


def _constants(
    name: str, module: nn.Module, targets: Sequence[str], spec: QuantSpec, policy: str | None
) -> list[LayerAssignment]:
    """Assignments of the constants that the spec speaks of."""
    found = []
    for target in targets:
        if spec.reaches(target):
            setting, rule = _resolve(name, target, spec, policy)
            reason = _lacks(module, target)
            if reason is not None:
                if setting is not None and rule == name:
                    raise SpecError(f"the rule {rule!r} sets {target} of {name!r}, which {reason}; leave it out")
                setting, rule = None, reason
            found.append(LayerAssignment(name, type(module).__name__, target, setting, rule))
    return found


def _lacks(module: nn.Module, target: str) -> str | None:
    """Why a module has no such constant that can be rounded; None if it has."""
    if target == "biases":
        return "has no bias" if getattr(module, "bias", None) is None else None
    if not isinstance(module, Neuron):
        return "is no neuron of isofire's"
    return "does not leak" if target == "decays" and not module.decays() else None


def _own_weights(name: str, module: nn.Module, weighted: Sequence[str], neurons: Collection[str]) -> list[str]:
    """Weights that a module holds itself, of a kind that no quantizer takes: attention's, a recurrent neuron's, those
    of a class of one's own, also beside the weight of a layer that it is made from."""
    if isinstance(module, (*UNSUPPORTED, nn.LayerNorm)) or _within(name, weighted):
        return []
    layer = isinstance(module, (*WEIGHTED, TemporalLayer))
    # what else a neuron holds, and what its membrane's quantizer does, are no weights
    inside = name in neurons or _within(name, neurons)
    return [
        f"{name}.{own}".lstrip(".")
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and (not inside or "weight" in own) and (not layer or is_beside(module, own))
    ]


def is_beside(module: nn.Module, own: str) -> bool:
    """Whether a layer's parameter is none of its weight, nor one that torch makes its weight of, as by pruning."""
    made_of = () if "weight" in module._parameters else ("weight_orig", "weight_g", "weight_v")
    return own not in ("weight", "bias", "bias_orig", *made_of)


def _own_kinds(model: nn.Module, weighted: Sequence[str], neurons: Collection[str]) -> list[str]:
    """Names of all weights, or layers with weights, that no quantizer takes."""
    found = []
    for name, module in model.named_modules():
        found += [name] if isinstance(module, UNSUPPORTED) else _own_weights(name, module, weighted, neurons)
    return found


def _unsupported(name: str, module: nn.Module, spec: QuantSpec) -> LayerAssignment:
    """Of weights of such a kind: a rule leaves them float, or their kind does."""
    rule = _rule_for(name, "weights", spec.rules)
    why = rule.match if rule is not None and rule.weights == "float" else NOT_SUPPORTED
    return LayerAssignment(name, type(module).__name__, "weights", None, why, supported=False)


def _within(name: str, others: Collection[str]) -> bool:
    return any(name.startswith(other + ".") for other in others)


def explain(model: nn.Module, spec: QuantSpec) -> QuantPlan:
    """Print module -> setting -> rule for every layer that could be quantized, and return the plan."""
    plan = make_plan(model, spec)
    print(plan)
    return plan


def _check_reach(spec: QuantSpec, choices: Sequence[LayerAssignment]) -> None:
    """A spec that changes nothing is a mistake."""
    for target, setting in ((target, getattr(spec, target)) for target in TARGETS):
        if setting is not None and not any(c.target == target and c.setting is not None for c in choices):
            reasons = "; ".join(dict.fromkeys(f"{c.name!r}: {c.rule}" for c in choices if c.target == target))
            raise SpecError(
                f"the spec's {target} setting reaches no module ({reasons or 'the model has none'}); "
                "change the rules or the first_layer and last_layer policy"
            )
    if all(choice.setting is None for choice in choices):
        raise SpecError("the spec quantizes nothing in this model: every rule leaves its modules float")


def _resolve(
    name: str, target: str, spec: QuantSpec, policy: str | None
) -> tuple[WeightSetting | MembraneSetting | ConstantSetting | None, str]:
    rule = _rule_for(name, target, spec.rules)
    if rule is not None:
        setting = getattr(rule, target)
        return (None if setting == "float" else setting), rule.match
    if policy is not None:
        return None, f"{policy} = 'float'"
    return getattr(spec, target), "default"


def _rule_for(name: str, target: str, rules: Sequence[Rule]) -> Rule | None:
    relevant = [rule for rule in rules if getattr(rule, target) is not None]
    for rule in relevant:
        if rule.match == name:
            return rule
    for rule in relevant:
        if _matches(rule.match, name):
            return rule
    return None


def _matches(match: str, name: str) -> bool:
    return matches(match[3:], name, f"match {match!r}") if match.startswith("re:") else match == name


def _check_rules(rules: Sequence[Rule], weighted: Sequence[str], neurons: Sequence[str], others: Sequence[str]) -> None:
    for i, rule in enumerate(rules):
        place = f"rules[{i}], match {rule.match!r}"
        if rule.match.startswith("re:"):
            compile_pattern(rule.match[3:], place)
        if all(getattr(rule, target) is None for target in TARGETS):
            raise SpecError(f"a rule must set weights, membrane, decays, thresholds or biases ({place})")
        for target in TARGETS:
            names = weighted if target in ("weights", "biases") else neurons
            setting = getattr(rule, target)
            # weights of other kinds can be left float alone
            known = [*names, *others] if target == "weights" and setting == "float" else names
            if setting is not None and not any(_matches(rule.match, name) for name in known):
                there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                kind = "layer with weights" if names is weighted else "layer of neurons"
                raise SpecError(f"the rule's {target} setting matches no {kind} ({place}); there are: {there}")


def describe(setting: Setting | None) -> str:
    """Such as "uniform 4 bit endpoint [-1, 1] per channel"; "float" for None."""
    return "float" if setting is None else setting.describe()
