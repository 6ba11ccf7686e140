"""What a training run does, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from isofire.conversion import NamedKeys, convert
from isofire.errors import SpecError
from isofire.limits import FLOAT32_MAX, Count, Seed
from isofire.training.losses import Loss, read_loss

Amount = Annotated[float, Meta(ge=0, le=FLOAT32_MAX)]
Positive = Annotated[float, Meta(gt=0, le=FLOAT32_MAX)]
MOST_PIXELS = 4096
"""Far beyond the images of any set here; padding takes memory."""

Share = Annotated[float, Meta(ge=0, lt=1)]


class Recipe(msgspec.Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
        The task's: `"mean_logit"`, `"tet"`, or another registered loss; see `isofire.training.losses`.
    losses
        Further losses that are added to it: name -> weight, or name -> settings, such as
        `{"paired": 1.0, "logits": {"weight": 0.5, "temperature": 4.0}}`. Read back with all their settings.
    clip_norm
        Largest L2 norm of the whole gradient; `None` leaves it alone.
    precision
        `"bf16"` runs the forward pass under autocast; loss, gradients of the weights and updates stay float32.
    channels_last
        Memory layout of images and convolution weights.
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
        If a value has the wrong type or lies out of its range, or a further loss would never count.

    Examples
    --------
    >>> Recipe(epochs=10, lr=0.1).schedule
    'cosine'
    """

    epochs: Count
    lr: Positive
    batch_size: Count = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Share = 0.9
    weight_decay: Amount = 5e-4
    decay_norm_and_bias: bool = False
    quantizer_lr: Amount = 1.0
    warmup_epochs: Amount = 1.0
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    final_lr_fraction: Annotated[float, Meta(ge=0, le=1)] = 0.0
    label_smoothing: Share = 0.0
    loss: str = "mean_logit"
    losses: dict[str, Any] = {}
    clip_norm: Positive | None = None
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True
    pad: Annotated[int, Meta(ge=0, le=MOST_PIXELS)] = 0
    flip: bool = False
    cutout: Annotated[int, Meta(ge=0, le=MOST_PIXELS)] = 0
    seed: Seed = 0
    eval_batch_size: Count = 256

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            convert(getattr(self, field.name), field.type, field.name)
        if self.warmup_epochs > self.epochs:
            raise SpecError(
                f"warmup_epochs must not exceed epochs, got {self.warmup_epochs} of {self.epochs}; "
                "shorten the warm-up or train longer"
            )
        read_loss(self.loss)
        if self.loss in self.losses:
            raise SpecError(f"losses must be further ones, {self.loss!r} is the task's loss already")
        complete = {name: msgspec.to_builtins(read_loss(name, given)) for name, given in self.losses.items()}
        msgspec.structs.force_setattr(self, "losses", complete)
        for name, loss in self.further_losses().items():
            if loss.warmup_epochs >= self.epochs:
                raise SpecError(
                    f"losses.{name}.warmup_epochs must be less than epochs, got {loss.warmup_epochs:g} of "
                    f"{self.epochs}: the loss would never count; shorten its warm-up, train longer or leave it out"
                )

    def further_losses(self) -> dict[str, Loss]:
        """The losses besides the task's, in the recipe's order."""
        return {name: read_loss(name, given) for name, given in self.losses.items()}

    def losses_that_compare(self) -> list[str]:
        """Names of the losses that need a teacher."""
        losses = {self.loss: read_loss(self.loss), **self.further_losses()}
        return [name for name, loss in losses.items() if loss.asks() & {"teacher", "stored", "synops"}]

    def labels(self) -> list[str]:
        """The further losses in short, with the settings that are not the usual ones.

        Examples
        --------
        >>> Recipe(epochs=1, lr=0.1, losses={"emd": {"weight": 2, "cost": "squared"}}).labels()
        ['emd=2(cost=squared)']
        """
        return [_label(name, loss) for name, loss in self.further_losses().items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values that tell one recipe from another; without `losses` where there are none."""
        values = msgspec.to_builtins(self)
        return values if self.losses else {key: value for key, value in values.items() if key != "losses"}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """Read a recipe from a mapping, such as a table of a TOML file.

        Raises
        ------
        SpecError
            If a key is unknown or missing, or a value is of the wrong type or out of range.
        """
        return convert(dict(values), cls)


def _label(name: str, loss: Loss) -> str:
    usual = read_loss(name)
    other = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key in loss.__struct_fields__
        if (value := getattr(loss, key)) != getattr(usual, key) and key != "weight"
    ]
    return f"{name}={loss.weight:g}" + (f"({','.join(other)})" if other else "")
