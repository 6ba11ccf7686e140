// What the look-ups are told of a layer, and how maps and sums lie in memory.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// ISOFIRE_PORTABLE leaves intrinsics out, as other compilers and processors do
#if defined(__GNUC__) && defined(__x86_64__) && !defined(ISOFIRE_PORTABLE)
#define HAS_AVX2 1
#else
#define HAS_AVX2 0
#endif
#if defined(__GNUC__) && defined(__aarch64__) && defined(__ARM_NEON) && !defined(ISOFIRE_PORTABLE)
#define HAS_NEON 1
#else
#define HAS_NEON 0
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

extern "C" {

enum Charge { IF = 0, LIF_DECAY = 1, LIF_UNDECAYED = 2, PLIF_DECAY = 3, PLIF_UNDECAYED = 4 };
enum Placement { NONE = 0, PRE_FIRE = 1, POST_RESET = 2 };
enum Isa { PORTABLE = 0, WITH_AVX2 = 1, WITH_AVX512 = 2, WITH_NEON = 3 };  // places in isofire.lookup.native.ISAS

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

}

namespace {

const int64_t LANES = 32, CHUNK = 4;

struct Sums {
  alignas(32) int16_t narrow[2][CHUNK][LANES];
  alignas(32) int32_t wide[2][CHUNK][LANES];
  bool is_wide;
};

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

// What the 32 neurons of a channel are driven by: sums of one row, of two rows, or floats that are the input itself.
enum Source { NARROW, LOW_AND_HIGH, FLOATS };

struct Drive {
  const int16_t *low, *high;  // steps are LANES apart
  const float *floats;
  float scale, shift;
  int32_t high_shift;  // high rows count 2^high_shift times
};

}  // namespace
