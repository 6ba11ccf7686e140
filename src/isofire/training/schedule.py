"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from isofire.errors import SpecError


def learning_rate(
    step: int,
    total: int,
    *,
    peak: float,
    warmup: float = 0.0,
    schedule: str = "cosine",
    final_fraction: float = 0.0,
) -> float:
    """Give the learning rate of one step.

    Warm-up rises linearly and reaches `peak` with step `ceil(warmup)`: `peak * (step + 1) / warmup`. What follows
    runs over `u = (step - warmup) / (total - warmup)`, clipped to 0..1, so that the end value would be reached by the
    step after the last. With `f = final_fraction`:

    - cosine: `peak * (f + (1 - f) * (1 + cos(pi * u)) / 2)` (Loshchilov and Hutter 2017, equation 5, no restart);
    - one_cycle: `peak * (1 - (1 - f) * u)`, which with the warm-up makes the triangle of Smith and Topin 2019; the
      momentum stays as it is;
    - constant: `peak`.

    Parameters
    ----------
    step
        0 is the first.
    total
        Steps of the whole run.
    peak
        Largest learning rate.
    warmup
        Steps of warm-up, may be a fraction.
    schedule
        `"cosine"`, `"one_cycle"` or `"constant"`.
    final_fraction
        End value over `peak`.

    Raises
    ------
    SpecError
        If `schedule` is unknown or `step` lies outside the run.

    Examples
    --------
    >>> [round(learning_rate(s, 6, peak=1.0, warmup=2), 3) for s in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if not 0 <= step < total:
        raise SpecError(f"step must lie in 0..{total - 1}, got {step} (learning_rate); count from 0")
    if step + 1 < warmup:
        return peak * (step + 1) / warmup
    u = max(0.0, step - warmup) / (total - warmup) if total > warmup else 0.0
    if schedule == "cosine":
        return peak * (final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * u)) / 2)
    if schedule == "one_cycle":
        return peak * (1 - (1 - final_fraction) * u)
    if schedule == "constant":
        return peak
    raise SpecError(
        f"schedule must be one of cosine, one_cycle, constant, got {schedule!r} (learning_rate); choose one"
    )
