// The look-ups by the byte shuffle of AVX2, and neurons in 256 or 512 bits.

#pragma once

#include <immintrin.h>

#include "_dispatch.h"

#define AVX2 __attribute__((target("avx2")))
// clang knows no such preference
#if defined(__clang__)
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))
#else
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl,prefer-vector-width=512")))
#endif

namespace {

AVX2 INLINE void widen(__m256i bytes, int16_t *to, bool first) {
  __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)), high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(bytes, 1));
  __m256i *at = reinterpret_cast<__m256i *>(to);
  if (!first) {
    low = _mm256_add_epi16(low, _mm256_load_si256(at));
    high = _mm256_add_epi16(high, _mm256_load_si256(at + 1));
  }
  _mm256_store_si256(at, low);
  _mm256_store_si256(at + 1, high);
}

template <int STEPS, int STREAMS>
AVX2 void accumulate_avx2_of(const Layer &p, const Run *run, const Run *end, const int64_t *taps, Sums &sums) {
  const int64_t step = p.in_groups * LANES;
  __m256i a[STEPS], b[STEPS];
  for (int t = 0; t < STEPS; ++t) a[t] = b[t] = _mm256_setzero_si256();
  bool first = true;
  sums.is_wide = false;
  for (; run < end; ++run) {
    const int64_t tap = taps[run->tap];
    if (tap >= 0) {
      const int8_t *table = p.tables + run->table;
      const int64_t offset = tap + run->first * LANES, groups = run->end - run->first;
      const int64_t from = STREAMS ? 0 : run->first_stream, to = STREAMS ? STREAMS : run->end_stream;
      for (int64_t g = 0; g < groups; ++g) {
        const __m256i one = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i *>(table + g * 32)));
        const __m256i two = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i *>(table + g * 32 + 16)));
        for (int64_t stream = from; stream < to; ++stream) {
          const uint8_t *at = p.inputs[stream] + offset + g * LANES;
          for (int t = 0; t < STEPS; ++t) {
            const __m256i index = _mm256_load_si256(reinterpret_cast<const __m256i *>(at + t * step));
            a[t] = _mm256_add_epi8(a[t], _mm256_shuffle_epi8(one, index));
            b[t] = _mm256_add_epi8(b[t], _mm256_shuffle_epi8(two, index));
          }
        }
      }
    }
    if (run->widen) {
      for (int t = 0; t < STEPS; ++t) {
        widen(a[t], sums.narrow[0][t], first);
        widen(b[t], sums.narrow[1][t], first);
        a[t] = b[t] = _mm256_setzero_si256();
      }
      first = false;
      if (run->spill) spill(sums, STEPS);
    }
  }
}

template <int STEPS>
void accumulate_avx2_steps(const Layer &p, const Run *run, const Run *end, const int64_t *taps, Sums &sums) {
  if (p.streams == 1) return accumulate_avx2_of<STEPS, 1>(p, run, end, taps, sums);
  if (p.streams == 2 && p.together) return accumulate_avx2_of<STEPS, 2>(p, run, end, taps, sums);
  accumulate_avx2_of<STEPS, 0>(p, run, end, taps, sums);
}

void accumulate_avx2(const Layer &p, const Run *run, const Run *end, const int64_t *taps, int64_t steps, Sums &sums) {
  if (steps == 4) return accumulate_avx2_steps<4>(p, run, end, taps, sums);
  if (steps == 3) return accumulate_avx2_steps<3>(p, run, end, taps, sums);
  if (steps == 2) return accumulate_avx2_steps<2>(p, run, end, taps, sums);
  accumulate_avx2_steps<1>(p, run, end, taps, sums);
}

template <int SOURCE>
AVX2 INLINE __m256 driven(const Drive &d, int64_t t, int64_t i) {
  if (SOURCE == FLOATS) return _mm256_load_ps(d.floats + t * LANES + i);
  __m256i sum = _mm256_cvtepi16_epi32(_mm_load_si128(reinterpret_cast<const __m128i *>(d.low + t * LANES + i)));
  if (SOURCE == LOW_AND_HIGH) {
    const __m256i top = _mm256_cvtepi16_epi32(_mm_load_si128(reinterpret_cast<const __m128i *>(d.high + t * LANES + i)));
    sum = _mm256_add_epi32(sum, _mm256_slli_epi32(top, d.high_shift));
  }
  return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(d.scale)), _mm256_set1_ps(d.shift));
}

template <bool DIVIDES>
AVX2 INLINE __m256 leaked8(__m256 x, float factor, float divisor) {
  return DIVIDES ? _mm256_div_ps(x, _mm256_set1_ps(divisor)) : _mm256_mul_ps(x, _mm256_set1_ps(factor));
}

// As fire_as, without a membrane quantizer and with the membranes in registers.
template <int SOURCE, int CHARGE, bool DIVIDES, bool HARD>
AVX2 void fire_avx2_as(const Neurons &n, const Leak &leak, const Drive &d, int64_t steps, float *v, uint8_t bit, bool add, uint8_t *out,
                       int64_t stride) {
  const __m256 rest = _mm256_set1_ps(n.reset), threshold = _mm256_set1_ps(n.threshold);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7), bits = _mm256_set1_epi8(static_cast<char>(bit));
  __m256 membrane[4];
  for (int q = 0; q < 4; ++q) membrane[q] = _mm256_loadu_ps(v + 8 * q);
  for (int64_t t = 0; t < steps; ++t) {
    __m256i fired[4];
    for (int q = 0; q < 4; ++q) {
      const __m256 x = driven<SOURCE>(d, t, 8 * q), before = membrane[q];
      __m256 h;
      if (CHARGE == IF) h = _mm256_add_ps(before, x);
      if (CHARGE == LIF_DECAY)
        h = _mm256_add_ps(before, leaked8<DIVIDES>(_mm256_sub_ps(x, _mm256_sub_ps(before, rest)), leak.factor, leak.divisor));
      if (CHARGE == LIF_UNDECAYED)
        h = _mm256_add_ps(_mm256_sub_ps(before, leaked8<DIVIDES>(_mm256_sub_ps(before, rest), leak.factor, leak.divisor)), x);
      const __m256 spike = _mm256_cmp_ps(h, threshold, _CMP_GE_OQ);
      membrane[q] = HARD ? _mm256_blendv_ps(h, rest, spike) : _mm256_sub_ps(h, _mm256_and_ps(spike, threshold));
      fired[q] = _mm256_castps_si256(spike);
    }
    const __m256i low = _mm256_packs_epi32(fired[0], fired[1]), high = _mm256_packs_epi32(fired[2], fired[3]);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    __m256i *to = reinterpret_cast<__m256i *>(out + t * stride);
    bytes = _mm256_and_si256(bytes, bits);
    _mm256_store_si256(to, add ? _mm256_or_si256(bytes, _mm256_load_si256(to)) : bytes);
  }
  for (int q = 0; q < 4; ++q) _mm256_storeu_ps(v + 8 * q, membrane[q]);
}

template <int SOURCE>
AVX512 INLINE __m512 driven16(const Drive &d, int64_t t, int64_t i) {
  if (SOURCE == FLOATS) return _mm512_loadu_ps(d.floats + t * LANES + i);
  __m512i sum = _mm512_cvtepi16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i *>(d.low + t * LANES + i)));
  if (SOURCE == LOW_AND_HIGH) {
    const __m512i top = _mm512_cvtepi16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i *>(d.high + t * LANES + i)));
    sum = _mm512_add_epi32(sum, _mm512_slli_epi32(top, static_cast<unsigned>(d.high_shift)));
  }
  return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(d.scale)), _mm512_set1_ps(d.shift));
}

template <bool DIVIDES>
AVX512 INLINE __m512 leaked16(__m512 x, float factor, float divisor) {
  return DIVIDES ? _mm512_div_ps(x, _mm512_set1_ps(divisor)) : _mm512_mul_ps(x, _mm512_set1_ps(factor));
}

// As fire_avx2_as.
template <int SOURCE, int CHARGE, bool DIVIDES, bool HARD>
AVX512 void fire_avx512_as(const Neurons &n, const Leak &leak, const Drive &d, int64_t steps, float *v, uint8_t bit, bool add,
                           uint8_t *out, int64_t stride) {
  const __m512 rest = _mm512_set1_ps(n.reset), threshold = _mm512_set1_ps(n.threshold);
  const __m256i bits = _mm256_set1_epi8(static_cast<char>(bit));
  __m512 membrane[2] = {_mm512_loadu_ps(v), _mm512_loadu_ps(v + 16)};
  for (int64_t t = 0; t < steps; ++t) {
    __mmask32 fired = 0;
    for (int q = 0; q < 2; ++q) {
      const __m512 x = driven16<SOURCE>(d, t, 16 * q), before = membrane[q];
      __m512 h;
      if (CHARGE == IF) h = _mm512_add_ps(before, x);
      if (CHARGE == LIF_DECAY)
        h = _mm512_add_ps(before, leaked16<DIVIDES>(_mm512_sub_ps(x, _mm512_sub_ps(before, rest)), leak.factor, leak.divisor));
      if (CHARGE == LIF_UNDECAYED)
        h = _mm512_add_ps(_mm512_sub_ps(before, leaked16<DIVIDES>(_mm512_sub_ps(before, rest), leak.factor, leak.divisor)), x);
      const __mmask16 spike = _mm512_cmp_ps_mask(h, threshold, _CMP_GE_OQ);
      membrane[q] = HARD ? _mm512_mask_mov_ps(h, spike, rest) : _mm512_sub_ps(h, _mm512_maskz_mov_ps(spike, threshold));
      fired |= static_cast<__mmask32>(spike) << (16 * q);
    }
    const __m256i bytes = _mm256_maskz_mov_epi8(fired, bits);
    __m256i *to = reinterpret_cast<__m256i *>(out + t * stride);
    _mm256_store_si256(to, add ? _mm256_or_si256(bytes, _mm256_load_si256(to)) : bytes);
  }
  _mm512_storeu_ps(v, membrane[0]);
  _mm512_storeu_ps(v + 16, membrane[1]);
}

AVX2 void channel_avx2(const Layer &p, const Leak &leak, const Sums &sums, int64_t row, int64_t channel, int64_t steps, float *v,
                       uint8_t *place) {
  channel_of(p, leak, sums, row, channel, steps, v, place);
}

struct Avx2 {
  static constexpr bool IN_REGISTERS = true;
  static constexpr Channel general = channel_avx2;
  template <int SOURCE, int CHARGE, bool DIVIDES, bool HARD>
  static constexpr Fire fire = fire_avx2_as<SOURCE, CHARGE, DIVIDES, HARD>;
};

struct Avx512 {
  static constexpr bool IN_REGISTERS = true;
  static constexpr Channel general = channel_avx2;
  template <int SOURCE, int CHARGE, bool DIVIDES, bool HARD>
  static constexpr Fire fire = fire_avx512_as<SOURCE, CHARGE, DIVIDES, HARD>;
};

AVX2 void direct_avx2(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                      int64_t steps, float *v, uint8_t *place) {
  direct_of<Avx2>(p, leak, inputs, taps, count, channel, steps, v, place);
}

AVX512 void direct_avx512(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                          int64_t steps, float *v, uint8_t *place) {
  direct_of<Avx512>(p, leak, inputs, taps, count, channel, steps, v, place);
}

const Path AVX2_PATH = {accumulate_avx2, channel_in_registers<Avx2>, direct_avx2};
const Path AVX512_PATH = {accumulate_avx2, channel_in_registers<Avx512>, direct_avx512};

// Whether each of four floats is above 0, as a nibble.
INLINE uint8_t above_zero(const float *x) {
  return static_cast<uint8_t>(_mm_movemask_ps(_mm_cmpgt_ps(_mm_loadu_ps(x), _mm_setzero_ps())));
}

}  // namespace
