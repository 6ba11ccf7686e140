// The look-ups and what follows them in plain C++: for every processor, and where other paths have nothing of their own.

#pragma once

#include "_layout.h"

namespace {

INLINE void spill(Sums &sums, int64_t steps) {
  for (int64_t row = 0; row < 2; ++row)
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t i = 0; i < LANES; ++i) {
        sums.wide[row][t][i] = (sums.is_wide ? sums.wide[row][t][i] : 0) + sums.narrow[row][t][i];
        sums.narrow[row][t][i] = 0;
      }
  sums.is_wide = true;
}

// What every look-up of a pass adds up to at one place: `taps` are offsets of the first step into an input, or -1 outside of it.
void accumulate_portable(const Layer &p, const Run *run, const Run *end, const int64_t *taps, int64_t steps, Sums &sums) {
  std::memset(sums.narrow, 0, sizeof sums.narrow);
  sums.is_wide = false;
  for (; run < end; ++run) {
    if (taps[run->tap] >= 0)
      for (int64_t g = run->first; g < run->end; ++g) {
        const int8_t *table = p.tables + run->table + (g - run->first) * 32;
        for (int64_t stream = run->first_stream; stream < run->end_stream; ++stream)
          for (int64_t t = 0; t < steps; ++t) {
            const uint8_t *at = p.inputs[stream] + taps[run->tap] + (t * p.in_groups + g) * LANES;
            for (int64_t i = 0; i < LANES; ++i) {
              sums.narrow[0][t][i] = static_cast<int16_t>(sums.narrow[0][t][i] + table[at[i]]);
              sums.narrow[1][t][i] = static_cast<int16_t>(sums.narrow[1][t][i] + table[16 + at[i]]);
            }
          }
      }
    if (run->spill) spill(sums, steps);
  }
}

INLINE float leaked(float x, float factor, float divisor, bool divides) { return divides ? x / divisor : x * factor; }

// The inputs of a channel's neurons: sum * scale + shift.
INLINE void inputs_of(const Layer &p, const Sums &sums, int64_t row, int64_t channel, int64_t steps, float (*x)[LANES]) {
  const float scale = p.neurons.scale[channel], shift = p.neurons.shift[channel];
  const int32_t high = p.high_factor;
  for (int64_t t = 0; t < steps; ++t) {
    if (high && sums.is_wide) {
      for (int64_t i = 0; i < LANES; ++i) {
        const int32_t low = sums.wide[0][t][i] + sums.narrow[0][t][i], top = sums.wide[1][t][i] + sums.narrow[1][t][i];
        x[t][i] = static_cast<float>(low + high * top) * scale + shift;
      }
    } else if (high) {
      for (int64_t i = 0; i < LANES; ++i)
        x[t][i] = static_cast<float>(static_cast<int32_t>(sums.narrow[0][t][i]) + high * sums.narrow[1][t][i]) * scale + shift;
    } else if (sums.is_wide) {
      for (int64_t i = 0; i < LANES; ++i)
        x[t][i] = static_cast<float>(sums.wide[row][t][i] + sums.narrow[row][t][i]) * scale + shift;
    } else {
      for (int64_t i = 0; i < LANES; ++i) x[t][i] = static_cast<float>(sums.narrow[row][t][i]) * scale + shift;
    }
  }
}

INLINE float round_half_even(float k) {
  const float magic = 12582912.0f;
  return (k + magic) - magic;
}

INLINE void quantize(const Neurons &n, int64_t channel, float *v) {
  const int64_t row = n.state_rows > 1 ? channel : 0;
  if (!n.level_count) {
    const float origin = n.origin[row], step = n.step[row], lo = n.k_min, hi = n.k_max;
    for (int64_t i = 0; i < LANES; ++i) {
      float k = (v[i] - origin) / step;
      k = k < lo ? lo : (k > hi ? hi : k);
      v[i] = origin + step * round_half_even(k);
    }
    return;
  }
  const float *edges = n.edges + row * (n.level_count - 1), *levels = n.levels + row * n.level_count;
  float found[LANES];
  for (int64_t i = 0; i < LANES; ++i) found[i] = levels[0];
  for (int32_t k = 0; k + 1 < n.level_count; ++k) {
    const float edge = edges[k], level = levels[k + 1];
    for (int64_t i = 0; i < LANES; ++i) found[i] = v[i] > edge ? level : found[i];
  }
  std::memcpy(v, found, sizeof found);
}

// Charge, fire and reset of 32 neurons over some steps. v: their membranes; a spike sets `bit` of out[t * stride + i].
template <int CHARGE, bool DIVIDES>
INLINE void fire_as(const Neurons &n, const Leak &leak, int64_t channel, int64_t steps, const float (*x)[LANES], float *__restrict v,
                    uint8_t bit, bool add, uint8_t *__restrict out, int64_t stride) {
  const float rest = n.reset, threshold = n.threshold, factor = leak.factor, divisor = leak.divisor;
  const float after_hard = n.reset;
  for (int64_t t = 0; t < steps; ++t) {
    float h[LANES];
    const float *__restrict in = x[t];
    for (int64_t i = 0; i < LANES; ++i) {
      if (CHARGE == IF) h[i] = v[i] + in[i];
      if (CHARGE == LIF_DECAY) h[i] = v[i] + leaked(in[i] - (v[i] - rest), factor, divisor, DIVIDES);
      if (CHARGE == LIF_UNDECAYED) h[i] = v[i] - leaked(v[i] - rest, factor, divisor, DIVIDES) + in[i];
    }
    if (n.placement == PRE_FIRE) quantize(n, channel, h);
    uint8_t *__restrict to = out + t * stride;
    uint8_t fired[LANES];
    for (int64_t i = 0; i < LANES; ++i) fired[i] = h[i] >= threshold ? bit : 0;
    if (n.hard_reset)
      for (int64_t i = 0; i < LANES; ++i) v[i] = h[i] >= threshold ? after_hard : h[i];
    else
      for (int64_t i = 0; i < LANES; ++i) v[i] = h[i] - (h[i] >= threshold ? threshold : 0.0f);
    if (n.placement == POST_RESET) quantize(n, channel, v);
    if (add)
      for (int64_t i = 0; i < LANES; ++i) to[i] = static_cast<uint8_t>(to[i] | fired[i]);
    else
      std::memcpy(to, fired, LANES);
  }
}

INLINE void fire(const Neurons &n, const Leak &leak, int64_t channel, int64_t steps, const float (*x)[LANES], float *v, uint8_t bit,
                 bool add, uint8_t *out, int64_t stride) {
  const bool before = n.charge == LIF_DECAY || n.charge == PLIF_DECAY;
  if (n.charge == IF) return fire_as<IF, false>(n, leak, channel, steps, x, v, bit, add, out, stride);
  if (before && leak.divides) return fire_as<LIF_DECAY, true>(n, leak, channel, steps, x, v, bit, add, out, stride);
  if (before) return fire_as<LIF_DECAY, false>(n, leak, channel, steps, x, v, bit, add, out, stride);
  if (leak.divides) return fire_as<LIF_UNDECAYED, true>(n, leak, channel, steps, x, v, bit, add, out, stride);
  fire_as<LIF_UNDECAYED, false>(n, leak, channel, steps, x, v, bit, add, out, stride);
}

INLINE void spikes_of(const Neurons &n, const Leak &leak, int64_t out_channels, int64_t channel, int64_t steps,
                      const float (*x)[LANES], float *v, uint8_t *place) {
  const int64_t groups = (out_channels + 3) / 4;
  fire(n, leak, channel, steps, x, v, static_cast<uint8_t>(1u << (channel % 4)), channel % 4 != 0, place + channel / 4 * LANES,
       groups * LANES);
}

// One channel of a pass: from sums to spikes.
INLINE void channel_of(const Layer &p, const Leak &leak, const Sums &sums, int64_t row, int64_t channel, int64_t steps, float *v,
                       uint8_t *place) {
  float x[CHUNK][LANES];
  inputs_of(p, sums, row, channel, steps, x);
  spikes_of(p.neurons, leak, p.out_channels, channel, steps, x, v, place);
}

void channel_portable(const Layer &p, const Leak &leak, const Sums &sums, int64_t row, int64_t channel, int64_t steps, float *v,
                      uint8_t *place) {
  channel_of(p, leak, sums, row, channel, steps, v, place);
}

// Weighted sums of two channels at one place; `taps` are offsets into `inputs` [..][32], -1 outside of the map.
INLINE void products(const float *inputs, const int64_t *taps, int64_t count, const float *weights, const float *others,
                     float (*sums)[LANES]) {
  float a[LANES] = {0}, b[LANES] = {0};
  for (int64_t k = 0; k < count; ++k) {
    if (taps[k] < 0) continue;
    const float *__restrict x = inputs + taps[k];
    const float w = weights[k], u = others[k];
    for (int64_t i = 0; i < LANES; ++i) {
      a[i] += w * x[i];
      b[i] += u * x[i];
    }
  }
  std::memcpy(sums[0], a, sizeof a);
  std::memcpy(sums[1], b, sizeof b);
}

}  // namespace
