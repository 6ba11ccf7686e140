"""Quantized weights as whole numbers, from prepared and from converted networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.quantization.even_levels import codes_on, points
from isofire.quantization.fake_weights import original, weight_quantizers
from isofire.quantization.kept_levels import rows_of_levels
from isofire.quantization.on_levels import require_levels_of
from isofire.quantization.parts import choices_of_parts, refuse_part
from isofire.quantizers import WeightSetting
from isofire.quantizers.lattice import Codes

_EVEN = 2.0**-20
"""By which share of the largest level float32 leaves distances of levels unequal."""


class IntegerWeights(NamedTuple):
    """weight = levels[group, codes], and scale * (codes - zero_point) where levels have equal distances.

    `codes` int32 of the weight's shape, 0 for the lowest level; `levels` [groups, L], a group for the layer or for each
    output.
    """

    codes: Tensor
    levels: Tensor

    @property
    def scale(self) -> Tensor:
        """Distance of two levels, float64 [groups]; where there is one level alone, how far it is from 0.

        Raises
        ------
        ModelError
            If levels are uneven, as those of LQ-Nets.
        """
        levels = self.levels.detach().double().cpu()
        steps = levels.diff(dim=1)
        mean = (levels[:, -1] - levels[:, 0]) / max(1, levels.shape[1] - 1)
        if bool(((steps - mean.view(-1, 1)).abs() > levels.abs().amax(1, keepdim=True) * _EVEN).any()):
            raise ModelError("these levels have no common step, so no scale gives them; take codes and levels")
        return torch.where(levels[:, 0] == levels[:, -1], levels[:, 0].abs(), mean)

    @property
    def zero_point(self) -> Tensor:
        """The code of the value 0, float64 [groups]: half-way between two where no level is 0."""
        scale = self.scale
        found = -self.levels[:, 0].detach().double().cpu() / torch.where(scale > 0, scale, torch.ones_like(scale))
        near = (2.0 * found).round() / 2.0
        return torch.where((found - near).abs() <= self.levels.shape[1] * _EVEN, near, found)


class SignedWeights(NamedTuple):
    """weight = scale * (codes - zero_point), up to the rounding of float32.

    `codes` int32 of the weight's shape, `scale` float64 [out] (one number where all outputs share it), `zero_point` 0:
    levels without a 0 (`endpoint`, `midrise`) are odd codes, which take one bit more than there are bits of levels;
    `integer_weights` counts those from the lowest level, in the bits of the spec.
    """

    codes: Tensor
    scale: Tensor
    zero_point: int


@torch.no_grad()
def integer_weights(model: nn.Module) -> dict[str, IntegerWeights]:
    """Codes and levels of every quantized layer: of a prepared model all its levels, else those from least to largest.

    A converted model keeps only the values of its weights: of levels with equal distances those from the lowest to the
    highest in use are given, of others those in use. `signed_weights` gives codes of both signs.

    Raises
    ------
    ModelError
        If the model is in full precision, has weights of its own for each step, or weights that were changed since.

    Examples
    --------
    >>> codes, levels = integer_weights(quantized)["0.0"]  # doctest: +SKIP
    """
    found = {}
    for name, quantizer in weight_quantizers(model):
        weight = original(model.get_submodule(name)).detach()
        found[name] = IntegerWeights(quantizer.codes(weight), quantizer.levels())
    return found or {name: _in_use(weight, setting) for name, weight, setting in _weights(model)}


def signed_weights(model: nn.Module) -> dict[str, SignedWeights]:
    """Signed codes of every quantized layer, also after `convert` and from files.

    Raises
    ------
    ModelError
        If the model is in full precision, or a layer's levels have no common step, as those of LQ-Nets, or one a step.

    Examples
    --------
    >>> signed_weights(quantized)["0.0"].codes  # doctest: +SKIP
    """
    found = {}
    for name, weight, setting in _weights(model):
        codes = codes_on(weight, setting)
        if not codes.exact:
            raise ModelError(
                f"the levels of {name!r} ({setting.describe()}) have no common step, so no scale gives them; "
                "integer_weights gives codes and levels"
            )
        found[name] = SignedWeights(codes.codes.to(torch.int32), _shared(codes), 0)
    return found


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor, WeightSetting]]:
    """Name, values and setting of each layer whose weights are quantized."""
    refuse_part(model)
    choices = list(choices_of_parts(model))
    if not choices:
        raise ModelError("whole numbers are those of a quantized network's weights, this one is in full precision")
    chosen = [(name, choice) for name, choice in choices if choice.target == "weights" and choice.setting is not None]
    if not chosen:
        raise ModelError("this network's weights are in full precision; its spec quantizes other things")
    for name, choice in chosen:
        setting, weight = choice.of(WeightSetting), model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        if setting.time_steps is not None:
            raise ModelError(f"{name!r} ({setting.describe()}) has weights of its own for each step")
        require_levels_of(name, model.get_submodule(name), setting)
        yield name, weight.detach(), setting


def _shared(codes: Codes) -> Tensor:
    return codes.step[:1] if codes.step.unique().numel() == 1 else codes.step


def _levels_in_use(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Values of each row, ascending, `[rows, L]`, and which of them each place holds; rows that use fewer repeat their
    largest."""
    each = [row.unique(return_inverse=True) for row in rows]
    count = max(values.numel() for values, _ in each)
    levels = torch.stack([torch.cat([values, values[-1:].expand(count - values.numel())]) for values, _ in each])
    return levels, torch.stack([place for _, place in each])


def _in_use(weight: Tensor, setting: WeightSetting) -> IntegerWeights:
    """Of a converted layer."""
    found = codes_on(weight, setting)
    span = points(found.codes)
    # zeros of a mask, between levels without a 0, take levels of their own
    if found.exact and len(span) <= 2**setting.stored_bits:
        codes = ((found.codes - span.start) // span.step).clamp(0, len(span) - 1)
        steps = _shared(found)
        if span.step == 2 and not bool(found.codes.flatten(1).any(1).all()):
            # an output of zeros has no level but 0
            steps = found.step * (found.codes != 0).flatten(1).any(1)
        lattice = steps.view(-1, 1) * torch.tensor(span, dtype=torch.float64)
        return IntegerWeights(codes.to(torch.int32), _as_they_are(weight, codes, lattice))
    levels, places = _levels_in_use(rows_of_levels(weight, setting))
    return IntegerWeights(places.view_as(weight).to(torch.int32), levels)


def _as_they_are(weight: Tensor, codes: Tensor, lattice: Tensor) -> Tensor:
    """Levels [groups, L] that the weights are at to the last bit; those that no weight is at are the lattice's."""
    for groups in dict.fromkeys((len(lattice), len(weight))):
        places, values = codes.reshape(groups, -1), weight.reshape(groups, -1)
        levels = lattice.to(weight).expand(groups, -1).scatter(1, places, values)
        if torch.equal(levels.gather(1, places), values):
            break
    return levels
