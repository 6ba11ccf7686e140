// Neuron dynamics over T steps for CPUs: affine (folded batch norm) -> charge -> [quantize] -> fire -> reset -> [quantize].
//
// Every elementwise expression is written in the order of isofire/neurons/reference.py and compiled without contraction to
// fused multiply-add, so that spikes equal the reference bit for bit. Work is cut into blocks that stay in the L1 cache over
// all T steps; each tensor is read or written once. Reductions are summed per task and then in task order, so results don't
// depend on the number of threads.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "_distance.h"
#include "_parallel.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

extern "C" {

enum Charge { IF = 0, LIF_DECAY = 1, LIF_UNDECAYED = 2, PLIF_DECAY = 3, PLIF_UNDECAYED = 4 };
enum Synapse { BEFORE_DECAY = 0, AFTER_DECAY = 1, BEFORE_INPUT = 2 };
enum Placement { NONE = 0, PRE_FIRE = 1, POST_RESET = 2 };
const int32_t COMPARED_BITS = 6;  // as in isofire.neurons.state_quantizer
enum Surrogate { SIGMOID = 0, ATAN = 1, TRIANGLE = 2 };

// Mirrors isofire.neurons.native.Problem (ctypes); keep the order of the fields.
struct Problem {
  int64_t steps, images, channels, plane;  // x is [steps or 1, images, channels x plane]
  int32_t channels_last, repeat;           // channels_last: memory is [plane, channels]; repeat: x has one step, used `steps` times
  int32_t charge, hard_reset, detach_reset, placement, clipped, surrogate, threads;
  int32_t level_bits, table_rows, pad;               // a table of 2^level_bits levels, one row for all or one a channel; 0: none
  float tau, threshold, reset, alpha, k_min, k_max;  // tau: LIF time constant, or PLIF's 1/tau
  const float *scale, *shift;                        // [channels] or null
  const float *origin, *step;                        // [channels] or null: the quantizer's levels origin + step * k
  const float *edges, *levels;  // the table: [2^bits - 1 or 2^bits, rows], above COMPARED_BITS bits the other way round
  const float *lo, *hi;                              // [channels] or null: its range, outside of which no gradient passes
  const float *mean;                                 // [channels] or null: batch mean, for the reduction below
  const float *x;
  float *spikes;             // forward out, [steps, images, ...]
  uint8_t *counts;           // forward out, [images, ...]: spikes of each neuron over all steps (<= 255), or null
  const float *grad_spikes;  // backward in
  float *grad_in;            // backward out: gradient at the neuron's input, [steps or 1, images, ...]
  double *sums;              // backward out, [tasks, 2, channels] (grad, grad * (x - mean)) or null; PLIF: see decay_sum
  double *decay_sum;         // backward out, [tasks]: gradient at 1/tau, or null
  const float *tau_mem, *tau_syn, *thresholds;  // current-based LIF only: one a neuron, [channels x plane] in memory order
  int32_t synapse, decay_input;
};
}

namespace {

// How an image's elements are cut into blocks whose channel pattern is the same tile.
struct Blocks {
  int64_t size, per_image, per_task, tasks_per_image;
};

Blocks blocks_of(const Problem &p) {
  const int64_t image = p.channels * p.plane;
  int64_t target = 16384 / (p.steps > 0 ? p.steps : 1);
  target = target < 64 ? 64 : (target > 1024 ? 1024 : target);
  Blocks b;
  if (p.channels_last) {
    const int64_t rows = target / p.channels > 0 ? target / p.channels : 1;
    b.size = p.channels * (rows < p.plane ? rows : p.plane);
    b.per_image = (image + b.size - 1) / b.size;
  } else {
    b.size = p.plane < target ? p.plane : target;
    b.per_image = p.channels * ((p.plane + b.size - 1) / b.size);
  }
  b.per_task = 16384 / b.size > 0 ? 16384 / b.size : 1;
  b.tasks_per_image = (b.per_image + b.per_task - 1) / b.per_task;
  return b;
}

struct Span {
  int64_t offset, length, channel;
};

Span span_of(const Problem &p, const Blocks &b, int64_t index) {
  if (p.channels_last) {
    const int64_t offset = index * b.size, image = p.channels * p.plane;
    return {offset, image - offset < b.size ? image - offset : b.size, 0};
  }
  const int64_t per_plane = (p.plane + b.size - 1) / b.size;
  const int64_t channel = index / per_plane, start = (index % per_plane) * b.size;
  return {channel * p.plane + start, p.plane - start < b.size ? p.plane - start : b.size, channel};
}

// Per-channel values laid out along a block.
void fill_tile(const Problem &p, const float *values, int64_t channel, int64_t length, float *tile) {
  if (!values) return;
  if (!p.channels_last) {
    for (int64_t i = 0; i < length; ++i) tile[i] = values[channel];
    return;
  }
  for (int64_t i = 0; i < length; i += p.channels) std::memcpy(tile + i, values, sizeof(float) * p.channels);
}

struct Tiles {
  std::vector<float> memory;
  float *scale, *shift, *origin, *step, *lo, *hi, *mean, *spare;
  explicit Tiles(int64_t size) : memory(8 * size) {
    scale = memory.data();
    shift = scale + size;
    origin = shift + size;
    step = origin + size;
    lo = step + size;
    hi = lo + size;
    mean = hi + size;
    spare = mean + size;
  }
  void fill(const Problem &p, int64_t channel, int64_t length) {
    fill_tile(p, p.scale, channel, length, scale);
    fill_tile(p, p.shift, channel, length, shift);
    fill_tile(p, p.origin, channel, length, origin);
    fill_tile(p, p.step, channel, length, step);
    fill_tile(p, p.lo, channel, length, lo);
    fill_tile(p, p.hi, channel, length, hi);
    fill_tile(p, p.mean, channel, length, mean);
  }
};

INLINE void affine(const float *__restrict x, const float *__restrict scale, const float *__restrict shift, int64_t n,
                   float *__restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale[i] + shift[i];
}

INLINE void charge(const Problem &p, const float *__restrict x, const float *__restrict v, int64_t n, float *__restrict h) {
  const float tau = p.tau, reset = p.reset;
  switch (p.charge) {
    case IF:
      for (int64_t i = 0; i < n; ++i) h[i] = v[i] + x[i];
      break;
    case LIF_DECAY:
      for (int64_t i = 0; i < n; ++i) h[i] = v[i] + (x[i] - (v[i] - reset)) / tau;
      break;
    case LIF_UNDECAYED:
      for (int64_t i = 0; i < n; ++i) h[i] = v[i] - (v[i] - reset) / tau + x[i];
      break;
    case PLIF_DECAY:
      for (int64_t i = 0; i < n; ++i) h[i] = v[i] + (x[i] - (v[i] - reset)) * tau;
      break;
    default:
      for (int64_t i = 0; i < n; ++i) h[i] = v[i] - (v[i] - reset) * tau + x[i];
  }
}

// rint as two additions: exact for |k| < 2^22, which k_min and k_max guarantee, and it vectorises everywhere
INLINE float round_half_even(float k) {
  const float magic = 12582912.0f;
  return (k + magic) - magic;
}

// A table's value for x is the level that has as many levels below it as edges lie strictly below x. Tables lie in columns: rows
// of edges and levels are `stride` apart. The next EDGES edges: found[i] becomes the level above the last of them below x[i].
template <int EDGES>
INLINE void pass_edges(const float *__restrict x, const float *__restrict edges, const float *__restrict levels, int64_t stride,
                       int64_t n, float *__restrict found) {
  float edge[EDGES], level[EDGES];
  for (int k = 0; k < EDGES; ++k) edge[k] = edges[k * stride], level[k] = levels[k * stride];
  for (int64_t i = 0; i < n; ++i) {
    float f = found[i];
    for (int k = 0; k < EDGES; ++k) f = x[i] > edge[k] ? level[k] : f;
    found[i] = f;
  }
}

// 2^bits levels, the first column's table for all n values.
INLINE void compare_edges(const float *edges, const float *levels, int32_t bits, int64_t stride, int64_t n, float *__restrict v) {
  const int64_t most = 128;
  float found[most];
  for (int64_t from = 0; from < n; from += most) {
    const int64_t length = n - from < most ? n - from : most;
    for (int64_t i = 0; i < length; ++i) found[i] = levels[0];
    if (bits == 1) pass_edges<1>(v + from, edges, levels + stride, stride, length, found);
    if (bits == 2) pass_edges<3>(v + from, edges, levels + stride, stride, length, found);
    if (bits >= 3) pass_edges<7>(v + from, edges, levels + stride, stride, length, found);
    for (int64_t k = 7; k + 1 < (int64_t{1} << bits); k += 8)
      pass_edges<8>(v + from, edges + k * stride, levels + (k + 1) * stride, stride, length, found);
    std::memcpy(v + from, found, sizeof(float) * length);
  }
}

// Rows of `channels` values, each with the table of its column. FIRST: found[c] begins with the lowest level, not as it is.
template <int EDGES, bool FIRST>
INLINE void pass_edges_of_channels(const float *__restrict x, const float *__restrict edges, const float *__restrict levels,
                                   int64_t channels, int64_t n, float *__restrict found) {
  for (int64_t row = 0; row < n; row += channels)
    for (int64_t c = 0; c < channels; ++c) {
      float f = FIRST ? levels[c] : found[row + c];
      for (int k = 0; k < EDGES; ++k) f = x[row + c] > edges[k * channels + c] ? levels[(k + 1) * channels + c] : f;
      found[row + c] = f;
    }
}

INLINE void compare_edges_of_channels(const float *edges, const float *levels, int32_t bits, int64_t channels, int64_t n,
                                      float *scratch, float *v) {
  std::memcpy(scratch, v, sizeof(float) * n);
  if (bits == 1) return pass_edges_of_channels<1, true>(scratch, edges, levels, channels, n, v);
  if (bits == 2) return pass_edges_of_channels<3, true>(scratch, edges, levels, channels, n, v);
  pass_edges_of_channels<7, true>(scratch, edges, levels, channels, n, v);
  for (int64_t k = 7; k + 1 < (int64_t{1} << bits); k += 8)
    pass_edges_of_channels<8, false>(scratch, edges + k * channels, levels + k * channels, channels, n, v);
}

// Binary search: `n` values whose tables are `stride` edges apart (0: one for all).
INLINE void search_edges(const float *__restrict edges, const float *__restrict levels, int32_t bits, bool own, int64_t n,
                         float *__restrict v) {
  const int64_t most = 256;
  int32_t place[most], first[most];
  const int32_t count = 1 << bits, stride = own ? count : 0;
  for (int64_t from = 0; from < n; from += most) {
    const int64_t length = n - from < most ? n - from : most;
    float *__restrict x = v + from;
    for (int64_t i = 0; i < length; ++i) first[i] = static_cast<int32_t>(from + i) * stride;
    std::memset(place, 0, sizeof place);
    for (int32_t half = count >> 1; half > 0; half >>= 1)
      for (int64_t i = 0; i < length; ++i) {
        const int32_t at = place[i] + half - 1;
        const float edge = edges[own ? first[i] - static_cast<int32_t>(from + i) + at : at];
        place[i] += x[i] > edge ? half : 0;
      }
    for (int64_t i = 0; i < length; ++i) x[i] = levels[first[i] + place[i]];
  }
}

INLINE void look_up(const Problem &p, const Tiles &tile, int64_t channel, int64_t n, float *__restrict v) {
  const bool side_by_side = p.table_rows > 1 && p.channels_last;
  const int64_t row = p.table_rows > 1 && !p.channels_last ? channel : 0;
  const int32_t bits = p.level_bits, count = 1 << bits;
  if (bits <= COMPARED_BITS) {
    if (side_by_side) return compare_edges_of_channels(p.edges, p.levels, bits, p.channels, n, tile.spare, v);
    return compare_edges(p.edges + row, p.levels + row, bits, p.table_rows, n, v);
  }
  if (!side_by_side) return search_edges(p.edges + row * (count - 1), p.levels + row * count, bits, false, n, v);
  for (int64_t at = 0; at < n; at += p.channels) search_edges(p.edges, p.levels, bits, true, p.channels, v + at);
}

INLINE void quantize(const Problem &p, const Tiles &tile, int64_t channel, int64_t n, float *__restrict v) {
  if (p.level_bits) return look_up(p, tile, channel, n, v);
  const float lo = p.k_min, hi = p.k_max;
  const float *__restrict origin = tile.origin, *__restrict step = tile.step;
  for (int64_t i = 0; i < n; ++i) {
    float k = (v[i] - origin[i]) / step[i];
    k = k < lo ? lo : (k > hi ? hi : k);
    v[i] = origin[i] + step[i] * round_half_even(k);
  }
}

INLINE void fire(const Problem &p, const float *__restrict h, int64_t n, float *__restrict s) {
  const float threshold = p.threshold;
  for (int64_t i = 0; i < n; ++i) s[i] = h[i] >= threshold ? 1.0f : 0.0f;
}

INLINE void reset(const Problem &p, const float *__restrict h, const float *__restrict s, int64_t n, float *__restrict v) {
  const float to = p.reset, threshold = p.threshold;
  if (p.hard_reset)
    for (int64_t i = 0; i < n; ++i) v[i] = s[i] * to + (1.0f - s[i]) * h[i];
  else
    for (int64_t i = 0; i < n; ++i) v[i] = h[i] - s[i] * threshold;
}

// exp(x) for x <= 0 as 2^(x log2 e) by range reduction and a degree-6 polynomial: relative error < 2e-7, vectorisable;
// 0 below -87, where the value (1.6e-38) nears the end of float32's normal range
INLINE float exp_negative(float given) {
  const float x = given < -87.0f ? -87.0f : given;
  const float magic = 12582912.0f;
  const float n = (x * 1.44269504f + magic) - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.9875691500e-4f;
  e = e * r + 1.3981999507e-3f;
  e = e * r + 8.3334519073e-3f;
  e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f;
  e = e * r + 5.0000001201e-1f;
  e = e * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float two_n;
  std::memcpy(&two_n, &bits, sizeof two_n);
  return given < -87.0f ? 0.0f : e * two_n;
}

INLINE void surrogate(const Problem &p, const float *__restrict h, int64_t n, float *__restrict slope) {
  const float alpha = p.alpha, threshold = p.threshold;
  switch (p.surrogate) {
    case SIGMOID:
      for (int64_t i = 0; i < n; ++i) {
        const float e = exp_negative(-alpha * std::fabs(h[i] - threshold));
        slope[i] = alpha * e / ((1.0f + e) * (1.0f + e));
      }
      break;
    case ATAN: {
      const float k = 1.57079632679f * alpha;
      for (int64_t i = 0; i < n; ++i) {
        const float u = k * (h[i] - threshold);
        slope[i] = alpha / (2.0f * (1.0f + u * u));
      }
      break;
    }
    default:
      for (int64_t i = 0; i < n; ++i) {
        const float d = 1.0f - alpha * std::fabs(h[i] - threshold);
        slope[i] = alpha * (d > 0.0f ? d : 0.0f);
      }
  }
}

struct Step {
  float *h, *v;  // membrane before fire (after a pre-fire quantizer) and after reset (after a post-reset quantizer)
};

// One step for one block. `raw`, if given, receives the value that entered the quantizer.
INLINE void advance(const Problem &p, const Tiles &tile, int64_t channel, const float *x, const float *v_before, int64_t n, Step out,
                    float *s, float *y, float *raw) {
  const float *input = x;
  if (p.scale) {
    affine(x, tile.scale, tile.shift, n, y);
    input = y;
  }
  charge(p, input, v_before, n, out.h);
  if (p.placement == PRE_FIRE) {
    if (raw) std::memcpy(raw, out.h, sizeof(float) * n);
    quantize(p, tile, channel, n, out.h);
  }
  fire(p, out.h, n, s);
  reset(p, out.h, s, n, out.v);
  if (p.placement == POST_RESET) {
    if (raw) std::memcpy(raw, out.v, sizeof(float) * n);
    quantize(p, tile, channel, n, out.v);
  }
}

// counts[i] = sum over t of spikes[t][i], four steps at a time so that the running sum is stored T / 4 times
INLINE void count_spikes(const float *spikes, int64_t steps, int64_t stride, int64_t n, float *__restrict total,
                         uint8_t *__restrict counts) {
  std::memset(total, 0, sizeof(float) * n);
  int64_t t = 0;
  for (; t + 4 <= steps; t += 4) {
    const float *__restrict a = spikes + t * stride, *__restrict b = a + stride, *__restrict c = b + stride,
                *__restrict d = c + stride;
    for (int64_t i = 0; i < n; ++i) total[i] += (a[i] + b[i]) + (c[i] + d[i]);
  }
  for (; t < steps; ++t)
    for (int64_t i = 0; i < n; ++i) total[i] += spikes[t * stride + i];
  for (int64_t i = 0; i < n; ++i) counts[i] = static_cast<uint8_t>(static_cast<int32_t>(total[i]));
}

CLONES void forward_block(const Problem &p, const Tiles &tile, int64_t at, int64_t n, int64_t channel, float *scratch, int64_t size) {
  const int64_t stride = p.images * p.channels * p.plane;
  float *h = scratch, *v = h + size, *y = v + size;
  for (int64_t i = 0; i < n; ++i) v[i] = p.hard_reset ? p.reset : 0.0f;
  for (int64_t t = 0; t < p.steps; ++t) {
    const float *x = p.x + at + (p.repeat ? 0 : t * stride);
    advance(p, tile, channel, x, v, n, {h, v}, p.spikes + at + t * stride, y, nullptr);
  }
  if (p.counts) count_spikes(p.spikes + at, p.steps, stride, n, y, p.counts + at);
}

// g *= 1 inside the quantizer's range, 0 outside (clipped straight-through)
INLINE void mask_range(const Problem &p, const Tiles &tile, const float *__restrict raw, int64_t n, float *__restrict g) {
  if (!p.clipped) return;
  const float *__restrict lo = tile.lo, *__restrict hi = tile.hi;
  for (int64_t i = 0; i < n; ++i) g[i] = raw[i] >= lo[i] && raw[i] <= hi[i] ? g[i] : 0.0f;
}

// Adds one step's gradient through fire and reset: g_v becomes the gradient at the charged membrane.
INLINE void through_reset(const Problem &p, const float *__restrict h, const float *__restrict gs, const float *__restrict slope,
                          int64_t n, float *__restrict g) {
  const float threshold = p.threshold, to = p.reset;
  if (p.hard_reset && p.detach_reset)
    for (int64_t i = 0; i < n; ++i) g[i] = (h[i] >= threshold ? 0.0f : g[i]) + gs[i] * slope[i];
  else if (p.hard_reset)
    for (int64_t i = 0; i < n; ++i)
      g[i] = (h[i] >= threshold ? 0.0f : g[i]) + (gs[i] + g[i] * (to - h[i])) * slope[i];
  else if (p.detach_reset)
    for (int64_t i = 0; i < n; ++i) g[i] = g[i] + gs[i] * slope[i];
  else
    for (int64_t i = 0; i < n; ++i) g[i] = g[i] + (gs[i] - g[i] * threshold) * slope[i];
}

// From the gradient at the charged membrane: the gradients at the input (gx) and at the previous membrane (g, in place).
INLINE void through_charge(const Problem &p, int64_t n, float *__restrict g, float *__restrict gx) {
  const float tau = p.tau;
  switch (p.charge) {
    case IF:
      for (int64_t i = 0; i < n; ++i) gx[i] = g[i];
      break;
    case LIF_DECAY:
      for (int64_t i = 0; i < n; ++i) {
        gx[i] = g[i] / tau;
        g[i] = g[i] - gx[i];
      }
      break;
    case LIF_UNDECAYED:
      for (int64_t i = 0; i < n; ++i) {
        gx[i] = g[i];
        g[i] = g[i] - g[i] / tau;
      }
      break;
    case PLIF_DECAY:
      for (int64_t i = 0; i < n; ++i) {
        gx[i] = g[i] * tau;
        g[i] = g[i] - gx[i];
      }
      break;
    default:
      for (int64_t i = 0; i < n; ++i) {
        gx[i] = g[i];
        g[i] = g[i] - g[i] * tau;
      }
  }
}

// d loss / d (1/tau) of one step, summed over the block
INLINE double decay_gradient(const Problem &p, const float *__restrict y, const float *__restrict v, const float *__restrict g,
                             int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const float drive = p.charge == PLIF_DECAY ? y[i] - (v[i] - p.reset) : -(v[i] - p.reset);
    sum += static_cast<double>(g[i]) * drive;
  }
  return sum;
}

// sums[0][c] += grad, sums[1][c] += grad * (x - mean)
INLINE void add_channel_sums(const Problem &p, const Tiles &tile, const float *__restrict g, const float *__restrict x, int64_t n,
                             int64_t channel, double *__restrict sums) {
  double *__restrict plain = sums, *__restrict cross = sums + p.channels;
  if (p.channels_last) {
    const int64_t channels = p.channels;
    for (int64_t row = 0; row < n; row += channels)
      for (int64_t c = 0; c < channels; ++c) {
        plain[c] += g[row + c];
        cross[c] += static_cast<double>(g[row + c]) * (x[row + c] - tile.mean[c]);
      }
    return;
  }
  double a[8] = {0}, b[8] = {0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) {
      a[j] += g[i + j];
      b[j] += static_cast<double>(g[i + j]) * (x[i + j] - tile.mean[0]);
    }
  for (; i < n; ++i) {
    a[0] += g[i];
    b[0] += static_cast<double>(g[i]) * (x[i] - tile.mean[0]);
  }
  for (int64_t j = 0; j < 8; ++j) {
    plain[channel] += a[j];
    cross[channel] += b[j];
  }
}

CLONES void backward_block(const Problem &p, const Tiles &tile, int64_t at, int64_t n, int64_t channel, float *scratch, int64_t size,
                           double *sums, double *decay_sum) {
  const int64_t stride = p.images * p.channels * p.plane;
  const bool quantized = p.placement != NONE, learns_decay = decay_sum != nullptr;
  float *spike = scratch, *g = spike + size, *slope = g + size, *repeated = slope + size;
  float *h = repeated + size, *v = h + p.steps * size, *raw = v + (p.steps + 1) * size;
  float *y = raw + (quantized ? p.steps : 0) * size;
  for (int64_t i = 0; i < n; ++i) v[i] = p.hard_reset ? p.reset : 0.0f;
  for (int64_t t = 0; t < p.steps; ++t) {
    const float *x = p.x + at + (p.repeat ? 0 : t * stride);
    advance(p, tile, channel, x, v + t * size, n, {h + t * size, v + (t + 1) * size}, spike, learns_decay ? y + t * size : y,
            quantized ? raw + t * size : nullptr);
  }
  std::memset(g, 0, sizeof(float) * n);
  if (p.repeat) std::memset(repeated, 0, sizeof(float) * n);
  for (int64_t t = p.steps - 1; t >= 0; --t) {
    const float *ht = h + t * size, *gs = p.grad_spikes + at + t * stride;
    float *gx = p.repeat ? spike : p.grad_in + at + t * stride;
    surrogate(p, ht, n, slope);
    if (p.placement == POST_RESET) mask_range(p, tile, raw + t * size, n, g);
    through_reset(p, ht, gs, slope, n, g);
    if (p.placement == PRE_FIRE) mask_range(p, tile, raw + t * size, n, g);
    if (learns_decay) {
      const float *input = p.scale ? y + t * size : p.x + at + (p.repeat ? 0 : t * stride);
      *decay_sum += decay_gradient(p, input, v + t * size, g, n);
    }
    through_charge(p, n, g, gx);
    if (p.repeat)
      for (int64_t i = 0; i < n; ++i) repeated[i] += gx[i];
    else if (sums)
      add_channel_sums(p, tile, gx, p.x + at + t * stride, n, channel, sums);
  }
  if (p.repeat) {
    std::memcpy(p.grad_in + at, repeated, sizeof(float) * n);
    if (sums) add_channel_sums(p, tile, repeated, p.x + at, n, channel, sums);
  }
}

// Current-based LIF. i: the synaptic current, before and after the step; `used` receives the current that charges the membrane.
INLINE void synapse(const Problem &p, const float *__restrict tau, const float *__restrict x, int64_t n, float *__restrict i,
                    float *__restrict used) {
  switch (p.synapse) {
    case BEFORE_DECAY:
      for (int64_t k = 0; k < n; ++k) used[k] = i[k] = i[k] - i[k] / tau[k] + x[k];
      break;
    case AFTER_DECAY:
      for (int64_t k = 0; k < n; ++k) {
        const float reached = i[k] + x[k];
        used[k] = i[k] = reached - reached / tau[k];
      }
      break;
    default:
      for (int64_t k = 0; k < n; ++k) {
        used[k] = i[k];
        i[k] = i[k] - i[k] / tau[k] + x[k];
      }
  }
}

INLINE void cuba_advance(const Problem &p, const Tiles &tile, int64_t where, int64_t channel, const float *x, const float *v_before,
                         int64_t n, Step out, float *__restrict i, float *__restrict used, float *__restrict s, float *raw) {
  const float *__restrict tau = p.tau_mem + where, *__restrict threshold = p.thresholds + where, *__restrict v = v_before;
  float *__restrict h = out.h, *__restrict after = out.v;
  const float to = p.reset;
  synapse(p, p.tau_syn + where, x, n, i, used);
  if (p.decay_input)
    for (int64_t k = 0; k < n; ++k) h[k] = v[k] + (used[k] - (v[k] - to)) / tau[k];
  else
    for (int64_t k = 0; k < n; ++k) h[k] = v[k] - (v[k] - to) / tau[k] + used[k];
  if (p.placement == PRE_FIRE) {
    if (raw) std::memcpy(raw, h, sizeof(float) * n);
    quantize(p, tile, channel, n, h);
  }
  for (int64_t k = 0; k < n; ++k) s[k] = h[k] >= threshold[k] ? 1.0f : 0.0f;
  if (p.hard_reset)
    for (int64_t k = 0; k < n; ++k) after[k] = s[k] * to + (1.0f - s[k]) * h[k];
  else
    for (int64_t k = 0; k < n; ++k) after[k] = h[k] - s[k] * threshold[k];
  if (p.placement == POST_RESET) {
    if (raw) std::memcpy(raw, after, sizeof(float) * n);
    quantize(p, tile, channel, n, after);
  }
}

CLONES void cuba_forward_block(const Problem &p, const Tiles &tile, int64_t where, int64_t at, int64_t n, int64_t channel,
                               float *scratch, int64_t size) {
  const int64_t stride = p.images * p.channels * p.plane;
  float *h = scratch, *v = h + size, *i = v + size, *used = i + size;
  for (int64_t k = 0; k < n; ++k) v[k] = p.hard_reset ? p.reset : 0.0f, i[k] = 0.0f;
  for (int64_t t = 0; t < p.steps; ++t)
    cuba_advance(p, tile, where, channel, p.x + at + t * stride, v, n, {h, v}, i, used, p.spikes + at + t * stride, nullptr);
  if (p.counts) count_spikes(p.spikes + at, p.steps, stride, n, used, p.counts + at);
}

// From the gradients at the current that charged (u) and at the one left for the next step (gi): at the input, and gi of the step
// before in place.
INLINE void through_synapse(const Problem &p, const float *__restrict tau, const float *__restrict u, int64_t n,
                            float *__restrict gi, float *__restrict gx) {
  switch (p.synapse) {
    case BEFORE_DECAY:
      for (int64_t k = 0; k < n; ++k) {
        gx[k] = gi[k] + u[k];
        gi[k] = gx[k] - gx[k] / tau[k];
      }
      break;
    case AFTER_DECAY:
      for (int64_t k = 0; k < n; ++k) {
        const float left = gi[k] + u[k];
        gx[k] = gi[k] = left - left / tau[k];
      }
      break;
    default:
      for (int64_t k = 0; k < n; ++k) {
        gx[k] = gi[k];
        gi[k] = gi[k] - gi[k] / tau[k] + u[k];
      }
  }
}

CLONES void cuba_backward_block(const Problem &p, const Tiles &tile, int64_t where, int64_t at, int64_t n, int64_t channel,
                                float *scratch, int64_t size) {
  const int64_t stride = p.images * p.channels * p.plane;
  const bool quantized = p.placement != NONE;
  const float *__restrict tau = p.tau_mem + where, *__restrict threshold = p.thresholds + where;
  float *__restrict g = scratch, *__restrict slope = g + size, *__restrict gi = slope + size, *__restrict u = gi + size;
  float *i = u + size, *h = i + size, *v = h + p.steps * size, *raw = v + (p.steps + 1) * size;
  for (int64_t k = 0; k < n; ++k) v[k] = p.hard_reset ? p.reset : 0.0f, i[k] = g[k] = gi[k] = 0.0f;
  for (int64_t t = 0; t < p.steps; ++t)
    cuba_advance(p, tile, where, channel, p.x + at + t * stride, v + t * size, n, {h + t * size, v + (t + 1) * size}, i, u, slope,
                 quantized ? raw + t * size : nullptr);
  Problem at_zero = p;
  at_zero.threshold = 0.0f;
  for (int64_t t = p.steps - 1; t >= 0; --t) {
    const float *__restrict ht = h + t * size, *__restrict gs = p.grad_spikes + at + t * stride;
    for (int64_t k = 0; k < n; ++k) u[k] = ht[k] - threshold[k];
    surrogate(at_zero, u, n, slope);
    if (p.placement == POST_RESET) mask_range(p, tile, raw + t * size, n, g);
    const float through = p.detach_reset ? 0.0f : 1.0f, to = p.reset;
    if (p.hard_reset)
      for (int64_t k = 0; k < n; ++k)
        g[k] = (ht[k] >= threshold[k] ? 0.0f : g[k]) + (gs[k] + through * g[k] * (to - ht[k])) * slope[k];
    else
      for (int64_t k = 0; k < n; ++k) g[k] = g[k] + (gs[k] - through * g[k] * threshold[k]) * slope[k];
    if (p.placement == PRE_FIRE) mask_range(p, tile, raw + t * size, n, g);
    for (int64_t k = 0; k < n; ++k) {
      const float leak = g[k] / tau[k];
      u[k] = p.decay_input ? leak : g[k];
      g[k] = g[k] - leak;
    }
    through_synapse(p, p.tau_syn + where, u, n, gi, p.grad_in + at + t * stride);
  }
}

CLONES void moments_rows(const float *__restrict x, int64_t rows, int64_t channels, double *__restrict sums) {
  double *__restrict plain = sums, *__restrict square = sums + channels;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < channels; ++c) {
      const double value = x[r * channels + c];
      plain[c] += value;
      square[c] += value * value;
    }
}

CLONES void moments_plane(const float *__restrict x, int64_t n, double *plain, double *square) {
  double a[8] = {0}, b[8] = {0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) {
      const double value = x[i + j];
      a[j] += value;
      b[j] += value * value;
    }
  for (; i < n; ++i) {
    a[0] += x[i];
    b[0] += static_cast<double>(x[i]) * x[i];
  }
  for (int64_t j = 0; j < 8; ++j) {
    *plain += a[j];
    *square += b[j];
  }
}

CLONES void add_bytes(const uint8_t *__restrict bytes, int64_t n, int32_t *__restrict sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += bytes[i];
}

CLONES void combine_rows(const float *__restrict x, const float *__restrict a, const float *__restrict b, const float *__restrict c,
                         int64_t rows, int64_t channels, float *__restrict g) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < channels; ++k) {
      const int64_t i = r * channels + k;
      g[i] = a[k] * g[i] + (b[k] * x[i] + c[k]);
    }
}

CLONES void combine_plane(const float *__restrict x, float a, float b, float c, int64_t n, float *__restrict g) {
  for (int64_t i = 0; i < n; ++i) g[i] = a * g[i] + (b * x[i] + c);
}

}  // namespace

extern "C" {

// 1 if kernels share torch's thread pool, 0 if they run on one thread
int isofire_parallel(void) { return find_parallel() != nullptr; }

int64_t isofire_problem_size(void) { return sizeof(Problem); }

// Tasks of a backward pass: the first dimension of `sums` and `decay_sum`.
int64_t isofire_tasks(const Problem *p) { return p->images * blocks_of(*p).tasks_per_image; }

void isofire_forward(const Problem *problem) {
  const Problem p = *problem;
  const Blocks b = blocks_of(p);
  parallel(p.images * b.tasks_per_image, p.threads, [&](int64_t task) {
    const int64_t image = task / b.tasks_per_image, first = (task % b.tasks_per_image) * b.per_task;
    Tiles tile(b.size);
    std::vector<float> scratch(3 * b.size);
    if (p.channels_last) tile.fill(p, 0, b.size);
    for (int64_t i = first; i < first + b.per_task && i < b.per_image; ++i) {
      const Span span = span_of(p, b, i);
      if (!p.channels_last) tile.fill(p, span.channel, span.length);
      forward_block(p, tile, image * p.channels * p.plane + span.offset, span.length, span.channel, scratch.data(), b.size);
    }
  });
}

void isofire_backward(const Problem *problem) {
  const Problem p = *problem;
  const Blocks b = blocks_of(p);
  parallel(p.images * b.tasks_per_image, p.threads, [&](int64_t task) {
    const int64_t image = task / b.tasks_per_image, first = (task % b.tasks_per_image) * b.per_task;
    Tiles tile(b.size);
    std::vector<float> scratch((4 + 4 * p.steps + 1) * b.size);
    if (p.channels_last) tile.fill(p, 0, b.size);
    double *sums = p.sums ? p.sums + task * 2 * p.channels : nullptr;
    double *decay = p.decay_sum ? p.decay_sum + task : nullptr;
    for (int64_t i = first; i < first + b.per_task && i < b.per_image; ++i) {
      const Span span = span_of(p, b, i);
      if (!p.channels_last) tile.fill(p, span.channel, span.length);
      backward_block(p, tile, image * p.channels * p.plane + span.offset, span.length, span.channel, scratch.data(), b.size, sums,
                     decay);
    }
  });
}

// Current-based LIF, forward and backward. No norm, no repeat.
static void cuba(const Problem &p, bool backward) {
  const Blocks b = blocks_of(p);
  parallel(p.images * b.tasks_per_image, p.threads, [&](int64_t task) {
    const int64_t image = task / b.tasks_per_image, first = (task % b.tasks_per_image) * b.per_task;
    Tiles tile(b.size);
    std::vector<float> scratch((backward ? 5 + 3 * p.steps + 1 : 4) * b.size);
    if (p.channels_last) tile.fill(p, 0, b.size);
    for (int64_t k = first; k < first + b.per_task && k < b.per_image; ++k) {
      const Span span = span_of(p, b, k);
      if (!p.channels_last) tile.fill(p, span.channel, span.length);
      const int64_t at = image * p.channels * p.plane + span.offset;
      (backward ? cuba_backward_block : cuba_forward_block)(p, tile, span.offset, at, span.length, span.channel, scratch.data(),
                                                            b.size);
    }
  });
}

void isofire_cuba_forward(const Problem *problem) { cuba(*problem, false); }

void isofire_cuba_backward(const Problem *problem) { cuba(*problem, true); }

// Per image and channel: sums[i] = (sum x, sum x^2), [images, 2, channels], zeroed by the caller. `images` counts T * N.
void isofire_moments(const float *x, int64_t images, int64_t channels, int64_t plane, int32_t channels_last, int32_t threads,
                     double *sums) {
  parallel(images, threads, [&](int64_t image) {
    const float *at = x + image * channels * plane;
    double *out = sums + image * 2 * channels;
    if (channels_last) {
      moments_rows(at, plane, channels, out);
      return;
    }
    for (int64_t c = 0; c < channels; ++c) moments_plane(at + c * plane, plane, out + c, out + channels + c);
  });
}

// sums[row[image]][i] += counts[image][i] for counts [images, size] and sums [rows, size].
void isofire_tally(const uint8_t *counts, const int64_t *row, int64_t images, int64_t size, int32_t threads, int32_t *sums) {
  const int64_t slice = 4096;
  parallel((size + slice - 1) / slice, threads, [&](int64_t task) {
    const int64_t from = task * slice, n = size - from < slice ? size - from : slice;
    for (int64_t image = 0; image < images; ++image)
      add_bytes(counts + image * size + from, n, sums + row[image] * size + from);
  });
}

// counts [tasks, levels], zeros before: how often each value occurs in the task's part of int32 or int64 values [size];
// 0 if a value is negative or not below levels, and counts then hold nothing of use.
int isofire_histogram(const void *values, int32_t wide, int64_t size, int64_t levels, int64_t tasks, int32_t threads, int32_t *counts) {
  return wide ? histogram(static_cast<const int64_t *>(values), size, levels, tasks, threads, counts)
              : histogram(static_cast<const int32_t *>(values), size, levels, tasks, threads, counts);
}

// The earth mover's distance of finite rates a [n] and b [m], n * m < 2^62, by so many buckets of their range, fewer than
// 2^31; less than 0 where they are better sorted.
double isofire_emd(const double *a, int64_t n, const double *b, int64_t m, int64_t buckets, int32_t threads) {
  return distance(a, n, b, m, buckets, threads);
}

// In place: g = a[c] * g + (b[c] * x + c[c]), the second pass of batch norm's backward.
void isofire_combine(const float *x, const float *a, const float *b, const float *c, int64_t images, int64_t channels, int64_t plane,
                     int32_t channels_last, int32_t threads, float *g) {
  parallel(images, threads, [&](int64_t image) {
    const int64_t at = image * channels * plane;
    if (channels_last) {
      combine_rows(x + at, a, b, c, plane, channels, g + at);
      return;
    }
    for (int64_t k = 0; k < channels; ++k) combine_plane(x + at + k * plane, a[k], b[k], c[k], plane, g + at + k * plane);
  });
}
}
