"""An integer network as a C99 program: one header and one file, without malloc and without floating point.

`NAME_reset` brings a state to rest, `NAME_step` takes the codes of one step's input and gives the readout (or the last
layer's spikes), or an error where the engine refuses: a state, or an input, beyond its width. `NAME_test.c` holds
golden vectors: it runs them and says where the first number differs. Shifts right of negative numbers and overflow of
signed ones, which C leaves open, are not used; states have the width they need.
"""

from __future__ import annotations

import math
import os
import re
from math import prod
from pathlib import Path

from torch import Tensor

from isofire.errors import SpecError
from isofire.export.c_code import FLOOR_SHIFT, HELPERS, JOINED, PACKED, TABLE, conv, dense, membrane, pool_of
from isofire.export.c_layer import (
    Field,
    Layer,
    array,
    arriving,
    c_name,
    constants,
    fields_of,
    largest_input,
    layer_of,
    pooled,
    signed,
    width,
)
from isofire.export.folder import write_folder
from isofire.integer import INPUT, READOUT, IntegerNetwork


def write_c(path: str | os.PathLike[str], network: IntegerNetwork, codes: Tensor, name: str = "network") -> Path:
    """Write a folder with NAME.h, NAME.c and NAME_test.c; whole, or not at all.

    Parameters
    ----------
    network
        As `lower` gives it: sums of a step's spikes without delay, recurrent ones a step later, states that do not
        overflow.
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


class _Program:
    def __init__(self, network: IntegerNetwork, name: str) -> None:
        self.network, self.name = network, name
        self.place = {n: index for index, n in enumerate(network.order)}
        self.layers = [layer_of(network, index, n, part) for index, (n, part) in enumerate(network.populations.items())]
        if network.readout is not None:
            self.layers.append(layer_of(network, len(self.layers), READOUT, None))
        last = network.populations[network.order[-1]]
        self.outputs = self.layers[-1].to.weight.shape[0] if network.readout else last.size
        gathered = [layer for layer in self.layers if not layer.reads_one]
        self.scratch = max((prod(s) for layer in gathered for s in (*layer.shapes, layer.maps)), default=0)
        self.keeps_levels = any(layer.index_bits is not None for layer in self.layers)
        self.constants = "\n".join(constants(layer, network) for layer in self.layers)
        self.scratch_width = max((signed(arriving(network, layer)) for layer in gathered), default=8)

    def header(self) -> str:
        """NAME.h."""
        name, upper = self.name, self.name.upper()
        fields = [field for layer in self.layers if layer.part is not None for field in fields_of(layer)]
        if self.scratch:
            kind = f"int{self.scratch_width}_t"
            fields += [Field(kind, name, self.scratch, "sums of spikes") for name in ("a", "b")]
        # the widest first, so that nothing lies idle between them
        fields.sort(key=lambda field: -field.bytes)
        widest = max(4, fields[0].bytes)
        flags = 4 + 4 * self.keeps_levels
        state_bytes = -(-(flags + sum(field.bytes * field.size for field in fields)) // widest) * widest
        links = [link for layer in self.layers for link in (layer.to, layer.back) if link is not None]
        weights = sum(link.weight.numel() * width(link.weight) // 8 for link in links)
        every = sum(
            int(bits) // 8 * int(size) for bits, size in re.findall(r"const int(\d+)_t \w+\[(\d+)\] =", self.constants)
        )
        shown = [f"    {field.kind} {field.name}[{field.size}]; /* {field.holds} */" for field in fields]
        wide, narrow = (
            [text for text, field in zip(shown, fields, strict=True) if (field.bytes > 4) == is_wide]
            for is_wide in (True, False)
        )
        ran = ["    int32_t ran; /* whether a step was run */"] if self.keeps_levels else []
        return f"""/* Written by isofire. State: {state_bytes:,} bytes; weights: {weights:,} bytes of constants. */
/* Other constants: {every - weights:,} bytes. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_INPUTS {prod(self.network.input_shape)}
#define {upper}_OUTPUTS {self.outputs}

typedef struct {{
{chr(10).join([*wide, "    int32_t error; /* 0, or what the last step returned */", *ran, *narrow])}
}} {name}_state;

/* Brings the network to rest, before every image. */
void {name}_reset({name}_state *state);

/* One step. Input: {self._codes()}, C order.
   Output: {self._what()}.{self._steps()}
   Returns 0; -1 if an input lies outside; or K if a state of the Kth layer left its width, {self._widths()}.
   After an error output is not written, state is of no use, and every step returns the error until a reset. */
int32_t {name}_step({name}_state *state, const int32_t input[{upper}_INPUTS], int64_t output[{upper}_OUTPUTS]);
{self._declared}
#endif
"""

    @property
    def _declared(self) -> str:
        """What reads membranes of which some are kept as numbers of levels."""
        if not self.keeps_levels:
            return ""
        return f"""
/* The membrane of neuron n of layer K, the first being 0. */
int64_t {self.name}_membrane(const {self.name}_state *state, int32_t layer, int32_t n);
"""

    def _membranes(self) -> str:
        parts = [layer for layer in self.layers if layer.part is not None]
        own = [membrane(layer, f"{self.name}_state") for layer in parts if layer.index_bits is not None]
        found = [
            f"    case {layer.index}: return "
            + (f"state->v{layer.index}[n];" if layer.index_bits is None else f"membrane{layer.index}(state, n);")
            for layer in parts
        ]
        head = f"int64_t {self.name}_membrane(const {self.name}_state *state, int32_t layer, int32_t n) {{"
        end = "    default: return 0;\n    }\n}\n"
        return "\n".join([*own, head, "    switch (layer) {", *found, end])

    def _codes(self) -> str:
        encoder = self.network.encoder
        if encoder is None:
            return "whole numbers"
        most = 2 ** (encoder.bits - 1) - 1
        number = "counts x" if encoder.counts else f"codes round(x {_over(encoder.step)})"
        return f"{number} within {0 if encoder.counts else -most}..{most}"

    def _what(self) -> str:
        readout = self.network.readout
        return "the last layer's spikes" if readout is None else f"the readout, in units of {readout.scale:.9g}"

    def _steps(self) -> str:
        most = self.network.most_steps
        return "" if most is None else f" States hold {most} steps after a reset; more may overflow."

    def _widths(self) -> str:
        widths = sorted({part.rules.state_bits for part in self.network.populations.values()})
        return f"{' or '.join(map(str, widths))} bits with sign"

    def _checked_input(self) -> str:
        encoder, most = self.network.encoder, largest_input(self.network)
        if encoder is None:
            # nothing is negated, so that -2^31 stays what it is
            return ""
        least = 0 if encoder.counts else -most
        return (
            f"    for (int32_t k = 0; k < {prod(self.network.input_shape)}; k++)\n"
            f"        if (input[k] < {least} || input[k] > {most}) return state->error = -1;\n"
        )

    def source(self) -> str:
        """NAME.c."""
        name = self.name
        parts = [f'#include "{name}.h"\n', "#include <string.h>\n", HELPERS]
        parts.append(self.constants)
        parts += [self._membranes()] if self.keeps_levels else []
        ran = "    state->ran = 1;\n" if self.keeps_levels else ""
        parts.append(f"void {name}_reset({name}_state *state) {{\n    memset(state, 0, sizeof *state);\n}}\n")
        upper = name.upper()
        steps = "\n".join(self._step(layer) for layer in self.layers)
        last = "" if self.network.readout else (
            f"    for (int32_t k = 0; k < {self.outputs}; k++) output[k] = state->s{len(self.layers) - 1}[k];\n"
        )  # fmt: skip
        parts.append(
            f"int32_t {name}_step({name}_state *state, const int32_t input[{upper}_INPUTS],"
            f" int64_t output[{upper}_OUTPUTS]) {{\n    if (state->error) return state->error;\n{self._checked_input()}"
            f"{steps}\n{last}{ran}    return 0;\n}}\n"
        )
        text = "\n".join(parts)
        for helper, call in (
            (PACKED, " pack("), (TABLE, " bin_of("), (JOINED, " joined("), (FLOOR_SHIFT, " floor_shift("),
        ):  # fmt: skip
            # a helper that nothing but its own definition names is left out
            text = text if call in text.replace(helper, "") else text.replace(helper, "")
        return text

    def _step(self, layer: Layer) -> str:
        lines = [f"    /* {c_name(layer.name)} */"]
        if layer.back is not None:
            lines.append(f"    memcpy(state->p{layer.index}, state->s{layer.index}, sizeof state->p{layer.index});")
        size, kind = prod(layer.shapes[0]), f"int{self.scratch_width}_t"
        given = ["input" if source == INPUT else f"state->s{self.place[source]}" for source in layer.to.sources]
        shape, here, there = layer.shapes[0], given[0], "state->b"
        if not layer.reads_one:
            total = " + ".join(f"({kind}){place}[k]" for place in given)
            lines.append(f"    for (int32_t k = 0; k < {size}; k++) state->a[k] = {total};")
            here = "state->a"
        for pool in layer.to.pools:
            lines.append(pool_of(pool, shape, here, there, kind))
            shape, here, there = (shape[0], *pooled(shape, pool)), there, here
        lines.append(dense(layer, here) if layer.to.kind == "dense" else conv(layer, shape, here))
        return "\n".join(lines)

    def test(self, codes: Tensor) -> str:
        """NAME_test.c: the golden vectors."""
        name, upper = self.name, self.name.upper()
        trace = self.network.run(codes, states=True)
        steps, images = codes.shape[:2]
        arrays, checks = [array("input", codes)], []
        for layer in self.layers:
            if layer.part is None:
                continue
            k, size = layer.index, prod(layer.part.shape)
            arrays += [array(f"v{k}", trace.membranes[layer.name]), array(f"s{k}", trace.spikes[layer.name])]
            found = f"state.v{k}[k]" if layer.index_bits is None else f"{name}_membrane(&state, {k}, k)"
            checks += [f'            CHECK(v{k}, {found}, {size}, "{c_name(layer.name)}: membrane");']
            if layer.has_current:
                arrays.append(array(f"i{k}", trace.currents[layer.name]))
                checks += [f'            CHECK(i{k}, state.i{k}[k], {size}, "{c_name(layer.name)}: current");']
            checks += [f'            CHECK(s{k}, state.s{k}[k], {size}, "{c_name(layer.name)}: spikes");']
        if trace.readout is not None:
            arrays.append(array("readout", trace.readout))
            checks.append(f'            CHECK(readout, output[k], {self.outputs}, "readout");')
        body = "\n".join(checks)
        return f"""/* Golden vectors of {images} images, {steps} steps: exit status 0 if every number is the same. */
#include "{name}.h"

#include <stdio.h>

{chr(10).join(arrays)}
static {name}_state state;

#define CHECK(wanted, found, size, what) \\
    for (int32_t k = 0; k < (size); k++) \\
        if ((int64_t)(wanted)[at * (size) + k] != (int64_t)(found)) {{ \\
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
            const int32_t error = {name}_step(&state, given, output);
            if (error) {{
                printf("error %d: image %d, step %d\\n", (int)error, (int)image, (int)step);
                return 1;
            }}
{body}
        }}
    }}
    puts("equal");
    return 0;
}}
"""


def _over(step: float) -> str:
    """Divides by a step as it is told: most are powers of two."""
    digits, power = math.frexp(step)
    if digits != 0.5:
        return f"/ {step!r}"
    return f"* 2^{1 - power}" if power <= 1 else f"/ 2^{power - 1}"
