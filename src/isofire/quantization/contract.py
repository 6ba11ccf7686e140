"""Whether a quantizer, whoever wrote it, does what `Quantizer` promises: tried once, before its numbers are used.

What fails here would else be a number that is quietly wrong: states that broadcast, weights that are NaN or lie on none
of the levels that files, costs and chips are told. A training step or a step of a neuron tries nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import adapter_of
from isofire.errors import IsofireError, ModelError, SpecError
from isofire.quantization.fake_weights import original, weight_quantizers
from isofire.quantization.plan import LayerAssignment, QuantPlan
from isofire.quantizers import (
    ConstantSetting,
    Levels,
    MembraneSetting,
    Quantizer,
    RangeObserver,
    Setting,
    TemporalQuantizer,
    WeightSetting,
)
from isofire.quantizers.setting import built
from isofire.running import evaluating, forked
from isofire.running.call import is_lacking

_FORWARD = "forward must return one tensor, each element at its level, with the shape, dtype and device of its input"
_LEVELS = "levels() must return float32 [G, L], ascending and finite, G being 1 or the number of channels"


def build(choice: LayerAssignment, make: Callable[[Setting], object]) -> Quantizer:
    """The quantizer that a choice's setting makes.

    Raises
    ------
    SpecError
        If it makes none, or one that does not fit what it is for; the layer and the rule are named.
    """
    setting = choice.of(Setting)
    try:
        quantizer = built(setting, lambda: make(setting))
        _require_fit(setting, quantizer)
    except SpecError as error:
        raise SpecError(f"{error} (layer {choice.name!r}, rule {choice.rule!r})") from error
    return quantizer


def try_weights(choice: LayerAssignment, quantizer: Quantizer, weight: Tensor, written: Tensor | None = None) -> None:
    """Try a calibrated quantizer on the weights of its layer.

    Parameters
    ----------
    weight
        `[C_out, ...]`.
    written
        What the layer makes of them, if that is known.

    Raises
    ------
    ModelError
        Names the rule that is broken, the value, layer, method and class, and the cure.
    """
    _Trial(choice, quantizer).on(weight.detach(), written)


def try_states(choice: LayerAssignment, quantizer: Quantizer, observer: RangeObserver | None = None) -> None:
    """Try a calibrated quantizer of membranes on states that were observed, in their shape; else on states around its
    levels.

    Raises
    ------
    ModelError
        As `try_weights`.
    """
    trial = _Trial(choice, quantizer)
    trial.require_ready()
    seen = observer is not None and observer.count > 0
    trial.on(observer.images() if observer is not None and seen else _around(trial.levels()))


def try_round(choice: LayerAssignment, values: Tensor, **about: bool) -> Tensor:
    """What a method of constants makes of decays, thresholds or biases.

    Raises
    ------
    ModelError
        If that fails, is of another shape, dtype or device, or not finite.
    """
    setting = choice.of(ConstantSetting)
    with torch.no_grad(), own_code(choice, setting, "round"):
        found = setting.round(values, **about)
    alike = isinstance(found, Tensor) and (found.shape, found.dtype, found.device) == _kind(values)
    if not alike or not bool(found.isfinite().all()):
        raise ModelError(
            f"{type(setting).__name__}.round gives {_bad(found) if alike else _about(found)} for {_about(values)}; it "
            f"must return finite numbers of the same shape, dtype and device {_place(choice)}"
        )
    return found


def _kind(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device


def try_gradients(model: nn.Module, plan: QuantPlan) -> None:
    """Try whether calibrated quantizers let gradients through, as training needs it; the quantizers stay as they are.

    Raises
    ------
    ModelError
        Names layer, method and class.
    """
    held = dict(weight_quantizers(model))
    for choice in plan.choices:
        layer = model.get_submodule(choice.name) if choice.setting is not None else None
        if choice.target == "weights" and choice.name in held and layer is not None:
            full = original(layer)
            if full.requires_grad and held[choice.name]._is_ready():
                _Trial(choice, held[choice.name]).gradient(full.detach())
        elif choice.target == "membrane" and layer is not None:
            adapter = adapter_of(layer)
            membrane = None if adapter is None else adapter.membrane(layer)
            if membrane is not None and membrane.quantizer._is_ready():
                trial = _Trial(choice, membrane.quantizer)
                trial.gradient(_around(trial.levels()))


@contextmanager
def own_code(choice: LayerAssignment, owner: object, name: str) -> Iterator[None]:
    """What fails inside is told as a fault of a method's own function; errors that isofire raises stay as they are."""
    try:
        yield
    except (IsofireError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if is_lacking(error):
            raise
        raise ModelError(
            f"{type(owner).__name__}.{name} fails: {type(error).__name__}: {error}; mend it {_place(choice)}"
        ) from error


def _place(choice: LayerAssignment) -> str:
    assert choice.setting is not None
    return f"(layer {choice.name!r}, rule {choice.rule!r}, {choice.target} method {choice.setting.method!r})"


def _require_fit(setting: Setting, quantizer: Quantizer) -> None:
    method, kind = setting.method, type(quantizer).__name__
    axis, where = (0, "weights [C_out, ...]") if isinstance(setting, WeightSetting) else (1, "membranes [N, C, ...]")
    if quantizer.axis not in (None, axis):
        raise SpecError(
            f"channels of {where} lie on axis {axis}, the {kind} of {method!r} has channel_axis={quantizer.axis}; "
            f"build it with channel_axis={axis}"
        )
    steps = setting.time_steps if isinstance(setting, WeightSetting) else None
    if isinstance(quantizer, TemporalQuantizer) != (steps is not None):
        raise SpecError(
            f"a method with time_steps builds a TemporalQuantizer, others do not; {method!r} has time_steps={steps} "
            f"and builds a {kind}; mend either"
        )
    if isinstance(setting, MembraneSetting) and setting.chosen_by_firing and not isinstance(quantizer, Levels):
        raise SpecError(f"levels chosen by firing are those of a Levels, {method!r} builds a {kind}; build a Levels")


class _Trial:
    """A quantizer, tried for one layer."""

    def __init__(self, choice: LayerAssignment, quantizer: Quantizer) -> None:
        self.choice, self.quantizer = choice, quantizer

    def broken(self, function: str, does: str, rule: str) -> ModelError:
        return ModelError(f"{type(self.quantizer).__name__}.{function} {does}; {rule} {_place(self.choice)}")

    def call(self, function: str, *given: Tensor) -> Any:
        with own_code(self.choice, self.quantizer, function):
            # forward as networks call it, with its hooks
            return self.quantizer(*given) if function == "forward" else getattr(self.quantizer, function)(*given)

    def require_ready(self) -> None:
        if not bool(self.quantizer.calibrated):
            fixed = isinstance(self.choice.setting, MembraneSetting) and not self.choice.setting.is_estimated
            where, cure = ("__init__", "pass calibrated=True on") if fixed else ("calibrate", "end with _mark_ready()")
            raise self.broken(where, "leaves `calibrated` False", f"{cure}, so that files know that it has its levels")

    @torch.no_grad()
    def on(self, x: Tensor, q: Tensor | None = None) -> None:
        self.require_ready()
        with evaluating(self.quantizer), forked(x.device):
            q = self.call("forward", x) if q is None else q
            like = self.like(q, x)
            assert q is not None
            codes, levels = self.call("codes", x), self.levels()
        if not isinstance(codes, Tensor) or codes.dtype != torch.int32 or codes.shape != like:
            raise self.broken("codes", f"gives {_about(codes)}", f"it must return int32 codes of shape {tuple(like)}")
        self.compare(*_grouped(self.quantizer, x, q, codes), levels)

    def like(self, q: object, x: Tensor) -> torch.Size:
        """The shape that `q` must have; refuses another, and another type, dtype or device."""
        temporal = self.quantizer if isinstance(self.quantizer, TemporalQuantizer) else None
        shape = x.shape if temporal is None else torch.Size([temporal.steps, *x.shape])
        if not isinstance(q, Tensor) or (q.shape, q.dtype, q.device) != (shape, x.dtype, x.device):
            raise self.broken("forward", f"gives {_about(q)} for {_about(x)}", _FORWARD)
        return shape

    def levels(self) -> Tensor:
        """`[G, L]`; `[T * C, L]` of those that change with the step."""
        levels = self.call("levels")
        timed = isinstance(self.quantizer, TemporalQuantizer)
        if not isinstance(levels, Tensor) or levels.dtype != torch.float32 or levels.ndim != 2 + timed:
            raise self.broken("levels", f"gives {_about(levels)}", _LEVELS)
        levels = levels.detach().flatten(0, -2)
        own, most = self.quantizer.granularity == "channel", 2 ** self.choice.of(Setting).stored_bits
        if not own and len(levels) != 1:
            raise self.broken("levels", f"gives {len(levels)} rows with granularity 'tensor'", _LEVELS)
        if not 2 <= levels.shape[1] <= most:
            raise self.broken(
                "levels",
                f"gives {levels.shape[1]} a row",
                f"codes of its bits={self.quantizer.bits:g} tell 2 to {most} apart",
            )
        if not bool(levels.isfinite().all()):
            raise self.broken("levels", f"gives {_bad(levels)}", _LEVELS)
        if bool((levels.diff(dim=1) < 0).any()):
            raise self.broken("levels", f"gives {levels[0, :8].tolist()}", _LEVELS)
        return levels

    def compare(self, x: Tensor, q: Tensor, codes: Tensor, levels: Tensor) -> None:
        """Rows `[G, n]` of values, what forward made of them, and their codes."""
        if len(levels) not in (1, len(q)):
            raise self.broken("levels", f"gives {len(levels)} rows for {len(q)} channels", _LEVELS)
        if not q.numel():
            return
        low, high = (int(end) for end in codes.aminmax())
        if low < 0 or high >= levels.shape[1]:
            raise self.broken("codes", f"gives {low} to {high}", f"there are {levels.shape[1]} levels, from 0 on")
        levels = levels.expand(len(q), -1).to(q.dtype)
        at = levels.gather(1, codes.long())
        if not torch.equal(at, q):
            raise self.off(q, at, codes, levels)
        if self.choice.target == "membrane" and self.quantizer.is_fixed:
            falls = codes.gather(1, x.argsort(1)).diff(dim=1) < 0
            if bool(falls.any()):
                raise self.broken(
                    "codes", "falls where the value rises", "with is_fixed they may not; sort, or leave is_fixed False"
                )

    def off(self, q: Tensor, at: Tensor, codes: Tensor, levels: Tensor) -> ModelError:
        """Why the values are not those of their codes."""
        if not bool(q.isfinite().all()):
            return self.broken("forward", f"gives {_bad(q)}", _FORWARD)
        row, place = (int(index) for index in (at != q).nonzero()[0])
        value, own = q[row, place], levels[row]
        if not bool((own == value).any()):
            near = own[(own - value).abs().argmin()]
            where = f"the nearest is {near:.9g}; {int((at != q).sum())} of {q.numel()} values are off"
            return self.broken(
                "forward",
                f"gives {value:.9g}, which is none of its levels() ({where})",
                "return levels; of straight-through gradients isofire.quantizers.ste keeps every bit of them",
            )
        return self.broken(
            "codes",
            f"says level {int(codes[row, place])}, {at[row, place]:g}, where forward gives {value:g}",
            "both must be the same level",
        )

    def gradient(self, x: Tensor) -> None:
        """Refuse a training forward through which no gradient reaches `x`."""
        twin, x = copy.deepcopy(self.quantizer).train(), x.clone().requires_grad_()
        with torch.enable_grad(), forked(x.device):
            with own_code(self.choice, self.quantizer, "forward"):
                q = twin(x)
            self.like(q, x)
            found = torch.autograd.grad(q.sum(), x, allow_unused=True)[0] if q.requires_grad else None
        if found is None or not bool(found.any()) or not bool(found.isfinite().all()):
            what = "no gradient" if found is None else "a gradient of 0" if not bool(found.any()) else _bad(found)
            raise self.broken(
                "forward",
                f"passes {what} on, so nothing before it would train",
                "return isofire.quantizers.ste.plain(x, levels) for a straight-through gradient, or use the method "
                "after training only",
            )


def _grouped(quantizer: Quantizer, x: Tensor, q: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each as rows of what shares levels."""
    if isinstance(quantizer, TemporalQuantizer):
        return x.flatten(1), q.flatten(0, 1).flatten(1), codes.flatten(0, 1).flatten(1)
    axis = quantizer.axis
    rows = [part.reshape(1, -1) if axis is None else part.movedim(axis, 0).flatten(1) for part in (x, q, codes)]
    return rows[0], rows[1], rows[2]


def _around(levels: Tensor) -> Tensor:
    """States `[N, C]` at, between and beyond levels `[G, L]`."""
    low, high = levels[:, :1], levels[:, -1:]
    share = torch.linspace(-0.25, 1.25, 64, device=levels.device)
    states = torch.cat([levels, low + (high - low) * share], 1).T
    return states.expand(-1, max(2, states.shape[1])).contiguous()


def _about(value: object) -> str:
    if isinstance(value, Tensor):
        place = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}{place}"
    return "None" if value is None else f"a {type(value).__name__}"


def _bad(values: Tensor) -> str:
    return f"{int((~values.isfinite()).sum())} NaN or infinite values among {values.numel()}"
