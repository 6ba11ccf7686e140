// Convolutions of spikes with low-bit weights by look-up, and the neurons behind them.
//
// Four input channels of one place and step are a nibble; with weights that never change, what they add to an output is one of 16
// numbers, kept in a table. A byte shuffle looks up 32 images at once. Maps lie as [block of 32 images][y][x][t][channels / 4][32].
//
// Sums are whole numbers, the same in any order; everything behind them is written in the order of isofire/neurons/dynamics.py and
// compiled without fused multiply-add. So all instruction sets give the same spikes, in any batch and with any number of threads.

#include <vector>

#include "../neurons/_parallel.h"
#include "_maps.h"
#include "_path.h"

namespace {

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

void row_of(const Layer &p, const Path &path, const Leak &leak, int64_t block, int64_t y) {
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
        path.accumulate(p, run, end, from, steps, sums);
        for (int64_t row = 0; row < channels; ++row) {
          const int64_t channel = pass * channels + row;
          if (channel >= p.out_channels) continue;
          path.channel(p, leak, sums, row, channel, steps, v[row], place + t * out_step);
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

void direct_row(const Direct &p, const Path &path, const Leak &leak, int64_t block, int64_t y) {
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
        path.direct(p, leak, inputs.data(), taps.data(), count, channel, steps, membranes, place);
    }
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
  const Layer &p = *layer;
  const Path &path = path_of(p.isa);
  const Leak leak(p.neurons);
  const int64_t places = p.blocks * p.out_height * p.out_width * p.steps;
  const int32_t threads = threads_for(p.threads, places * (look_ups(p) + 8 * p.out_channels));
  parallel(p.blocks * p.out_height, threads, [&](int64_t task) { row_of(p, path, leak, task / p.out_height, task % p.out_height); });
}

void isofire_lookup_direct(const Direct *direct) {
  const Direct &p = *direct;
  const Path &path = path_of(p.isa);
  const Leak leak(p.neurons);
  const int64_t blocks = (p.images + LANES - 1) / LANES, count = p.channels * p.kernel_height * p.kernel_width;
  const int64_t neurons = blocks * p.out_height * p.out_width * p.out_channels;
  const int32_t threads = threads_for(p.threads, neurons * (4 * p.maps * count + 8 * p.steps));
  parallel(blocks * p.out_height, threads, [&](int64_t task) { direct_row(p, path, leak, task / p.out_height, task % p.out_height); });
}

void isofire_lookup_retile(const Tiling *tiling) { retile(*tiling); }

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
