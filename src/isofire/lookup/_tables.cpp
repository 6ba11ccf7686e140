// Convolutions of spikes with low-bit weights by look-up, and the neurons behind them.
//
// Four input channels of one place and step are a nibble; with weights that never change, what they add to an output is one of 16
// numbers, kept in a table. A byte shuffle looks up 32 images at once. Maps lie as [block of 32 images][y][x][t][channels / 4][32].
//
// Sums are whole numbers, the same in any order; everything behind them is written in the order of isofire/neurons/dynamics.py and
// compiled without fused multiply-add. So all instruction sets give the same spikes, in any batch and with any number of threads.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../neurons/_parallel.h"

// ISOFIRE_PORTABLE leaves intrinsics out, as other compilers and processors do
#if defined(__GNUC__) && defined(__x86_64__) && !defined(ISOFIRE_PORTABLE)
#define HAS_AVX2 1
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
// clang knows no such preference
#if defined(__clang__)
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))
#else
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl,prefer-vector-width=512")))
#endif
#else
#define HAS_AVX2 0
#define AVX2
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

extern "C" {

enum Charge { IF = 0, LIF_DECAY = 1, LIF_UNDECAYED = 2, PLIF_DECAY = 3, PLIF_UNDECAYED = 4 };
enum Placement { NONE = 0, PRE_FIRE = 1, POST_RESET = 2 };
enum Isa { PORTABLE = 0, WITH_AVX2 = 1, WITH_AVX512 = 2 };

// Look-ups in a row: groups [first, end) of one tap, in some of the streams. After those with `widen` the byte sums are added to
// wider ones, which `spill` adds to sums of 32 bits. Mirrors isofire.lookup.tables.RUN.
struct Run {
  int32_t tap, first, end, first_stream, end_stream, widen, spill, pad;
  int64_t table;  // of the first group: 16 bytes for each of the pass's two rows, group by group
};

// Neurons; mirrors isofire.lookup.native.Neurons.
struct Neurons {
  int32_t charge, hard_reset, placement, state_rows, level_count, pad;
  float tau, threshold, reset, k_min, k_max, spare;
  const float *scale, *shift;    // [channels]: input = sum * scale + shift
  const float *origin, *step;    // [state_rows] or null: levels origin + step * k of the membrane quantizer
  const float *edges, *levels;   // [state_rows, level_count - 1], [state_rows, level_count] or null
};

// A layer: convolution and neurons. Mirrors isofire.lookup.native.Layer.
struct Layer {
  int64_t blocks, steps, in_height, in_width, in_groups, out_height, out_width, out_channels;
  int64_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  int64_t streams, passes;
  int32_t high_factor;  // 0: a pass has two channels; else one, low row + high_factor * high row
  int32_t threads, isa;
  int32_t together;  // whether every run has all streams
  const uint8_t *const *inputs;
  const int8_t *tables;
  const Run *runs;
  const int64_t *pass_runs;  // [passes + 1]
  Neurons neurons;
  uint8_t *spikes;  // [blocks][out_height][out_width][steps][out_channels / 4][32]
};

// A convolution of real inputs and the neurons behind it: the same inputs at every step, or one map a step. Sums are taken in the
// order of the weights: channel, row, column. Mirrors isofire.lookup.native.Direct.
struct Direct {
  int64_t images, steps, maps, channels, height, width;
  int64_t step_t, step_n, step_c, step_y, step_x;  // strides of the inputs, in elements
  int64_t out_height, out_width, out_channels;
  int64_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  int32_t threads, isa;
  const float *inputs, *weights;  // weights: [out_channels][channels][kernel_height][kernel_width]
  Neurons neurons;
  uint8_t *spikes;
};

// A map of few images beside the same as tiles of it, image by image and tile by tile, as if each were an image of its own. Tile
// (row, column) begins at (row * step_y + from_y, column * step_x + from_x); it may reach beyond the map. Mirrors
// isofire.lookup.native.Tiling.
struct Tiling {
  int64_t steps, groups, images, height, width, rows, columns, tile_height, tile_width, step_y, step_x, from_y, from_x;
  uint8_t *whole, *tiles;
};

// A float map as spikes. Mirrors isofire.lookup.native.Map.
struct Map {
  int64_t steps, images, channels, height, width;
  int64_t step_t, step_n, step_c, step_y, step_x;  // strides of the float tensor, in elements
  int32_t streams, threads;
  float *values;
  uint8_t *const *packed;
};
}

namespace {

const int64_t LANES = 32, CHUNK = 4;

struct Sums {
  alignas(32) int16_t narrow[2][CHUNK][LANES];
  alignas(32) int32_t wide[2][CHUNK][LANES];
  bool is_wide;
};

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

#if HAS_AVX2

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

#endif

// A division by a power of two is a product, to the last bit.
struct Leak {
  float factor, divisor;
  bool divides;
  explicit Leak(const Neurons &n) {
    int exponent;
    divisor = n.tau;
    const bool learned = n.charge == PLIF_DECAY || n.charge == PLIF_UNDECAYED;
    const bool exact = std::frexp(n.tau, &exponent) == 0.5f && exponent > -100 && exponent < 100;
    divides = !learned && !exact;
    factor = learned ? n.tau : 1.0f / n.tau;
  }
};

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

#if HAS_AVX2

// What the 32 neurons of a channel are driven by: sums of one row, of two rows, or floats that are the input itself.
enum Source { NARROW, LOW_AND_HIGH, FLOATS };

struct Drive {
  const int16_t *low, *high;  // steps are LANES apart
  const float *floats;
  float scale, shift;
  int32_t high_shift;  // high rows count 2^high_shift times
};

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

using Fire = void (*)(const Neurons &, const Leak &, const Drive &, int64_t, float *, uint8_t, bool, uint8_t *, int64_t);

template <int SOURCE, int CHARGE, bool DIVIDES>
Fire fire_of(const Neurons &n, bool wide) {
  if (wide) return n.hard_reset ? fire_avx512_as<SOURCE, CHARGE, DIVIDES, true> : fire_avx512_as<SOURCE, CHARGE, DIVIDES, false>;
  return n.hard_reset ? fire_avx2_as<SOURCE, CHARGE, DIVIDES, true> : fire_avx2_as<SOURCE, CHARGE, DIVIDES, false>;
}

template <int SOURCE>
Fire fire_for(const Neurons &n, const Leak &leak, bool wide) {
  if (n.charge == IF) return fire_of<SOURCE, IF, false>(n, wide);
  if (n.charge == LIF_DECAY || n.charge == PLIF_DECAY)
    return leak.divides ? fire_of<SOURCE, LIF_DECAY, true>(n, wide) : fire_of<SOURCE, LIF_DECAY, false>(n, wide);
  return leak.divides ? fire_of<SOURCE, LIF_UNDECAYED, true>(n, wide) : fire_of<SOURCE, LIF_UNDECAYED, false>(n, wide);
}

template <int SOURCE>
void fire_wide(const Neurons &n, const Leak &leak, const Drive &d, int64_t out_channels, int64_t channel, int64_t steps, float *v,
               uint8_t *place, bool wide) {
  const Fire fire = fire_for<SOURCE>(n, leak, wide);
  fire(n, leak, d, steps, v, static_cast<uint8_t>(1u << (channel % 4)), channel % 4 != 0, place + channel / 4 * LANES,
       (out_channels + 3) / 4 * LANES);
}

#endif

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

#if HAS_AVX2

AVX2 void channel_avx2_general(const Layer &p, const Leak &leak, const Sums &sums, int64_t row, int64_t channel, int64_t steps,
                               float *v, uint8_t *place) {
  channel_of(p, leak, sums, row, channel, steps, v, place);
}

void channel_wide(const Layer &p, const Leak &leak, const Sums &sums, int64_t row, int64_t channel, int64_t steps, float *v,
                  uint8_t *place) {
  const Neurons &n = p.neurons;
  const bool wide = p.isa == WITH_AVX512;
  if (n.placement != NONE || sums.is_wide) return channel_avx2_general(p, leak, sums, row, channel, steps, v, place);
  const Drive d{sums.narrow[row][0], sums.narrow[1][0], nullptr, n.scale[channel], n.shift[channel], p.high_factor == 16 ? 4 : 5};
  if (p.high_factor) return fire_wide<LOW_AND_HIGH>(n, leak, d, p.out_channels, channel, steps, v, place, wide);
  fire_wide<NARROW>(n, leak, d, p.out_channels, channel, steps, v, place, wide);
}

#endif

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

// Two channels of a direct layer at one place, all steps that see the map.
INLINE void direct_of(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                      int64_t steps, bool avx2, float *v, uint8_t *place) {
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
#if HAS_AVX2
      if (avx2 && p.neurons.placement == NONE) {
        const Drive d{nullptr, nullptr, x[0], 0.0f, 0.0f, 0};
        fire_wide<FLOATS>(p.neurons, leak, d, p.out_channels, channel + row, some, membranes, place + t * step, p.isa == WITH_AVX512);
        continue;
      }
#endif
      spikes_of(p.neurons, leak, p.out_channels, channel + row, some, x, membranes, place + t * step);
    }
  }
}

void direct_portable(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                     int64_t steps, float *v, uint8_t *place) {
  direct_of(p, leak, inputs, taps, count, channel, steps, false, v, place);
}

AVX2 void direct_avx2(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                      int64_t steps, float *v, uint8_t *place) {
  direct_of(p, leak, inputs, taps, count, channel, steps, true, v, place);
}

#if HAS_AVX2
AVX512 void direct_avx512(const Direct &p, const Leak &leak, const float *inputs, const int64_t *taps, int64_t count, int64_t channel,
                          int64_t steps, float *v, uint8_t *place) {
  direct_of(p, leak, inputs, taps, count, channel, steps, true, v, place);
}
#else
const auto accumulate_avx2 = accumulate_portable;
const auto channel_wide = channel_portable;
const auto direct_avx512 = direct_portable;
#endif

// The best instruction set of this processor that this was compiled for.
Isa best_isa() {
#if HAS_AVX2
  static const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  static const Isa best = !__builtin_cpu_supports("avx2") ? PORTABLE : wide ? WITH_AVX512 : WITH_AVX2;
  return best;
#else
  return PORTABLE;
#endif
}

// Threads for about so many nanoseconds of work: to wake others, which then wait for more beside this one, costs what a small layer takes.
int32_t threads_for(int32_t threads, int64_t nanoseconds) { return nanoseconds < 200000 ? 1 : threads; }

int64_t look_ups(const Layer &p) {
  int64_t count = 0;
  for (const Run *run = p.runs; run < p.runs + p.pass_runs[p.passes]; ++run)
    count += (run->end - run->first) * (run->end_stream - run->first_stream);
  return count;
}

// Offsets of the taps of every place of an output row, -1 outside of the map: [out_width][taps]
void fill_taps(const Layer &p, int64_t block, int64_t y, std::vector<int64_t> &taps) {
  const int64_t place = p.steps * p.in_groups * LANES;
  int64_t *at = taps.data();
  for (int64_t x = 0; x < p.out_width; ++x)
    for (int64_t ky = 0; ky < p.kernel_height; ++ky)
      for (int64_t kx = 0; kx < p.kernel_width; ++kx) {
        const int64_t in_y = y * p.stride_y - p.pad_y + ky * p.dilation_y, in_x = x * p.stride_x - p.pad_x + kx * p.dilation_x;
        const bool inside = in_y >= 0 && in_y < p.in_height && in_x >= 0 && in_x < p.in_width;
        *at++ = inside ? ((block * p.in_height + in_y) * p.in_width + in_x) * place : -1;
      }
}

void row_of(const Layer &p, const Leak &leak, int64_t block, int64_t y) {
  const bool avx2 = p.isa >= WITH_AVX2;
  const int64_t count = p.kernel_height * p.kernel_width, out_step = (p.out_channels + 3) / 4 * LANES;
  const int64_t channels = p.high_factor ? 1 : 2;
  std::vector<int64_t> taps(static_cast<size_t>(p.out_width * count)), later(static_cast<size_t>(count));
  fill_taps(p, block, y, taps);
  Sums sums;
  for (int64_t pass = 0; pass < p.passes; ++pass) {
    const Run *run = p.runs + p.pass_runs[pass], *end = p.runs + p.pass_runs[pass + 1];
    for (int64_t x = 0; x < p.out_width; ++x) {
      alignas(32) float v[2][LANES];
      for (int64_t i = 0; i < 2 * LANES; ++i) v[i / LANES][i % LANES] = p.neurons.reset;
      uint8_t *place = p.spikes + ((block * p.out_height + y) * p.out_width + x) * p.steps * out_step;
      for (int64_t t = 0; t < p.steps; t += CHUNK) {
        const int64_t steps = p.steps - t < CHUNK ? p.steps - t : CHUNK, *from = taps.data() + x * count;
        if (t) {
          for (int64_t k = 0; k < count; ++k) later[k] = from[k] < 0 ? -1 : from[k] + t * p.in_groups * LANES;
          from = later.data();
        }
        (avx2 ? accumulate_avx2 : accumulate_portable)(p, run, end, from, steps, sums);
        for (int64_t row = 0; row < channels; ++row) {
          const int64_t channel = pass * channels + row;
          if (channel >= p.out_channels) continue;
          (avx2 ? channel_wide : channel_portable)(p, leak, sums, row, channel, steps, v[row], place + t * out_step);
        }
      }
    }
  }
}

// Rows of the inputs that an output row sees, 32 images side by side: [kernel_height][channels][width][32], zeros beyond the images.
void gather_rows(const Direct &p, int64_t map, int64_t block, int64_t y, float *to) {
  const int64_t first = block * LANES, images = p.images - first < LANES ? p.images - first : LANES;
  for (int64_t ky = 0; ky < p.kernel_height; ++ky) {
    const int64_t in_y = y * p.stride_y - p.pad_y + ky * p.dilation_y;
    if (in_y < 0 || in_y >= p.height) continue;
    for (int64_t c = 0; c < p.channels; ++c) {
      const float *from = p.inputs + map * p.step_t + first * p.step_n + c * p.step_c + in_y * p.step_y;
      float *row = to + (ky * p.channels + c) * p.width * LANES;
      for (int64_t x = 0; x < p.width; ++x) {
        for (int64_t i = 0; i < images; ++i) row[x * LANES + i] = from[i * p.step_n + x * p.step_x];
        for (int64_t i = images; i < LANES; ++i) row[x * LANES + i] = 0.0f;
      }
    }
  }
}

void direct_row(const Direct &p, const Leak &leak, int64_t block, int64_t y) {
  const auto run = p.isa == WITH_AVX512 ? direct_avx512 : p.isa == WITH_AVX2 ? direct_avx2 : direct_portable;
  const int64_t area = p.kernel_height * p.kernel_width, count = p.channels * area, step = (p.out_channels + 3) / 4 * LANES;
  std::vector<float> inputs(static_cast<size_t>(p.kernel_height * p.channels * p.width * LANES));
  std::vector<float> v(static_cast<size_t>(p.out_width * (p.out_channels + 1) * LANES), p.neurons.reset);
  std::vector<int64_t> taps(static_cast<size_t>(count));
  const int64_t steps = p.maps == 1 ? p.steps : 1;
  for (int64_t map = 0; map < p.maps; ++map) {
    gather_rows(p, map, block, y, inputs.data());
    for (int64_t x = 0; x < p.out_width; ++x) {
      for (int64_t k = 0; k < count; ++k) {
        const int64_t ky = k % area / p.kernel_width, in_y = y * p.stride_y - p.pad_y + ky * p.dilation_y;
        const int64_t in_x = x * p.stride_x - p.pad_x + k % p.kernel_width * p.dilation_x;
        const bool inside = in_y >= 0 && in_y < p.height && in_x >= 0 && in_x < p.width;
        taps[k] = inside ? ((ky * p.channels + k / area) * p.width + in_x) * LANES : -1;
      }
      float *membranes = v.data() + x * p.out_channels * LANES;
      uint8_t *place = p.spikes + (((block * p.out_height + y) * p.out_width + x) * p.steps + map) * step;
      for (int64_t channel = 0; channel < p.out_channels; channel += 2)
        run(p, leak, inputs.data(), taps.data(), count, channel, steps, membranes, place);
    }
  }
}

// Tiles from the map, zeros beyond it; or the map from tiles.
template <bool TO_TILES>
void tile(const Tiling &p) {
  const int64_t count = p.images * p.rows * p.columns, blocks = (count + LANES - 1) / LANES, inner = p.steps * p.groups;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t here = count - block * LANES < LANES ? count - block * LANES : LANES;
    int64_t first_y[LANES], first_x[LANES], images[LANES];
    for (int64_t i = 0; i < here; ++i) {
      const int64_t tile = block * LANES + i, place = tile % (p.rows * p.columns);
      images[i] = tile / (p.rows * p.columns);
      first_y[i] = place / p.columns * p.step_y + p.from_y;
      first_x[i] = place % p.columns * p.step_x + p.from_x;
    }
    for (int64_t y = 0; y < p.tile_height; ++y)
      for (int64_t x = 0; x < p.tile_width; ++x) {
        uint8_t *tiles = p.tiles + ((block * p.tile_height + y) * p.tile_width + x) * inner * LANES;
        if (TO_TILES) std::memset(tiles, 0, static_cast<size_t>(inner * LANES));
        for (int64_t i = 0; i < here; ++i) {
          const int64_t at_y = first_y[i] + y, at_x = first_x[i] + x;
          if (at_y < 0 || at_y >= p.height || at_x < 0 || at_x >= p.width) continue;
          uint8_t *whole = p.whole + (at_y * p.width + at_x) * inner * LANES + images[i], *tile = tiles + i;
          for (int64_t k = 0; k < inner; ++k)
            if (TO_TILES)
              tile[k * LANES] = whole[k * LANES];
            else
              whole[k * LANES] = tile[k * LANES];
        }
      }
  }
}

// Nibbles of one row of one block from a float map, or back.
template <bool PACK>
void convert_row(const Map &m, int64_t block, int64_t y) {
  const int64_t groups = (m.channels + 3) / 4, first = block * LANES;
  for (int64_t x = 0; x < m.width; ++x)
    for (int64_t t = 0; t < m.steps; ++t)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = ((((block * m.height + y) * m.width + x) * m.steps + t) * groups + g) * LANES;
        const int64_t channels = m.channels - 4 * g < 4 ? m.channels - 4 * g : 4;
        if (PACK)
          for (int32_t s = 0; s < m.streams; ++s) std::memset(m.packed[s] + at, 0, LANES);
#if HAS_AVX2
        if (PACK && m.streams == 1 && m.step_c == 1 && channels == 4) {
          for (int64_t i = 0; i < LANES && first + i < m.images; ++i) {
            const float *from = m.values + t * m.step_t + (first + i) * m.step_n + 4 * g + y * m.step_y + x * m.step_x;
            m.packed[0][at + i] = static_cast<uint8_t>(_mm_movemask_ps(_mm_cmpgt_ps(_mm_loadu_ps(from), _mm_setzero_ps())));
          }
          continue;
        }
#endif
        for (int64_t i = 0; i < LANES && first + i < m.images; ++i) {
          float *from = m.values + t * m.step_t + (first + i) * m.step_n + 4 * g * m.step_c + y * m.step_y + x * m.step_x;
          for (int64_t c = 0; c < channels; ++c) {
            if (PACK) {
              const int32_t value = static_cast<int32_t>(from[c * m.step_c]);
              for (int32_t s = 0; s < value && s < m.streams; ++s)
                m.packed[s][at + i] = static_cast<uint8_t>(m.packed[s][at + i] | (1u << c));
            } else {
              int32_t value = 0;
              for (int32_t s = 0; s < m.streams; ++s) value += (m.packed[s][at + i] >> c) & 1;
              from[c * m.step_c] = static_cast<float>(value);
            }
          }
        }
      }
}

// Spikes of each channel over the whole map, [T, N, C] by the strides of m.values.
void total_of(const Map &m, int64_t block, int64_t t) {
  const int64_t groups = (m.channels + 3) / 4, first = block * LANES, places = m.height * m.width;
  for (int64_t g = 0; g < groups; ++g) {
    int32_t totals[4][LANES] = {{0}};
    for (int32_t s = 0; s < m.streams; ++s)
      for (int64_t place = 0; place < places; ++place) {
        const uint8_t *at = m.packed[s] + (((block * places + place) * m.steps + t) * groups + g) * LANES;
        for (int64_t c = 0; c < 4; ++c)
          for (int64_t i = 0; i < LANES; ++i) totals[c][i] += (at[i] >> c) & 1;
      }
    for (int64_t c = 0; c < 4 && 4 * g + c < m.channels; ++c)
      for (int64_t i = 0; i < LANES && first + i < m.images; ++i)
        m.values[t * m.step_t + (first + i) * m.step_n + (4 * g + c) * m.step_c] = static_cast<float>(totals[c][i]);
  }
}

template <bool PACK>
void convert(const Map &m) {
  const int64_t blocks = (m.images + LANES - 1) / LANES;
  const int64_t nibbles = blocks * m.height * m.width * m.steps * ((m.channels + 3) / 4);
  parallel(blocks * m.height, threads_for(m.threads, 40 * nibbles), [&](int64_t task) { convert_row<PACK>(m, task / m.height, task % m.height); });
}

}  // namespace

extern "C" {

int64_t isofire_lookup_sizes(int64_t which) {
  const int64_t sizes[] = {sizeof(Layer), sizeof(Direct), sizeof(Map), sizeof(Run), sizeof(Tiling)};
  return which >= 0 && which < 5 ? sizes[which] : 0;
}

int32_t isofire_lookup_isa(void) { return best_isa(); }

void isofire_lookup_layer(const Layer *layer) {
  Layer p = *layer;
  p.isa = p.isa < best_isa() ? p.isa : best_isa();
  const Leak leak(p.neurons);
  const int64_t places = p.blocks * p.out_height * p.out_width * p.steps;
  const int32_t threads = threads_for(p.threads, places * (look_ups(p) + 8 * p.out_channels));
  parallel(p.blocks * p.out_height, threads, [&](int64_t task) { row_of(p, leak, task / p.out_height, task % p.out_height); });
}

void isofire_lookup_direct(const Direct *direct) {
  Direct p = *direct;
  p.isa = p.isa < best_isa() ? p.isa : best_isa();
  const Leak leak(p.neurons);
  const int64_t blocks = (p.images + LANES - 1) / LANES, count = p.channels * p.kernel_height * p.kernel_width;
  const int64_t neurons = blocks * p.out_height * p.out_width * p.out_channels;
  const int32_t threads = threads_for(p.threads, neurons * (4 * p.maps * count + 8 * p.steps));
  parallel(blocks * p.out_height, threads, [&](int64_t task) { direct_row(p, leak, task / p.out_height, task % p.out_height); });
}

// At most 32 images.
void isofire_lookup_to_tiles(const Tiling *tiling) { tile<true>(*tiling); }

void isofire_lookup_from_tiles(const Tiling *tiling) { tile<false>(*tiling); }

// Spikes of each neuron over all steps: uint8 [blocks][places][channels][32].
void isofire_lookup_over_time(const uint8_t *spikes, int64_t places, int64_t steps, int64_t channels, int32_t threads, uint8_t *counts) {
  const int64_t groups = (channels + 3) / 4;
  parallel(places, threads_for(threads, 5 * places * channels * steps), [&](int64_t place) {
    for (int64_t c = 0; c < channels; ++c) {
      uint8_t *to = counts + (place * channels + c) * LANES;
      std::memset(to, 0, LANES);
      for (int64_t t = 0; t < steps; ++t) {
        const uint8_t *at = spikes + ((place * steps + t) * groups + c / 4) * LANES;
        for (int64_t i = 0; i < LANES; ++i) to[i] = static_cast<uint8_t>(to[i] + ((at[i] >> (c % 4)) & 1));
      }
    }
  });
}

void isofire_lookup_totals(const Map *map) {
  const Map m = *map;
  const int64_t blocks = (m.images + LANES - 1) / LANES;
  const int64_t nibbles = blocks * m.height * m.width * m.steps * ((m.channels + 3) / 4);
  parallel(blocks * m.steps, threads_for(m.threads, 40 * nibbles), [&](int64_t task) { total_of(m, task / m.steps, task % m.steps); });
}

// Floats [T, N, C, H, W] (whole numbers 0 to `streams`) to spikes, a stream each: stream s has those above s.
void isofire_lookup_pack(const Map *map) { convert<true>(*map); }

// The sum of the streams as floats.
void isofire_lookup_unpack(const Map *map) { convert<false>(*map); }
}
