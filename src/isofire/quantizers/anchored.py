"""Grids that are hung on the threshold: the rest is a level, the threshold a bin's edge.

With step s = (V_th - rest) / (k + 1/2), the levels are rest + j s for j = -n..k, and the edge above level k is V_th
itself: a potential is rounded down to k as long as it does not fire. At rest nothing is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.setting import MembraneSetting
from isofire.quantizers.table import Table


def split(count: int, above: int | None, stored: str) -> tuple[int, int]:
    """How many of `count` stored levels lie below the rest and above it: (n, k), n + k + 1 = count.

    By default half of them, rounded down, lie above.

    Raises
    ------
    SpecError
        If none would lie above the rest, or more than there are.

    Examples
    --------
    >>> split(4, None, "2 bits"), split(2, None, "1 bit"), split(4, 1, "2 bits")
    ((1, 2), (0, 1), (2, 1))
    """
    if count < 2:
        raise SpecError(
            f"{stored} leave one level for the state, the rest, so that nothing would be remembered; take another bit"
        )
    k = count // 2 if above is None else above
    if not 1 <= k <= count - 1:
        raise SpecError(
            f"above must be 1 to {count - 1} for {stored} ({count} levels, the rest among them), got {above}; leave it "
            f"out for {count // 2}"
        )
    return count - 1 - k, k


def placed(setting: MembraneSetting, neuron: NeuronFacts, above: int | None = None) -> tuple[int, int, bool]:
    """Levels below and above the rest for a setting with `bits`, and whether a further code stands for "fires".

    Raises
    ------
    SpecError
        If the neurons have several thresholds or, at `pre_fire`, several spikes a step; else as `split`.
    """
    bits, fires = setting.bits, setting.placement == "pre_fire"  # pyright: ignore[reportAttributeAccessIssue]
    neuron.require_one_threshold()
    if fires:
        neuron.require_one_spike(setting.method)
    return (*split(2**bits - fires, above, f"{bits} bits at {setting.placement}"), fires)


def anchored_table(below: int, above: int, neuron: NeuronFacts, *, fires: bool) -> Table:
    """The grid of `below` and `above` levels around the rest, one row.

    Parameters
    ----------
    fires
        Whether one more level stands for every potential that fires (`pre_fire`). It is the smallest that fires
        for a soft reset, which then leaves the rest; else the next of the grid, at equal distance from V_th.

    Examples
    --------
    >>> anchored_table(1, 2, NeuronFacts(), fires=False).levels
    tensor([[-0.4000,  0.0000,  0.4000,  0.8000]])
    """
    step = neuron.reach / (above + 0.5)
    places = torch.arange(-below, above + 1, dtype=torch.float64)
    levels = neuron.rest + step * places
    edges = neuron.rest + step * (places[:-1] + 0.5)
    table = Table(edges.float().unsqueeze(0), levels.float().unsqueeze(0))
    return with_fire_code(table, neuron, neuron.threshold + step / 2) if fires else table


def with_fire_code(table: Table, neuron: NeuronFacts, level: float) -> Table:
    """The table, rows of their own kept, with a level above the others for every potential that fires.

    No other level or edge lies above the largest potential that does not fire, so that decisions are exact. With a soft
    reset the level is the smallest potential that fires, whatever `level` says: subtracting the threshold then leaves
    the rest.
    """
    edges, levels = (part.clamp(max=neuron.fire_edge) for part in table)
    level = neuron.lowest_firing if neuron.v_reset is None else max(level, neuron.lowest_firing)
    return Table(_append(edges, neuron.fire_edge), _append(levels, level))


def _append(part: Tensor, value: float) -> Tensor:
    return torch.cat([part, part.new_full((part.shape[0], 1), value)], 1)
