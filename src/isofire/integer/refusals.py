"""What of a network a chip cannot do: said all at once, and what of it may be approximated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from isofire.errors import SpecError

APPROXIMATIONS = {
    "weights": "weights are rounded to the chip's codes",
    "decays": "decays become those that the chip has",
    "thresholds": "thresholds are rounded to the chip's units",
    "biases": "biases are rounded, act behind the synapse, or before the first spikes arrive",
    "synapse": "a neuron without a synaptic current gets the chip's shortest, or one with a current loses it",
    "reset": "the chip's other reset is taken",
    "spikes": "a neuron fires more or fewer spikes a step",
    "floor": "membranes have no lower bound, or another one",
    "states": "states are whole numbers of some width: each step rounds them, and they saturate",
    "overflow": "a current could wrap for inputs that the example does not hold",
}
"""Name -> what `approximate` then allows."""


@dataclass(frozen=True)
class Refusal:
    """One thing that a layer does and the chip does not, or not exactly.

    Parameters
    ----------
    layer
        Layer of weights or neurons, or "network".
    rule
        Of the chip: a key of `APPROXIMATIONS`, or a limit or kind of layer that nothing approximates.
    says
        What the layer has and the chip takes, with numbers.
    cure
        What to do about it.
    """

    layer: str
    rule: str
    says: str
    cure: str

    @property
    def approximable(self) -> bool:
        """Whether `approximate` can allow it."""
        return self.rule in APPROXIMATIONS

    def __str__(self) -> str:
        return f"{self.layer}: {self.rule}: {self.says}; {self.cure}"


class RefusedError(SpecError):
    """A network that a chip does not take as it is; `refusals` are all of its reasons."""

    def __init__(self, chip: str, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        hard = [refusal for refusal in refusals if not refusal.approximable]
        soft = sorted({refusal.rule for refusal in refusals if refusal.approximable})
        lines = [f"{chip} does not take this network as it is, for {len(refusals)} reason{'s' * (len(refusals) > 1)}:"]
        lines += [f"  {refusal}" for refusal in refusals]
        if soft:
            rest = f"; what stays: {len(hard)}" if hard else ""
            lines.append(f"approximate={tuple(soft)!r} or approximate=True allows {', '.join(soft)}{rest}")
        super().__init__("\n".join(lines))


def allowed(approximate: bool | Collection[str]) -> frozenset[str]:
    """The approximations that a caller allows, by name.

    Raises
    ------
    SpecError
        If a name is unknown.
    """
    if isinstance(approximate, bool):
        return frozenset(APPROXIMATIONS) if approximate else frozenset()
    names = frozenset([approximate] if isinstance(approximate, str) else approximate)
    if unknown := sorted(names - APPROXIMATIONS.keys()):
        raise SpecError(f"approximate must be True or of {', '.join(APPROXIMATIONS)}, got {unknown[0]!r}")
    return names
