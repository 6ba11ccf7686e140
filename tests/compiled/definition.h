// What layers, neurons and maps are, number by number: no tables, no blocks of steps, a division where a division is meant.

#pragma once

#include <vector>

#include "random.h"

// Neurons of chance and the memory that they point to.
struct SomeNeurons {
  Neurons n{};
  std::vector<float> scale, shift, origin, step, edges, levels;

  // `typical`: about how large a sum is
  SomeNeurons(Random &random, int64_t channels, float typical) {
    n.charge = random.pick<int32_t>({IF, LIF_DECAY, LIF_UNDECAYED, PLIF_DECAY, PLIF_UNDECAYED});
    const bool learned = n.charge == PLIF_DECAY || n.charge == PLIF_UNDECAYED;
    n.tau = learned ? random.real(0.1f, 0.9f) : random.pick({2.0f, 2.0f, 3.0f, 1.7f, 16.0f});
    n.hard_reset = random.chance(60);
    n.reset = n.hard_reset ? random.pick({0.0f, 0.0f, -0.25f}) : 0.0f;
    n.threshold = random.pick({1.0f, 1.0f, 0.7f});
    // powers of two make membranes that are exactly the threshold
    const bool exact = random.chance(30);
    for (int64_t c = 0; c < channels; ++c) {
      scale.push_back(exact ? std::ldexp(1.0f, -std::ilogb(typical)) : random.real(-1.0f, 3.0f) / typical);
      shift.push_back(exact ? 0.0f : random.real(-0.5f, 0.8f));
    }
    n.scale = scale.data(), n.shift = shift.data();
    n.placement = random.pick<int32_t>({NONE, NONE, PRE_FIRE, POST_RESET});
    if (n.placement != NONE) membranes(random, channels);
  }

 private:
  void membranes(Random &random, int64_t channels) {
    n.state_rows = static_cast<int32_t>(random.chance(50) ? 1 : channels);
    n.level_count = random.pick<int32_t>({0, 3, 9});
    n.k_min = 0.0f, n.k_max = random.pick({3.0f, 15.0f});
    for (int32_t row = 0; row < n.state_rows; ++row) {
      origin.push_back(random.real(-1.5f, -0.5f));
      step.push_back(random.pick({0.125f, random.real(0.1f, 0.3f)}));
      float edge = random.real(-1.5f, -0.5f), level = edge - random.real(0.0f, 0.2f);
      for (int32_t k = 0; k < n.level_count; ++k) {
        levels.push_back(level += random.real(0.0f, 0.4f));
        if (k) edges.push_back(edge += random.real(0.0f, 0.4f));
      }
    }
    n.origin = origin.data(), n.step = step.data(), n.edges = edges.data(), n.levels = levels.data();
  }
};

inline float quantized(const Neurons &n, int64_t channel, float v) {
  const int64_t row = n.state_rows > 1 ? channel : 0;
  if (!n.level_count) {
    float k = (v - n.origin[row]) / n.step[row];
    k = std::nearbyint(k < n.k_min ? n.k_min : (k > n.k_max ? n.k_max : k));
    return n.origin[row] + n.step[row] * k;
  }
  int32_t above = 0;
  for (int32_t k = 0; k + 1 < n.level_count; ++k) above += v > n.edges[row * (n.level_count - 1) + k];
  return n.levels[row * n.level_count + above];
}

// One step of one neuron; whether it fires.
inline bool stepped(const Neurons &n, int64_t channel, float x, float &v) {
  const bool learned = n.charge == PLIF_DECAY || n.charge == PLIF_UNDECAYED;
  const auto leaked = [&](float y) { return learned ? y * n.tau : y / n.tau; };
  float h = v + x;
  if (n.charge == LIF_DECAY || n.charge == PLIF_DECAY) h = v + leaked(x - (v - n.reset));
  if (n.charge == LIF_UNDECAYED || n.charge == PLIF_UNDECAYED) h = v - leaked(v - n.reset) + x;
  if (n.placement == PRE_FIRE) h = quantized(n, channel, h);
  const bool fires = h >= n.threshold;
  v = !fires ? h : n.hard_reset ? n.reset : h - n.threshold;
  if (n.placement == POST_RESET) v = quantized(n, channel, v);
  return fires;
}

// Where a bit of a map lies: [block][height][width][steps][groups][32].
struct Place {
  int64_t height, width, steps, channels;
  int64_t groups() const { return (channels + 3) / 4; }
  int64_t size(int64_t blocks) const { return blocks * height * width * steps * groups() * LANES; }
  int64_t at(int64_t image, int64_t y, int64_t x, int64_t t, int64_t channel) const {
    return ((((image / LANES * height + y) * width + x) * steps + t) * groups() + channel / 4) * LANES + image % LANES;
  }
};

// Codes [out][in][taps] of a layer's weights.
struct Codes {
  int64_t out, in, taps;
  std::vector<int32_t> values;
  int32_t &at(int64_t o, int64_t i, int64_t tap) { return values[static_cast<size_t>((o * in + i) * taps + tap)]; }
  int32_t at(int64_t o, int64_t i, int64_t tap) const { return values[static_cast<size_t>((o * in + i) * taps + tap)]; }
};

// Sums of a layer by place, channel, step and image: [blocks * height * width][out][steps][32].
inline std::vector<int64_t> sums_of(const Layer &p, const Codes &codes) {
  const Place from{p.in_height, p.in_width, p.steps, codes.in};
  const int64_t places = p.out_height * p.out_width;
  std::vector<int64_t> sums(static_cast<size_t>(p.blocks * places * codes.out * p.steps * LANES));
  int64_t *to = sums.data();
  for (int64_t place = 0; place < p.blocks * places; ++place)
    for (int64_t o = 0; o < codes.out; ++o, to += p.steps * LANES)
      for (int64_t tap = 0; tap < codes.taps; ++tap) {
        const int64_t in_y = place % places / p.out_width * p.stride_y - p.pad_y + tap / p.kernel_width * p.dilation_y;
        const int64_t in_x = place % p.out_width * p.stride_x - p.pad_x + tap % p.kernel_width * p.dilation_x;
        if (in_y < 0 || in_y >= p.in_height || in_x < 0 || in_x >= p.in_width) continue;
        for (int64_t i = 0; i < codes.in; ++i)
          for (int64_t stream = 0; stream < p.streams; ++stream)
            for (int64_t t = 0; t < p.steps; ++t) {
              const uint8_t *nibbles = p.inputs[stream] + from.at(place / places * LANES, in_y, in_x, t, i);
              for (int64_t lane = 0; lane < LANES; ++lane) to[t * LANES + lane] += codes.at(o, i, tap) * ((nibbles[lane] >> (i % 4)) & 1);
            }
      }
  return sums;
}

inline std::vector<float> sums_of(const Direct &p) {
  const int64_t area = p.kernel_height * p.kernel_width, blocks = (p.images + LANES - 1) / LANES, places = p.out_height * p.out_width;
  std::vector<float> sums(static_cast<size_t>(blocks * places * p.out_channels * p.steps * LANES));
  float *to = sums.data();
  for (int64_t place = 0; place < blocks * places; ++place)
    for (int64_t o = 0; o < p.out_channels; ++o, to += p.steps * LANES)
      for (int64_t k = 0; k < p.channels * area; ++k) {
        const int64_t in_y = place % places / p.out_width * p.stride_y - p.pad_y + k % area / p.kernel_width * p.dilation_y;
        const int64_t in_x = place % p.out_width * p.stride_x - p.pad_x + k % p.kernel_width * p.dilation_x;
        if (in_y < 0 || in_y >= p.height || in_x < 0 || in_x >= p.width) continue;
        const float weight = p.weights[o * p.channels * area + k];
        const float *from = p.inputs + k / area * p.step_c + in_y * p.step_y + in_x * p.step_x;
        for (int64_t t = 0; t < p.steps; ++t)
          for (int64_t lane = 0, n = place / places * LANES; lane < LANES && n < p.images; ++lane, ++n)
            to[t * LANES + lane] += weight * from[(p.maps == 1 ? 0 : t) * p.step_t + n * p.step_n];
      }
  return sums;
}

// The threshold that one of the neurons, chosen by chance, just reaches: a last digit rounded otherwise is another spike.
template <class Sum>
void tie(Random &random, Neurons &n, const Place &to, const std::vector<Sum> &sums) {
  const int64_t channel = random.between(0, to.channels - 1), lane = random.between(0, LANES - 1);
  const int64_t place = random.between(0, static_cast<int64_t>(sums.size()) / (to.channels * to.steps * LANES) - 1);
  const Sum *at = sums.data() + (place * to.channels + channel) * to.steps * LANES + lane;
  float v = n.reset, peak = -INFINITY;
  n.threshold = INFINITY;
  for (int64_t t = 0; t < to.steps; ++t) {
    stepped(n, channel, static_cast<float>(at[t * LANES]) * n.scale[channel] + n.shift[channel], v);
    peak = v > peak ? v : peak;
  }
  n.threshold = peak;
}

template <class Sum>
void fire_by_definition(const Neurons &n, const Place &to, const std::vector<Sum> &sums, const Memory<uint8_t> &spikes) {
  const int64_t places = to.height * to.width, count = static_cast<int64_t>(sums.size()) / (to.steps * LANES);
  for (int64_t which = 0; which < count; ++which) {
    const int64_t channel = which % to.channels, place = which / to.channels;
    for (int64_t lane = 0; lane < LANES; ++lane) {
      float v = n.reset;
      for (int64_t t = 0; t < to.steps; ++t) {
        const Sum sum = sums[static_cast<size_t>((which * to.steps + t) * LANES + lane)];
        if (stepped(n, channel, static_cast<float>(sum) * n.scale[channel] + n.shift[channel], v))
          spikes[to.at(place / places * LANES + lane, place % places / to.width, place % to.width, t, channel)] |= 1u << (channel % 4);
      }
    }
  }
}
