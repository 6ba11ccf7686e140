// What every instruction set does alike: which of its neuron kernels a layer takes, and where plain C++ takes over.

#pragma once

#include "_portable.h"

namespace {

using Accumulate = void (*)(const Layer &, const Run *, const Run *, const int64_t *, int64_t, Sums &);
using Channel = void (*)(const Layer &, const Leak &, const Sums &, int64_t, int64_t, int64_t, float *, uint8_t *);
using Pair = void (*)(const Direct &, const Leak &, const float *, const int64_t *, int64_t, int64_t, int64_t, float *, uint8_t *);
using Fire = void (*)(const Neurons &, const Leak &, const Drive &, int64_t, float *, uint8_t, bool, uint8_t *, int64_t);

// The kernels of an instruction set: look-ups of a pass at a place, a channel from sums to spikes, two channels of a direct layer.
struct Path {
  Accumulate accumulate;
  Channel channel;
  Pair direct;
};

// Membranes stay in registers where `Kernels` has kernels for it: fire<SOURCE, CHARGE, DIVIDES, HARD>.
struct InMemory {
  static constexpr bool IN_REGISTERS = false;
};

template <class Kernels, int SOURCE, int CHARGE, bool DIVIDES>
Fire fire_of(const Neurons &n) {
  return n.hard_reset ? Kernels::template fire<SOURCE, CHARGE, DIVIDES, true> : Kernels::template fire<SOURCE, CHARGE, DIVIDES, false>;
}

template <class Kernels, int SOURCE>
Fire fire_for(const Neurons &n, const Leak &leak) {
  if (n.charge == IF) return fire_of<Kernels, SOURCE, IF, false>(n);
  if (n.charge == LIF_DECAY || n.charge == PLIF_DECAY)
    return leak.divides ? fire_of<Kernels, SOURCE, LIF_DECAY, true>(n) : fire_of<Kernels, SOURCE, LIF_DECAY, false>(n);
  return leak.divides ? fire_of<Kernels, SOURCE, LIF_UNDECAYED, true>(n) : fire_of<Kernels, SOURCE, LIF_UNDECAYED, false>(n);
}

template <class Kernels, int SOURCE>
void fire_in_registers(const Neurons &n, const Leak &leak, const Drive &d, int64_t out_channels, int64_t channel, int64_t steps,
                       float *v, uint8_t *place) {
  const Fire fire = fire_for<Kernels, SOURCE>(n, leak);
  fire(n, leak, d, steps, v, static_cast<uint8_t>(1u << (channel % 4)), channel % 4 != 0, place + channel / 4 * LANES,
       (out_channels + 3) / 4 * LANES);
}

// As channel_of; quantized membranes and wide sums are left to Kernels::general.
template <class Kernels>
void channel_in_registers(const Layer &p, const Leak &leak, const Sums &sums, int64_t row, int64_t channel, int64_t steps, float *v,
                          uint8_t *place) {
  const Neurons &n = p.neurons;
  if (n.placement != NONE || sums.is_wide) return Kernels::general(p, leak, sums, row, channel, steps, v, place);
  const Drive d{sums.narrow[row][0], sums.narrow[1][0], nullptr, n.scale[channel], n.shift[channel], p.high_factor == 16 ? 4 : 5};
  if (p.high_factor) return fire_in_registers<Kernels, LOW_AND_HIGH>(n, leak, d, p.out_channels, channel, steps, v, place);
  fire_in_registers<Kernels, NARROW>(n, leak, d, p.out_channels, channel, steps, v, place);
}

// Two channels of a direct layer at one place, all steps that see the map.
template <class Kernels>
INLINE void direct_of(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                      int64_t steps, float *v, uint8_t *place) {
  const bool two = channel + 1 < p.out_channels;
  float sums[2][LANES];
  const float *weights = p.weights + channel * count;
  products(inputs, taps, count, weights, two ? weights + count : weights, sums);
  for (int64_t row = 0; row < (two ? 2 : 1); ++row) {
    const float scale = p.neurons.scale[channel + row], shift = p.neurons.shift[channel + row];
    alignas(32) float x[CHUNK][LANES];
    for (int64_t i = 0; i < LANES; ++i) x[0][i] = sums[row][i] * scale + shift;
    for (int64_t t = 1; t < CHUNK; ++t) std::memcpy(x[t], x[0], sizeof x[0]);
    const int64_t step = (p.out_channels + 3) / 4 * LANES;
    for (int64_t t = 0; t < steps; t += CHUNK) {
      const int64_t some = steps - t < CHUNK ? steps - t : CHUNK;
      float *membranes = v + (channel + row) * LANES;
      if constexpr (Kernels::IN_REGISTERS) {
        if (p.neurons.placement == NONE) {
          const Drive d{nullptr, nullptr, x[0], 0.0f, 0.0f, 0};
          fire_in_registers<Kernels, FLOATS>(p.neurons, leak, d, p.out_channels, channel + row, some, membranes, place + t * step);
          continue;
        }
      }
      spikes_of(p.neurons, leak, p.out_channels, channel + row, some, x, membranes, place + t * step);
    }
  }
}

void direct_portable(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                     int64_t steps, float *v, uint8_t *place) {
  direct_of<InMemory>(p, leak, inputs, taps, count, channel, steps, v, place);
}

const Path PORTABLE_PATH = {accumulate_portable, channel_portable, direct_portable};

}  // namespace
