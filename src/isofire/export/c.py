"""An integer network as a C99 program: one header and one file, without malloc and without floating point.

`NAME_reset` brings a state to rest, `NAME_step` takes the codes of one step's input and gives the readout (or the last
layer's spikes). `NAME_test.c` holds golden vectors: it runs them and says where the first number differs. Shifts right
of negative numbers and overflow of signed ones, which C leaves open, are not used; states have the width they need.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from isofire.errors import ModelError, SpecError
from isofire.export.folder import write_folder
from isofire.integer import INPUT, READOUT, Connection, IntegerNetwork, Population
from isofire.integer.connection import SumPool


def write_c(path: str | os.PathLike[str], network: IntegerNetwork, codes: Tensor, name: str = "network") -> Path:
    """Write a folder with NAME.h, NAME.c and NAME_test.c; whole, or not at all.

    Parameters
    ----------
    network
        As `lower` gives it: sums of a step's spikes without delay, states that do not overflow.
    codes
        Input codes [T, N, ...] for the golden vectors.
    name
        Begins every name of the program.

    Raises
    ------
    ModelError
        If the network has neurons of other rules, or delays.
    SpecError
        If `name` is no name in C.
    OutputError
        If the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecError(f"a name in C has small letters, digits and _, got {name!r}")
    program = _Program(network, name)
    files = {f"{name}.h": program.header(), f"{name}.c": program.source(), f"{name}_test.c": program.test(codes)}

    def fill(folder: Path) -> None:
        for file, text in files.items():
            (folder / file).write_text(text, encoding="ascii")

    return write_folder(path, fill)


@dataclass(frozen=True)
class _Layer:
    """A layer of neurons, or the readout (`part` None), with what leads to it."""

    index: int
    name: str
    part: Population | None
    to: Connection
    shapes: tuple[tuple[int, ...], ...]

    @property
    def reads_one(self) -> bool:
        """Whether its weights see the spikes of one layer, or the input, as they are."""
        return len(self.to.sources) == 1 and not self.to.pools

    @property
    def maps(self) -> tuple[int, ...]:
        """Shape of what arrives at the weights."""
        shape = self.shapes[0]
        for pool in self.to.pools:
            shape = (shape[0], *_pooled(shape, pool))
        return shape


class _Program:
    def __init__(self, network: IntegerNetwork, name: str) -> None:
        self.network, self.name = network, name
        self.shapes = {INPUT: network.input_shape} | {n: p.shape for n, p in network.populations.items()}
        self.place = {n: index for index, n in enumerate(network.order)}
        self.layers = [self._layer(index, n, part) for index, (n, part) in enumerate(network.populations.items())]
        if network.readout is not None:
            self.layers.append(self._layer(len(self.layers), READOUT, None))
        self.outputs = self.layers[-1].to.weight.shape[0] if network.readout else prod(self.shapes[network.order[-1]])
        gathered = [layer for layer in self.layers if not layer.reads_one]
        self.scratch = max((prod(s) for layer in gathered for s in (*layer.shapes, layer.maps)), default=0)
        self.scratch_width = max((_signed(self._arriving(layer)) for layer in gathered), default=8)

    def _layer(self, index: int, name: str, part: Population | None) -> _Layer:
        links = [link for link in self.network.connections if link.target == name]
        if len(links) != 1 or links[0].delay:
            raise ModelError(f"a C program takes one connection without delay to each layer; {name!r} has others")
        if part is not None:
            rules = part.rules
            plain = rules.synapse == "none" and rules.increment == "whole" and rules.deliver == "sum"
            if not plain or rules.compare != ">=" or rules.threshold_shift or rules.overflow != "refuse":
                raise ModelError(f"a C program is written of lowered networks; {name!r} has the rules of a chip")
            if rules.decay is not None and rules.decay.rounding != "nearest":
                raise ModelError(f"the decay of {name!r} rounds by {rules.decay.rounding!r}, not to the nearest")
        self._check_arriving(name, links[0])
        return _Layer(index, name, part, links[0], tuple(self.shapes[source] for source in links[0].sources))

    def _check_arriving(self, name: str, link: Connection) -> None:
        """What arrives is added in 32 bits."""
        encoder = self.network.encoder
        if INPUT not in link.sources or encoder is None:
            return
        places = prod(prod(pool.size or self.network.input_shape[1:]) for pool in link.pools)
        if (2 ** (encoder.bits - 1)) * places * len(link.sources) >= 2**31:
            raise ModelError(
                f"pooled inputs of {encoder.bits} bits into {name!r} need over 32; lower with fewer input_bits"
            )

    def _arriving(self, layer: _Layer) -> int:
        """The largest number that its sources and pools add up to."""
        most = 0
        for source in layer.to.sources:
            encoder = self.network.encoder
            given = 2 ** (encoder.bits - 1) - 1 if encoder is not None else 2**31 - 1
            most += given if source == INPUT else _most_spikes(self.network.populations[source])
        for pool in layer.to.pools:
            most *= prod(pool.size or layer.shapes[0][1:])
        return min(most, 2**31 - 1)

    def header(self) -> str:
        """NAME.h."""
        name, upper = self.name, self.name.upper()
        fields = []
        state_bytes = 2 * self.scratch_width // 8 * self.scratch
        for layer in self.layers:
            if layer.part is None:
                continue
            size, wide = prod(layer.part.shape), _state(layer.part)
            fields += [
                f"    int{wide}_t v{layer.index}[{size}]; /* {layer.name} */",
                f"    uint{_spikes(layer.part)}_t s{layer.index}[{size}];",
            ]
            state_bytes += size * (wide + _spikes(layer.part)) // 8
        if self.scratch:
            fields.append(f"    int{self.scratch_width}_t a[{self.scratch}], b[{self.scratch}]; /* sums of spikes */")
        weights = sum(layer.to.weight.numel() * _width(layer.to.weight) // 8 for layer in self.layers)
        return f"""/* Written by isofire. State: {state_bytes:,} bytes; weights: {weights:,} bytes of constants. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_INPUTS {prod(self.network.input_shape)}
#define {upper}_OUTPUTS {self.outputs}

typedef struct {{
{chr(10).join(fields)}
}} {name}_state;

/* Brings the network to rest, before every image. */
void {name}_reset({name}_state *state);

/* One step: codes of the input, C order; {self._what()}. */
void {name}_step({name}_state *state, const int32_t input[{upper}_INPUTS], int64_t output[{upper}_OUTPUTS]);

#endif
"""

    def _what(self) -> str:
        return "the output is the readout" if self.network.readout else "the output are the last layer's spikes"

    def source(self) -> str:
        """NAME.c."""
        name = self.name
        parts = [f'#include "{name}.h"\n', "#include <string.h>\n", _HELPERS]
        parts += [_constants(layer, self.network) for layer in self.layers]
        parts.append(f"void {name}_reset({name}_state *state) {{\n    memset(state, 0, sizeof *state);\n}}\n")
        upper = name.upper()
        steps = "\n".join(self._step(layer) for layer in self.layers)
        last = "" if self.network.readout else (
            f"    for (int32_t k = 0; k < {self.outputs}; k++) output[k] = state->s{len(self.layers) - 1}[k];\n"
        )  # fmt: skip
        parts.append(
            f"void {name}_step({name}_state *state, const int32_t input[{upper}_INPUTS],"
            f" int64_t output[{upper}_OUTPUTS]) {{\n{steps}\n{last}}}\n"
        )
        text = "\n".join(parts)
        for helper, call in ((_TABLE, " table("), (_FLOOR_SHIFT, " floor_shift(")):
            text = text if call in steps else text.replace(helper, "")
        return text

    def _step(self, layer: _Layer) -> str:
        lines = [f"    /* {_text(layer.name)} */"]
        size, kind = prod(layer.shapes[0]), f"int{self.scratch_width}_t"
        given = ["input" if source == INPUT else f"state->s{self.place[source]}" for source in layer.to.sources]
        shape, here, there = layer.shapes[0], given[0], "state->b"
        if not layer.reads_one:
            total = " + ".join(f"{place}[k]" for place in given)
            lines.append(f"    for (int32_t k = 0; k < {size}; k++) state->a[k] = ({kind})({total});")
            here = "state->a"
        for pool in layer.to.pools:
            lines.append(_pool(pool, shape, here, there, kind))
            shape, here, there = (shape[0], *_pooled(shape, pool)), there, here
        lines.append(_dense(layer, here) if layer.to.kind == "dense" else _conv(layer, shape, here))
        return "\n".join(lines)

    def test(self, codes: Tensor) -> str:
        """NAME_test.c: the golden vectors."""
        name, upper = self.name, self.name.upper()
        trace = self.network.run(codes, states=True)
        steps, images = codes.shape[:2]
        arrays, checks = [_array("input", codes)], []
        for layer in self.layers:
            if layer.part is None:
                continue
            k, size = layer.index, prod(layer.part.shape)
            arrays += [_array(f"v{k}", trace.membranes[layer.name]), _array(f"s{k}", trace.spikes[layer.name])]
            checks += [f'            CHECK(v{k}, state.v{k}, {size}, "{_text(layer.name)}: membrane");']
            checks += [f'            CHECK(s{k}, state.s{k}, {size}, "{_text(layer.name)}: spikes");']
        if trace.readout is not None:
            arrays.append(_array("readout", trace.readout))
            checks.append(f'            CHECK(readout, output, {self.outputs}, "readout");')
        body = "\n".join(checks)
        return f"""/* Golden vectors of {images} images, {steps} steps: exit status 0 if every number is the same. */
#include "{name}.h"

#include <stdio.h>

{chr(10).join(arrays)}
static {name}_state state;

#define CHECK(wanted, found, size, what) \\
    for (int32_t k = 0; k < (size); k++) \\
        if ((int64_t)(wanted)[at * (size) + k] != (int64_t)(found)[k]) {{ \\
            printf("%s differs: image %d, step %d, place %d\\n", what, (int)image, (int)step, (int)k); \\
            return 1; \\
        }}

int main(void) {{
    static int64_t output[{upper}_OUTPUTS];
    static int32_t given[{upper}_INPUTS];
    for (int32_t image = 0; image < {images}; image++) {{
        {name}_reset(&state);
        for (int32_t step = 0; step < {steps}; step++) {{
            const int32_t at = step * {images} + image;
            for (int32_t k = 0; k < {upper}_INPUTS; k++) given[k] = input[at * {upper}_INPUTS + k];
            {name}_step(&state, given, output);
{body}
        }}
    }}
    puts("equal");
    return 0;
}}
"""


_TABLE = """/* The level of the bin that u lies in: as many edges lie below it. */
static int64_t table(const int64_t *edges, const int64_t *levels, int32_t count, int64_t u) {
    int32_t low = 0, high = count - 1;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (edges[middle] < u) low = middle + 1; else high = middle;
    }
    return levels[low];
}
"""
_FLOOR_SHIFT = """/* floor(x / 2^bits) */
static int64_t floor_shift(int64_t x, int bits) {
    return x >= 0 ? x >> bits : -((-x + (((int64_t)1 << bits) - 1)) >> bits);
}
"""
_HELPERS = f"{_FLOOR_SHIFT}\n{_TABLE}"


def _text(name: str) -> str:
    """A layer's name as comments and text of C may hold it."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


def _width(values: Tensor) -> int:
    most = max(abs(int(values.max())), abs(int(values.min()))) if values.numel() else 0
    return next(width for width in (8, 16, 32, 64) if most < 1 << (width - 1))


def _spikes(part: Population) -> int:
    """Bits of a buffer of spikes, which are 0 or more."""
    return next(width for width in (8, 16, 32) if _most_spikes(part) < 1 << width)


def _most_spikes(part: Population) -> int:
    if part.most_spikes is not None:
        return part.most_spikes
    # states are refused beyond their width
    return min(2**31 - 1, (1 << (part.rules.state_bits - 1)) // int(part.threshold.min()) + 1)


def _signed(most: int) -> int:
    return next(width for width in (8, 16, 32) if most < 1 << (width - 1))


def _state(part: Population) -> int:
    return 32 if part.rules.state_bits <= 32 else 64


def _array(name: str, values: Tensor) -> str:
    width = _width(values)
    suffix = "LL" if width == 64 else ""
    numbers = [f"{value}{suffix}" for value in values.reshape(-1).tolist()]
    rows = [", ".join(numbers[start : start + 16]) for start in range(0, len(numbers), 16)]
    return f"static const int{width}_t {name}[{len(numbers)}] = {{\n    " + ",\n    ".join(rows) + "};\n"


def _constants(layer: _Layer, network: IntegerNetwork) -> str:
    """Weights, and a number a channel of everything else."""
    k, part, channels = layer.index, layer.part, layer.to.weight.shape[0]
    found = [_array(f"w{k}", layer.to.weight), _array(f"shift{k}", _each(layer.to.shift, channels, layer.name))]
    if part is None:
        assert network.readout is not None
        return "".join([*found, _array(f"bias{k}", _each(network.readout.bias, channels, layer.name))])
    found += [_array(f"bias{k}", _each(part.bias, channels, layer.name))]
    found += [_array(f"th{k}", _each(part.threshold, channels, layer.name))]
    if part.floor is not None:
        found.append(_array(f"floor{k}", _each(part.floor, channels, layer.name)))
    if part.table is not None:
        for name, values in (("edges", part.table.edges), ("levels", part.table.levels)):
            wide = _array(f"{name}{k}", values.expand(channels, -1)).splitlines()
            numbers = [re.sub(r"(-?\d+)(LL)?", r"\1LL", line) for line in wide[1:]]
            found.append(
                "\n".join([f"static const int64_t {name}{k}[{channels * values.shape[1]}] = {{", *numbers, ""])
            )
    return "".join(found)


def _each(values: int | Tensor, channels: int, name: str) -> Tensor:
    flat = torch.as_tensor(values).reshape(-1)
    if flat.numel() not in (1, channels):
        raise ModelError(f"{name!r} has numbers for each neuron; a C program has one for each of {channels} channels")
    return flat.expand(channels)


def _pooled(shape: tuple[int, ...], pool: SumPool) -> tuple[int, int]:
    if pool.size is None:
        return 1, 1
    high, wide = ((shape[1 + i] + 2 * pool.padding[i] - pool.size[i]) // pool.stride[i] + 1 for i in (0, 1))
    return high, wide


def _pool(pool: SumPool, shape: tuple[int, ...], here: str, there: str, kind: str) -> str:
    size = pool.size or (shape[1], shape[2])
    (sy, sx), (py, px) = pool.stride, pool.padding
    high, wide = _pooled(shape, pool)
    return f"""    for (int32_t c = 0; c < {shape[0]}; c++)
        for (int32_t y = 0; y < {high}; y++)
            for (int32_t x = 0; x < {wide}; x++) {{
                int32_t sum = 0;
                for (int32_t i = 0; i < {size[0]}; i++)
                    for (int32_t j = 0; j < {size[1]}; j++) {{
                        const int32_t row = y * {sy} + i - {py}, column = x * {sx} + j - {px};
                        if (row >= 0 && row < {shape[1]} && column >= 0 && column < {shape[2]})
                            sum += {here}[(c * {shape[1]} + row) * {shape[2]} + column];
                    }}
                {there}[(c * {high} + y) * {wide} + x] = ({kind})sum;
            }}"""


def _dense(layer: _Layer, here: str) -> str:
    outputs, inputs = layer.to.weight.shape
    inner = f"""        int64_t sum = 0;
        const int32_t c = o, n = o;
        for (int32_t i = 0; i < {inputs}; i++) sum += (int64_t)w{layer.index}[o * {inputs} + i] * {here}[i];
"""
    return f"    for (int32_t o = 0; o < {outputs}; o++) {{\n{inner}{_update(layer, 8)}    }}"


def _conv(layer: _Layer, shape: tuple[int, ...], here: str) -> str:
    to = layer.to
    assert layer.part is not None
    outputs, inputs, kernel_y, kernel_x = to.weight.shape
    _, high, wide = layer.part.shape
    (sy, sx), (py, px), (dy, dx) = to.stride, to.padding, to.dilation
    return f"""    for (int32_t c = 0; c < {outputs}; c++)
        for (int32_t y = 0; y < {high}; y++)
            for (int32_t x = 0; x < {wide}; x++) {{
                int64_t sum = 0;
                const int32_t n = (c * {high} + y) * {wide} + x, from = c / {outputs // to.groups} * {inputs};
                for (int32_t g = 0; g < {inputs}; g++)
                    for (int32_t i = 0; i < {kernel_y}; i++)
                        for (int32_t j = 0; j < {kernel_x}; j++) {{
                            const int32_t row = y * {sy} + i * {dy} - {py}, column = x * {sx} + j * {dx} - {px};
                            if (row < 0 || row >= {shape[1]} || column < 0 || column >= {shape[2]}) continue;
                            sum += (int64_t)w{layer.index}[((c * {inputs} + g) * {kernel_y} + i) * {kernel_x} + j]
                                * {here}[((from + g) * {shape[1]} + row) * {shape[2]} + column];
                        }}
{_update(layer, 16)}            }}"""


def _update(layer: _Layer, indent: int) -> str:
    """The neuron's step, in the order of the reference."""
    k, part = layer.index, layer.part
    if part is None:
        lines = [f"output[n] = sum * ((int64_t)1 << shift{k}[c]) + bias{k}[c];"]
    else:
        rule, size = part.rules.decay, f"v{k}[n]"
        kept = f"(int64_t)state->{size}"
        if rule is not None:
            if part.decay.numel() != 1:
                raise ModelError(f"{layer.name!r} has several decays; a C program has one a layer")
            factor = 2**rule.bits - int(part.decay)
            kept = f"floor_shift({kept} * {factor} + {1 << (rule.bits - 1)}, {rule.bits})"
        lines = [f"int64_t u = {kept} + sum * ((int64_t)1 << shift{k}[c]) + bias{k}[c];"]
        table = part.table
        count = 0 if table is None else table.levels.shape[1]
        mapped = f"u = table(edges{k} + c * {count - 1}, levels{k} + c * {count}, {count}, u);"
        if table is not None and table.placement == "pre_fire":
            lines.append(mapped)
        most = part.most_spikes
        fired = "1" if most == 1 else f"(int32_t)(u / th{k}[c])"
        lines.append(f"const int32_t fired = u >= th{k}[c] ? {fired} : 0;")
        if most not in (None, 1):
            raise ModelError(f"{layer.name!r} fires at most {most} spikes a step; a C program knows 1 or any number")
        lines.append(f"u -= (int64_t)fired * th{k}[c];" if part.reset_to == "subtract" else "if (fired) u = 0;")
        if part.floor is not None:
            lines.append(f"if (u < floor{k}[c]) u = floor{k}[c];")
        if table is not None and table.placement == "post_reset":
            lines.append(mapped)
        lines += [f"state->{size} = (int{_state(part)}_t)u;", f"state->s{k}[n] = (uint{_spikes(part)}_t)fired;"]
    return "".join(f"{' ' * indent}{line}\n" for line in lines)
