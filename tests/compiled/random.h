// Numbers of chance that are the same on every machine, and memory as torch gives it.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

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
