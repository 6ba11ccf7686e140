// Numbers of chance that are the same on every machine, memory as torch gives it, and neurons of chance.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <vector>

// splitmix64
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1)); }
  float real(float low, float high) { return low + static_cast<float>(next() >> 40) * 0x1p-24f * (high - low); }
  bool chance(int64_t percent) { return between(1, 100) <= percent; }
  template <class T>
  T pick(std::initializer_list<T> from) {
    return from.begin()[between(0, static_cast<int64_t>(from.size()) - 1)];
  }
};

// Memory of exactly this size at an address that is a multiple of 64, as a tensor's; AddressSanitizer watches its ends.
template <class T>
class Memory {
 public:
  explicit Memory(int64_t count, int fill = 0) : count_(count) {
    if (posix_memalign(reinterpret_cast<void **>(&data_), 64, static_cast<size_t>(bytes() ? bytes() : 1))) std::abort();
    std::memset(data_, fill, static_cast<size_t>(bytes()));
  }
  Memory(Memory &&other) noexcept : data_(other.data_), count_(other.count_) { other.data_ = nullptr; }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  ~Memory() { std::free(data_); }
  T *data() const { return data_; }
  int64_t count() const { return count_; }
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }
  T &operator[](int64_t at) const { return data_[at]; }

 private:
  T *data_ = nullptr;
  int64_t count_;
};

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
