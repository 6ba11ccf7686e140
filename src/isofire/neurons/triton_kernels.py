"""Neuron dynamics over T steps as Triton kernels: what _kernels.cpp does, in its order of floating-point operations.

A program takes a tile of ITEMS places by CHANNELS channels through all steps, its state in registers. Launches forbid
fused multiply-add (`enable_fp_fusion=False`) and divisions are rounded as IEEE 754 says, so that spikes equal those of
the CPU. Triton compiles a part of Python only; what reads oddly here is what it takes.
Importing this module imports triton.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _tile(items, channels, plane, LAST: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr):
    """This program's tile: offsets within a step, which are inside, rows of the channels' constants, place in sums."""
    across = tl.cdiv(channels, CHANNELS)
    part = tl.program_id(0) // across
    channel = tl.program_id(0) % across * CHANNELS + tl.arange(0, CHANNELS)
    item = (part.to(tl.int64) * ITEMS + tl.arange(0, ITEMS))[:, None]
    known = channel < channels
    inside = (item < items) & known[None, :]
    if LAST:
        offset = item * channels + channel[None, :]
    else:
        offset = (item // plane * channels + channel[None, :]) * plane + item % plane
    # constants of channels that do not exist are read from the first row
    row = tl.where(known, channel, 0)[None, :]
    sums = part.to(tl.int64) * 2 * channels + channel
    return offset, inside, row, sums, known


@triton.jit
def _charged(y, v, tau, reset, CHARGE: tl.constexpr):
    if CHARGE == 0:
        h = v + y
    elif CHARGE == 1:
        h = v + tl.div_rn(y - (v - reset), tau)
    elif CHARGE == 2:
        h = v - tl.div_rn(v - reset, tau) + y
    elif CHARGE == 3:
        h = v + (y - (v - reset)) * tau
    else:
        h = v - (v - reset) * tau + y
    return h


@triton.jit
def _quantized(v, row, first, second, k_min, k_max, rows, BITS: tl.constexpr):
    """On the grid first + second * k (BITS 0), or the level with as many edges `first` below it as lie below v."""
    if BITS == 0:
        origin, step = tl.load(first + row), tl.load(second + row)
        k = tl.div_rn(v - origin, step)
        k = tl.where(k < k_min, k_min, tl.where(k > k_max, k_max, k))
        # rint as two additions, exact for |k| < 2^22
        found = origin + step * ((k + 12582912.0) - 12582912.0)
    else:
        at = row * rows
        place = tl.zeros(v.shape, tl.int32)
        for bit in tl.static_range(BITS):
            half = 1 << (BITS - 1 - bit)
            edge = tl.load(first + at * ((1 << BITS) - 1) + place + (half - 1))
            place += tl.where(v > edge, half, 0)
        found = tl.load(second + at * (1 << BITS) + place)
    return found


@triton.jit
def _after(h, threshold, reset, HARD: tl.constexpr):
    s = tl.where(h >= threshold, 1.0, 0.0)
    return s * reset + (1.0 - s) * h if HARD else h - s * threshold


@triton.jit
def _exp_negative(given):
    """exp(x) for x <= 0 by range reduction and a polynomial: relative error < 2e-7; 0 below -87."""
    x = tl.where(given < -87.0, -87.0, given)
    n = (x * 1.44269504 + 12582912.0) - 12582912.0
    r = (x - n * 0.693359375) + n * 2.12194440e-4
    e = 1.9875691500e-4 * r + 1.3981999507e-3
    e = e * r + 8.3334519073e-3
    e = e * r + 4.1665795894e-2
    e = e * r + 1.6666665459e-1
    e = e * r + 5.0000001201e-1
    e = e * r * r + r + 1.0
    two_n = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(given < -87.0, 0.0, e * two_n)


@triton.jit
def _slope(distance, alpha, SURROGATE: tl.constexpr):
    if SURROGATE == 0:
        e = _exp_negative(-alpha * tl.abs(distance))
        slope = tl.div_rn(alpha * e, (1.0 + e) * (1.0 + e))
    elif SURROGATE == 1:
        u = (1.5707963267948966 * alpha) * distance
        slope = tl.div_rn(alpha, 2.0 * (1.0 + u * u))
    else:
        d = 1.0 - alpha * tl.abs(distance)
        slope = alpha * tl.where(d > 0.0, d, 0.0)
    return slope


@triton.jit
def _input(x, scale, shift, offset, inside, row, NORM: tl.constexpr):
    """The current, and with a norm what it is made of."""
    raw = tl.load(x + offset, mask=inside, other=0.0)
    y = raw
    if NORM:
        y = raw * tl.load(scale + row) + tl.load(shift + row)
    return y, raw


@triton.jit
def _masked(g, raw, row, lo, hi):
    return tl.where((raw >= tl.load(lo + row)) & (raw <= tl.load(hi + row)), g, 0.0)


@triton.jit
def fire(
    x, spikes, counts, scale, shift, decay, first, second,
    items, channels, plane, step_size, steps, tau, threshold, reset, k_min, k_max, rows,
    LAST: tl.constexpr, REPEAT: tl.constexpr, NORM: tl.constexpr, COUNT: tl.constexpr, CHARGE: tl.constexpr,
    HARD: tl.constexpr, PLACE: tl.constexpr, BITS: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Spikes of all steps. PLACE: no membrane quantizer (0), before fire (1), after reset (2)."""
    offset, inside, row, _sums, _known = _tile(items, channels, plane, LAST, ITEMS, CHANNELS)
    if CHARGE >= 3:
        tau = tl.load(decay)
    v = tl.full([ITEMS, CHANNELS], 0.0, tl.float32) + reset
    count = tl.zeros([ITEMS, CHANNELS], tl.int32)
    for _t in range(steps):
        y, _raw = _input(x, scale, shift, offset, inside, row, NORM)
        h = _charged(y, v, tau, reset, CHARGE)
        if PLACE == 1:
            h = _quantized(h, row, first, second, k_min, k_max, rows, BITS)
        tl.store(spikes + offset, tl.where(h >= threshold, 1.0, 0.0), mask=inside)
        if COUNT:
            count += (h >= threshold).to(tl.int32)
        v = _after(h, threshold, reset, HARD)
        if PLACE == 2:
            v = _quantized(v, row, first, second, k_min, k_max, rows, BITS)
        if not REPEAT:
            x += step_size
        spikes += step_size
    if COUNT:
        tl.store(counts + offset, count.to(tl.uint8), mask=inside)


@triton.jit
def fire_backward(
    x, grad_spikes, grad_in, sums, decay_sums, scale, shift, mean, decay, first, second, lo, hi,
    items, channels, plane, step_size, tau, threshold, reset, alpha, k_min, k_max, rows,
    STEPS: tl.constexpr, LAST: tl.constexpr, REPEAT: tl.constexpr, NORM: tl.constexpr, CHARGE: tl.constexpr,
    HARD: tl.constexpr, DETACH: tl.constexpr, PLACE: tl.constexpr, CLIPPED: tl.constexpr, BITS: tl.constexpr,
    SURROGATE: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient at the neuron's input, and each tile's sums for a norm's and a learned decay's. Membranes are recomputed
    and kept in registers: before the quantizer of PLACE 1, since all else of a step follows from them."""
    offset, inside, row, where_sums, known = _tile(items, channels, plane, LAST, ITEMS, CHANNELS)
    if CHARGE >= 3:
        tau = tl.load(decay)
    # a step's place may lie beyond 2^31
    step_size = tl.cast(step_size, tl.int64)
    rest = tl.full([ITEMS, CHANNELS], 0.0, tl.float32) + reset
    held = ()
    v = rest
    for t in tl.static_range(STEPS):
        y, _ = _input(x + (0 if REPEAT else t) * step_size, scale, shift, offset, inside, row, NORM)
        h = _charged(y, v, tau, reset, CHARGE)
        held = held + (h,)  # noqa: RUF005 - no unpacking in Triton
        if PLACE == 1:
            h = _quantized(h, row, first, second, k_min, k_max, rows, BITS)
        v = _after(h, threshold, reset, HARD)
        if PLACE == 2:
            v = _quantized(v, row, first, second, k_min, k_max, rows, BITS)
    g = tl.zeros([ITEMS, CHANNELS], tl.float32)
    total = tl.zeros([ITEMS, CHANNELS], tl.float64)
    cross = tl.zeros([ITEMS, CHANNELS], tl.float64)
    drive = tl.zeros([ITEMS, CHANNELS], tl.float64)
    repeated = tl.zeros([ITEMS, CHANNELS], tl.float32)
    for back in tl.static_range(STEPS):
        y, raw = _input(x + (0 if REPEAT else STEPS - 1 - back) * step_size, scale, shift, offset, inside, row, NORM)
        gs = tl.load(grad_spikes + (STEPS - 1 - back) * step_size + offset, mask=inside, other=0.0)
        h = held[STEPS - 1 - back]
        if PLACE == 1:
            h = _quantized(h, row, first, second, k_min, k_max, rows, BITS)
        slope = _slope(h - threshold, alpha, SURROGATE)
        if PLACE == 2 and CLIPPED:
            g = _masked(g, _after(h, threshold, reset, HARD), row, lo, hi)
        kept = g
        if HARD:
            kept = tl.where(h >= threshold, 0.0, g)
        if DETACH:
            g = kept + gs * slope
        elif HARD:
            g = kept + (gs + g * (reset - h)) * slope
        else:
            g = kept + (gs - g * threshold) * slope
        if PLACE == 1 and CLIPPED:
            g = _masked(g, held[STEPS - 1 - back], row, lo, hi)
        if CHARGE >= 3:
            before = rest
            if back < STEPS - 1:
                before = held[STEPS - 2 - back]
                if PLACE == 1:
                    before = _quantized(before, row, first, second, k_min, k_max, rows, BITS)
                before = _after(before, threshold, reset, HARD)
                if PLACE == 2:
                    before = _quantized(before, row, first, second, k_min, k_max, rows, BITS)
            leak = before - reset
            if CHARGE == 3:
                leak = leak - y
            drive -= g.to(tl.float64) * leak.to(tl.float64)
        if CHARGE == 0:
            lost = g
        elif CHARGE <= 2:
            lost = tl.div_rn(g, tau)
        else:
            lost = g * tau
        gx = g
        if CHARGE == 1 or CHARGE == 3:
            gx = lost
        if CHARGE > 0:
            g = g - lost
        if REPEAT:
            repeated += gx
        else:
            tl.store(grad_in + (STEPS - 1 - back) * step_size + offset, gx, mask=inside)
            if NORM:
                total += gx.to(tl.float64)
                cross += gx.to(tl.float64) * (raw - tl.load(mean + row)).to(tl.float64)
    if REPEAT:
        tl.store(grad_in + offset, repeated, mask=inside)
        if NORM:
            y, raw = _input(x, scale, shift, offset, inside, row, NORM)
            total = repeated.to(tl.float64)
            cross = total * (raw - tl.load(mean + row)).to(tl.float64)
    if NORM:
        tl.store(sums + where_sums, tl.sum(total, 0), mask=known)
        tl.store(sums + where_sums + channels, tl.sum(cross, 0), mask=known)
    if CHARGE >= 3:
        tl.store(decay_sums + tl.program_id(0), tl.sum(tl.sum(tl.where(inside, drive, 0.0), 0), 0))


@triton.jit
def moments(x, sums, items, channels, plane, LAST: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr):
    """Each tile's sums of x and of its squares, a pair of rows [channels] in float64."""
    offset, inside, _, where_sums, known = _tile(items, channels, plane, LAST, ITEMS, CHANNELS)
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float64)
    tl.store(sums + where_sums, tl.sum(value, 0), mask=known)
    tl.store(sums + where_sums + channels, tl.sum(value * value, 0), mask=known)


@triton.jit
def combine(g, x, a, b, c, items, channels, plane, LAST: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr):
    """In place: g = a[c] * g + (b[c] * x + c[c]), the second pass of batch norm's backward."""
    offset, inside, row, _, _ = _tile(items, channels, plane, LAST, ITEMS, CHANNELS)
    value = tl.load(b + row) * tl.load(x + offset, mask=inside, other=0.0) + tl.load(c + row)
    tl.store(g + offset, tl.load(a + row) * tl.load(g + offset, mask=inside, other=0.0) + value, mask=inside)
