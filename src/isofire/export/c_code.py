"""Statements of C: pools, sums of weights, and the neuron's step, in the order of the reference."""

from __future__ import annotations

from torch import Tensor

from isofire.errors import ModelError
from isofire.export.c_layer import Layer, pooled, spike_bits, state_bits
from isofire.integer import DecayRule
from isofire.integer.connection import SumPool

TABLE = """/* The bin that u lies in: as many edges lie below it. */
static int32_t bin_of(const int64_t *edges, int32_t count, int64_t u) {
    int32_t low = 0, high = count - 1;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (edges[middle] < u) low = middle + 1; else high = middle;
    }
    return low;
}
"""
PACKED = """/* The nth number of so many bits, 16 at the most. */
static uint32_t packed(const uint8_t *from, int32_t n, int bits) {
    const uint32_t at = (uint32_t)n * (uint32_t)bits;
    from += at >> 3;
    const uint32_t three = from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16;
    return three >> (at & 7) & ((UINT32_C(1) << bits) - 1);
}

static void pack(uint8_t *to, int32_t n, int bits, uint32_t value) {
    const uint32_t at = (uint32_t)n * (uint32_t)bits;
    const uint32_t mask = ((UINT32_C(1) << bits) - 1) << (at & 7), moved = value << (at & 7);
    to += at >> 3;
    for (int k = 0; k < 3; k++) to[k] = (uint8_t)((to[k] & ~(mask >> 8 * k)) | (moved >> 8 * k));
}
"""
FLOOR_SHIFT = """/* floor(x / 2^bits) */
static int64_t floor_shift(int64_t x, int bits) {
    return x >= 0 ? x >> bits : -((-x + (((int64_t)1 << bits) - 1)) >> bits);
}
"""
JOINED = """/* (high 2^16 + low) 2^shift, rounded to the nearest; the sum itself may be wider than 64 bits. */
static int64_t joined(int64_t high, int64_t low, int shift) {
    if (shift >= 0) return (high * 65536 + low) * ((int64_t)1 << shift);
    if (shift >= -16)
        return high * ((int64_t)1 << (16 + shift)) + floor_shift(low + ((int64_t)1 << (-shift - 1)), -shift);
    return floor_shift(high + floor_shift(low, 16) + ((int64_t)1 << (-shift - 17)), -shift - 16);
}
"""
HELPERS = f"{FLOOR_SHIFT}\n{JOINED}\n{TABLE}\n{PACKED}"


def pool_of(pool: SumPool, shape: tuple[int, ...], here: str, there: str, kind: str) -> str:
    """A sum over windows."""
    size = pool.size or (shape[1], shape[2])
    (sy, sx), (py, px) = pool.stride, pool.padding
    high, wide = pooled(shape, pool)
    return f"""    for (int32_t c = 0; c < {shape[0]}; c++)
        for (int32_t y = 0; y < {high}; y++)
            for (int32_t x = 0; x < {wide}; x++) {{
                {kind} sum = 0;
                for (int32_t i = 0; i < {size[0]}; i++)
                    for (int32_t j = 0; j < {size[1]}; j++) {{
                        const int32_t row = y * {sy} + i - {py}, column = x * {sx} + j - {px};
                        if (row >= 0 && row < {shape[1]} && column >= 0 && column < {shape[2]})
                            sum = ({kind})(sum + {here}[(c * {shape[1]} + row) * {shape[2]} + column]);
                    }}
                {there}[(c * {high} + y) * {wide} + x] = sum;
            }}"""


def dense(layer: Layer, here: str) -> str:
    """A dense layer, and its neurons."""
    k = layer.index
    outputs, inputs = layer.to.weight.shape
    inner = f"""        {_none(layer)}
        const int32_t c = o, n = o;
        for (int32_t i = 0; i < {inputs}; i++) {_added(layer, f"w{k}[o * {inputs} + i]", f"{here}[i]")}
"""
    if layer.back is not None:
        inner += f"""        int64_t back = 0;
        for (int32_t i = 0; i < {outputs}; i++) back += (int64_t)wb{k}[o * {outputs} + i] * state->p{k}[i];
"""
    return f"    for (int32_t o = 0; o < {outputs}; o++) {{\n{inner}{_update(layer, 8)}    }}"


def conv(layer: Layer, shape: tuple[int, ...], here: str) -> str:
    """A convolution, and its neurons."""
    to = layer.to
    assert layer.part is not None
    outputs, inputs, kernel_y, kernel_x = to.weight.shape
    _, high, wide = layer.part.shape
    (sy, sx), (py, px), (dy, dx) = to.stride, to.padding, to.dilation
    return f"""    for (int32_t c = 0; c < {outputs}; c++)
        for (int32_t y = 0; y < {high}; y++)
            for (int32_t x = 0; x < {wide}; x++) {{
                {_none(layer)}
                const int32_t n = (c * {high} + y) * {wide} + x, from = c / {outputs // to.groups} * {inputs};
                for (int32_t g = 0; g < {inputs}; g++)
                    for (int32_t i = 0; i < {kernel_y}; i++)
                        for (int32_t j = 0; j < {kernel_x}; j++) {{
                            const int32_t row = y * {sy} + i * {dy} - {py}, column = x * {sx} + j * {dx} - {px};
                            if (row < 0 || row >= {shape[1]} || column < 0 || column >= {shape[2]}) continue;
                            const int32_t w = ((c * {inputs} + g) * {kernel_y} + i) * {kernel_x} + j;
                            const int32_t at = ((from + g) * {shape[1]} + row) * {shape[2]} + column;
                            {_added(layer, f"w{layer.index}[w]", f"{here}[at]")}
                        }}
{_update(layer, 16)}            }}"""


def _none(layer: Layer) -> str:
    """Sums that nothing has been added to."""
    return f"int64_t {'high = 0, low = 0' if layer.to.is_rounded else 'sum = 0'};"


def _added(layer: Layer, weight: str, x: str) -> str:
    """Adds a product, in halves where sums are wider than 64 bits until they are rounded."""
    if layer.to.is_rounded:
        return f"high += (int64_t){weight} * ({x} / 65536), low += (int64_t){weight} * ({x} % 65536);"
    return f"sum += (int64_t){weight} * {x};"


def held(layer: Layer, value: str) -> str:
    """Ends the step where the reference refuses a number: it is beyond the state's width."""
    assert layer.part is not None
    half = 1 << (layer.part.rules.state_bits - 1)
    return f"if ({value} < -INT64_C({half}) || {value} > INT64_C({half - 1})) return state->error = {layer.index + 1};"


def _arriving(layer: Layer) -> str:
    """What arrives at a neuron, without its bias."""
    k = layer.index
    sums = f"joined(high, low, shift{k}[c])" if layer.to.is_rounded else f"sum * ((int64_t)1 << shift{k}[c])"
    sums += "" if layer.to.factor is None else f" * factor{k}[c]"
    back = "" if layer.back is None else f" + back * factor{k}[c]"
    return f"{sums}{back}"


def _update(layer: Layer, indent: int) -> str:
    """The neuron's step, in the order of the reference."""
    k, part, arriving = layer.index, layer.part, _arriving(layer)
    if part is None:
        lines = [f"output[n] = {arriving} + bias{k}[c];"]
    else:
        before = f"(int64_t)state->v{k}[n]" if layer.index_bits is None else f"membrane{k}(state, n)"
        decays = {kind: _decayed(layer, kind, rule, decay) for kind, rule, decay in layer.decays}
        kept = decays.get("v", "{}").format(before)
        if layer.has_current:
            lines = [*_current(layer, arriving, decays["i"]), f"int64_t u = {kept} + used;"]
        else:
            lines = [f"const int64_t arrives = {arriving};", held(layer, "arrives")]
            lines.append(f"int64_t u = {kept} + arrives + bias{k}[c];")
        lines.append(held(layer, "u"))
        table = part.table
        mapped = [] if table is None else _mapped(k, table.levels)
        if table is not None and table.placement == "pre_fire":
            lines += mapped
        most = part.most_spikes
        fired = "1" if most == 1 else f"(int32_t)(u / th{k}[c])"
        if layer.most is not None:
            lines.append(f"if (u / th{k}[c] > {layer.most}) return state->error = {k + 1};")
        lines.append(f"const int32_t fired = u >= th{k}[c] ? {fired} : 0;")
        if most not in (None, 1):
            raise ModelError(f"{layer.name!r} fires at most {most} spikes a step; a C program knows 1 or any number")
        subtracted = f"th{k}[c]" if part.subtract is None else f"subtract{k}[c]"
        lines.append(f"u -= (int64_t)fired * {subtracted};" if part.reset_to == "subtract" else "if (fired) u = 0;")
        if part.floor is not None:
            lines.append(f"if (u < floor{k}[c]) u = floor{k}[c];")
        if table is not None and table.placement == "post_reset":
            lines += mapped
        lines.append(held(layer, "u"))
        if layer.index_bits is None:
            lines.append(f"state->v{k}[n] = (int{state_bits(part)}_t)u;")
        else:
            lines.append(f"pack(state->v{k}, n, {layer.index_bits}, (uint32_t)bin);")
        lines.append(f"state->s{k}[n] = (uint{spike_bits(part)}_t)fired;")
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


def _mapped(k: int, levels: Tensor) -> list[str]:
    rows, count = levels.shape
    edge, level = ("", "bin") if rows == 1 else (f" + c * {count - 1}", f"c * {count} + bin")
    return [f"const int32_t bin = bin_of(edges{k}{edge}, {count}, u);", f"u = levels{k}[{level}];"]


def membrane(layer: Layer, state: str) -> str:
    """The function that gives a membrane which is kept as its level's number; `state`: the type."""
    k, part = layer.index, layer.part
    assert part is not None
    assert part.table is not None
    rows, count = layer.left.shape
    table = "levels" if part.table.placement == "post_reset" else "left"
    at = "" if rows == 1 else f"n / {part.size // part.shape[0]} * {count} + "
    return f"""static int64_t membrane{k}(const {state} *state, int32_t n) {{
    return state->ran ? {table}{k}[{at}(int32_t)packed(state->v{k}, n, {layer.index_bits})] : 0;
}}
"""


def _decayed(layer: Layer, kind: str, rule: DecayRule, decay: Tensor) -> str:
    """What a state "{}" becomes in a step."""
    parts = 2**rule.bits
    kept = str(parts - int(decay)) if decay.numel() == 1 else f"({parts} - lost_{kind}{layer.index}[c])"
    return f"floor_shift({{}} * {kept} + {1 << (rule.bits - 1)}, {rule.bits})"


def _current(layer: Layer, arriving: str, decayed: str) -> list[str]:
    """The synaptic current, to which biases come as inputs do."""
    assert layer.part is not None
    rules, kept_as, bias = layer.part.rules, f"state->i{layer.index}[n]", f"bias{layer.index}[c]"
    if rules.bias_into != "current":
        raise ModelError(f"{layer.name!r} has biases behind its currents; a C program adds them with the inputs")
    before = f"(int64_t){kept_as}"
    start = before if rules.synapse == "after" else decayed.format(before)
    lines = [f"int64_t left = {start} + {arriving};", held(layer, "left"), f"left += {bias};", held(layer, "left")]
    match rules.synapse:
        case "before":
            lines.append("const int64_t used = left;")
        case "after":
            lines += [f"left = {decayed.format('left')};", "const int64_t used = left;"]
        case _:
            lines.append(f"const int64_t used = {before};")
    return [*lines, f"{kept_as} = (int{state_bits(layer.part)}_t)left;"]
