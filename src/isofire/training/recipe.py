"""What a training run does, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from isofire.errors import SpecError


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting that decides the weights a training run ends with.

    Two runs of one recipe on the same data, machine, device and thread count give the same bits.

    Parameters
    ----------
    epochs
        Passes over the training set.
    batch_size
        Images per step and per process. The images that do not fill a last batch are left out of that epoch; the
        shuffle makes them others in the next.
    optimizer
        `"sgd"` (Nesterov momentum) or `"adamw"` (decoupled decay, beta2 = 0.999, eps = 1e-8).
    lr
        Peak learning rate.
    momentum
        Momentum of SGD, beta1 of AdamW. SGD with `momentum=0.0` is plain SGD.
    weight_decay
        Applied to weights of two and more dimensions, see `decay_norm_and_bias`. Quantizer parameters never decay.
    decay_norm_and_bias
        Also decay parameters of fewer than two dimensions: normalization, biases, neuron constants.
    quantizer_lr
        Factor on the learning rate of parameters that belong to an `isofire.quantizers.Quantizer`.
    warmup_epochs
        Length of the linear warm-up, in epochs; fractions are allowed.
    schedule
        What follows the warm-up: `"cosine"`, `"one_cycle"` (linear fall) or `"constant"`; see `learning_rate`.
    final_lr_fraction
        Fraction of `lr` that cosine and one_cycle fall to.
    label_smoothing
        Probability mass spread evenly over all classes.
    loss
        `"mean_logit"` or `"tet"`; see `isofire.training.losses`.
    clip_norm
        Largest L2 norm of the whole gradient; `None` leaves it alone.
    precision
        `"bf16"` runs the forward pass under autocast; loss, gradients of the weights and updates stay float32.
    channels_last
        Memory layout of images and convolution weights, where the model can be trained in it, see
        `isofire.training.memory_format`.
    pad, flip, cutout
        Augmentation of normalized images, see `isofire.data.Augment`: random crop after padding by `pad` pixels, random
        horizontal flip, side of the square that is cut out. 0 or false switches a part off.
    seed
        Decides shuffle, augmentation and whatever the model draws in training.
    eval_batch_size
        Images per batch of the validation pass.

    Raises
    ------
    SpecError
        If a value has the wrong type or lies out of its range.

    Examples
    --------
    >>> Recipe(epochs=10, lr=0.1).schedule
    'cosine'
    """

    epochs: int
    lr: float
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = False
    quantizer_lr: float = 1.0
    warmup_epochs: float = 1.0
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    final_lr_fraction: float = 0.0
    label_smoothing: float = 0.0
    loss: Literal["mean_logit", "tet"] = "mean_logit"
    clip_norm: float | None = None
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True
    pad: int = 0
    flip: bool = False
    cutout: int = 0
    seed: int = 0
    eval_batch_size: int = 256

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size"):
            _whole(self, name, low=1)
        for name in ("pad", "cutout", "seed"):
            _whole(self, name, low=0)
        for name in ("flip", "channels_last", "decay_norm_and_bias"):
            _truth(self, name)
        for name, allowed in _CHOICES.items():
            _choice(self, name, allowed)
        _number(self, "lr", above=0.0)
        _number(self, "momentum", low=0.0, below=1.0)
        _number(self, "weight_decay", low=0.0)
        _number(self, "quantizer_lr", low=0.0)
        _number(self, "warmup_epochs", low=0.0)
        _number(self, "final_lr_fraction", low=0.0, high=1.0)
        _number(self, "label_smoothing", low=0.0, below=1.0)
        if self.clip_norm is not None:
            _number(self, "clip_norm", above=0.0)
        if self.warmup_epochs > self.epochs:
            raise SpecError(
                f"warmup_epochs must not exceed epochs, got {self.warmup_epochs} of {self.epochs} (recipe); "
                "shorten the warm-up or train longer"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """Read a recipe from a mapping, such as a table of a TOML file.

        Raises
        ------
        SpecError
            If a key is unknown or missing, or a value is of the wrong type or out of range.
        """
        try:
            return msgspec.convert(dict(values), cls)
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, SpecError):
                raise error.__cause__ from None
            raise SpecError(f"recipe: {error}; the settings are {', '.join(cls.__struct_fields__)}") from error


_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "one_cycle", "constant"),
    "loss": ("mean_logit", "tet"),
    "precision": ("float32", "bf16"),
}


def _whole(recipe: Recipe, name: str, *, low: int) -> None:
    value = getattr(recipe, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise SpecError(f"{name} must be a whole number of at least {low}, got {value!r} (recipe); set it so")


def _truth(recipe: Recipe, name: str) -> None:
    value = getattr(recipe, name)
    if not isinstance(value, bool):
        raise SpecError(f"{name} must be true or false, got {value!r} (recipe); set it to one of them")


def _choice(recipe: Recipe, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(recipe, name)
    if value not in allowed:
        raise SpecError(f"{name} must be one of {', '.join(allowed)}, got {value!r} (recipe); choose one of them")


def _number(
    recipe: Recipe,
    name: str,
    *,
    low: float = -math.inf,
    above: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
) -> None:
    value = getattr(recipe, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (low <= value <= high and above < value < below):
        raise SpecError(
            f"{name} must be a number {_interval(low, above, high, below)}, got {value!r} (recipe); set it so"
        )


def _interval(low: float, above: float, high: float, below: float) -> str:
    left = f"above {above:g}" if math.isfinite(above) else f"of at least {low:g}"
    if math.isfinite(high):
        return f"{left} and at most {high:g}"
    return f"{left} and below {below:g}" if math.isfinite(below) else left
