// The look-ups by the byte table of 64-bit ARM (TBL), and neurons in 128 bits. Every such processor has these instructions.

#pragma once

#include <arm_neon.h>

#include "_dispatch.h"

namespace {

const int64_t HALF = 16;  // bytes of a register

INLINE void widen(int8x16_t bytes, int16_t *to, bool first) {
  const int8x8_t low = vget_low_s8(bytes), high = vget_high_s8(bytes);
  vst1q_s16(to, first ? vmovl_s8(low) : vaddw_s8(vld1q_s16(to), low));
  vst1q_s16(to + 8, first ? vmovl_s8(high) : vaddw_s8(vld1q_s16(to + 8), high));
}

template <int STEPS, int STREAMS>
void accumulate_neon_of(const Layer &p, const Run *run, const Run *end, const int64_t *taps, Sums &sums) {
  const int64_t step = p.in_groups * LANES;
  int8x16_t a[STEPS][2], b[STEPS][2];
  for (int t = 0; t < STEPS; ++t)
    for (int half = 0; half < 2; ++half) a[t][half] = b[t][half] = vdupq_n_s8(0);
  bool first = true;
  sums.is_wide = false;
  for (; run < end; ++run) {
    const int64_t tap = taps[run->tap];
    if (tap >= 0) {
      const int8_t *table = p.tables + run->table;
      const int64_t offset = tap + run->first * LANES, groups = run->end - run->first;
      const int64_t from = STREAMS ? 0 : run->first_stream, to = STREAMS ? STREAMS : run->end_stream;
      for (int64_t g = 0; g < groups; ++g) {
        const int8x16_t one = vld1q_s8(table + g * 32), two = vld1q_s8(table + g * 32 + 16);
        for (int64_t stream = from; stream < to; ++stream) {
          const uint8_t *at = p.inputs[stream] + offset + g * LANES;
          for (int t = 0; t < STEPS; ++t)
            for (int half = 0; half < 2; ++half) {
              const uint8x16_t index = vld1q_u8(at + t * step + half * HALF);
              a[t][half] = vaddq_s8(a[t][half], vqtbl1q_s8(one, index));
              b[t][half] = vaddq_s8(b[t][half], vqtbl1q_s8(two, index));
            }
        }
      }
    }
    if (run->widen) {
      for (int t = 0; t < STEPS; ++t)
        for (int half = 0; half < 2; ++half) {
          widen(a[t][half], sums.narrow[0][t] + half * HALF, first);
          widen(b[t][half], sums.narrow[1][t] + half * HALF, first);
          a[t][half] = b[t][half] = vdupq_n_s8(0);
        }
      first = false;
      if (run->spill) spill(sums, STEPS);
    }
  }
}

template <int STEPS>
void accumulate_neon_steps(const Layer &p, const Run *run, const Run *end, const int64_t *taps, Sums &sums) {
  if (p.streams == 1) return accumulate_neon_of<STEPS, 1>(p, run, end, taps, sums);
  if (p.streams == 2 && p.together) return accumulate_neon_of<STEPS, 2>(p, run, end, taps, sums);
  accumulate_neon_of<STEPS, 0>(p, run, end, taps, sums);
}

void accumulate_neon(const Layer &p, const Run *run, const Run *end, const int64_t *taps, int64_t steps, Sums &sums) {
  if (steps == 4) return accumulate_neon_steps<4>(p, run, end, taps, sums);
  if (steps == 3) return accumulate_neon_steps<3>(p, run, end, taps, sums);
  if (steps == 2) return accumulate_neon_steps<2>(p, run, end, taps, sums);
  accumulate_neon_steps<1>(p, run, end, taps, sums);
}

template <int SOURCE>
INLINE float32x4_t driven4(const Drive &d, int64_t t, int64_t i) {
  if (SOURCE == FLOATS) return vld1q_f32(d.floats + t * LANES + i);
  int32x4_t sum = vmovl_s16(vld1_s16(d.low + t * LANES + i));
  if (SOURCE == LOW_AND_HIGH)
    sum = vaddq_s32(sum, vshlq_s32(vmovl_s16(vld1_s16(d.high + t * LANES + i)), vdupq_n_s32(d.high_shift)));
  return vaddq_f32(vmulq_f32(vcvtq_f32_s32(sum), vdupq_n_f32(d.scale)), vdupq_n_f32(d.shift));
}

template <bool DIVIDES>
INLINE float32x4_t leaked4(float32x4_t x, float factor, float divisor) {
  return DIVIDES ? vdivq_f32(x, vdupq_n_f32(divisor)) : vmulq_f32(x, vdupq_n_f32(factor));
}

// The spikes of 16 neurons, a byte each, from masks of four.
INLINE uint8x16_t bytes_of(const uint32x4_t *masks) {
  const uint16x8_t low = vcombine_u16(vmovn_u32(masks[0]), vmovn_u32(masks[1]));
  return vcombine_u8(vmovn_u16(low), vmovn_u16(vcombine_u16(vmovn_u32(masks[2]), vmovn_u32(masks[3]))));
}

// As fire_as, without a membrane quantizer and with the membranes in registers.
template <int SOURCE, int CHARGE, bool DIVIDES, bool HARD>
void fire_neon_as(const Neurons &n, const Leak &leak, const Drive &d, int64_t steps, float *v, uint8_t bit, bool add, uint8_t *out,
                  int64_t stride) {
  const float32x4_t rest = vdupq_n_f32(n.reset), threshold = vdupq_n_f32(n.threshold);
  const uint8x16_t bits = vdupq_n_u8(bit);
  float32x4_t membrane[8];
  for (int q = 0; q < 8; ++q) membrane[q] = vld1q_f32(v + 4 * q);
  for (int64_t t = 0; t < steps; ++t) {
    uint32x4_t fired[8];
    for (int q = 0; q < 8; ++q) {
      const float32x4_t x = driven4<SOURCE>(d, t, 4 * q), before = membrane[q];
      float32x4_t h;
      if (CHARGE == IF) h = vaddq_f32(before, x);
      if (CHARGE == LIF_DECAY)
        h = vaddq_f32(before, leaked4<DIVIDES>(vsubq_f32(x, vsubq_f32(before, rest)), leak.factor, leak.divisor));
      if (CHARGE == LIF_UNDECAYED)
        h = vaddq_f32(vsubq_f32(before, leaked4<DIVIDES>(vsubq_f32(before, rest), leak.factor, leak.divisor)), x);
      fired[q] = vcgeq_f32(h, threshold);
      const float32x4_t taken = vreinterpretq_f32_u32(vandq_u32(fired[q], vreinterpretq_u32_f32(threshold)));
      membrane[q] = HARD ? vbslq_f32(fired[q], rest, h) : vsubq_f32(h, taken);
    }
    for (int half = 0; half < 2; ++half) {
      uint8_t *to = out + t * stride + half * HALF;
      const uint8x16_t bytes = vandq_u8(bytes_of(fired + 4 * half), bits);
      vst1q_u8(to, add ? vorrq_u8(bytes, vld1q_u8(to)) : bytes);
    }
  }
  for (int q = 0; q < 8; ++q) vst1q_f32(v + 4 * q, membrane[q]);
}

struct Neon {
  static constexpr bool IN_REGISTERS = true;
  static constexpr Channel general = channel_portable;
  template <int SOURCE, int CHARGE, bool DIVIDES, bool HARD>
  static constexpr Fire fire = fire_neon_as<SOURCE, CHARGE, DIVIDES, HARD>;
};

void direct_neon(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                 int64_t steps, float *v, uint8_t *place) {
  direct_of<Neon>(p, leak, inputs, taps, count, channel, steps, v, place);
}

const Path NEON_PATH = {accumulate_neon, channel_in_registers<Neon>, direct_neon};

// Whether each of four floats is above 0, as a nibble.
INLINE uint8_t above_zero(const float *x) {
  alignas(16) static const uint32_t bits[4] = {1, 2, 4, 8};
  return static_cast<uint8_t>(vaddvq_u32(vandq_u32(vcgtzq_f32(vld1q_f32(x)), vld1q_u32(bits))));
}

}  // namespace
