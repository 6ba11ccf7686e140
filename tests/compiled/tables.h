// Tables and runs of a layer in more ways than isofire.lookup.tables makes them: breaks of chance, narrower bounds, fewer streams.

#pragma once

#include <algorithm>

#include "definition.h"

struct SomeTables {
  std::vector<Run> runs;
  std::vector<int64_t> pass_runs{0};
  Memory<int8_t> memory;
  int32_t high_factor = 0, together = 1;

  SomeTables(Random &random, const Codes &codes, int64_t streams) : memory(size_of(codes)) {
    const int32_t most = largest(codes);
    if (most > 32) high_factor = most > 135 ? 32 : 16;
    short_bound_ = random.pick<int64_t>({32767, 32767, 2000, 300});
    breaks_ = random.pick<int64_t>({0, 0, 10, 50});
    all_ = random.chance(30);
    rows_of(codes);
    const int64_t passes = rows_.out / 2, groups = (codes.in + 3) / 4;
    for (int64_t pass = 0; pass < passes; ++pass)
      for (int64_t tap = 0; tap < codes.taps; ++tap)
        for (int64_t g = 0; g < groups; ++g) fill(pass, tap, g, groups);
    for (int64_t pass = 0; pass < passes; ++pass) {
      pass_of(random, pass, groups, streams);
      pass_runs.push_back(static_cast<int64_t>(runs.size()));
    }
  }

 private:
  Codes rows_;
  int64_t short_bound_, breaks_;
  bool all_;  // whether tables of zeros are looked up too

  static int32_t largest(const Codes &codes) {
    int32_t most = 0;
    for (int32_t code : codes.values) most = std::max(most, std::abs(code));
    return most;
  }
  static int64_t size_of(const Codes &codes) {
    const int64_t rows = largest(codes) > 32 ? 2 * codes.out : codes.out + codes.out % 2;
    return rows * codes.taps * ((codes.in + 3) / 4) * 16;
  }

  void rows_of(const Codes &codes) {
    const int64_t count = high_factor ? 2 * codes.out : codes.out + codes.out % 2;
    rows_ = {count, codes.in, codes.taps, std::vector<int32_t>(static_cast<size_t>(count * codes.in * codes.taps))};
    for (int64_t o = 0; o < codes.out; ++o)
      for (int64_t i = 0; i < codes.in; ++i)
        for (int64_t tap = 0; tap < codes.taps; ++tap) {
          const int32_t code = codes.at(o, i, tap), half = high_factor / 2;
          if (!high_factor) {
            rows_.at(o, i, tap) = code;
            continue;
          }
          const int32_t low = (code + half + 16 * high_factor) % high_factor - half;
          rows_.at(2 * o, i, tap) = low;
          rows_.at(2 * o + 1, i, tap) = (code - low) / high_factor;
        }
  }

  int8_t *table(int64_t pass, int64_t tap, int64_t group, int64_t groups) const {
    return memory.data() + ((pass * rows_.taps + tap) * groups + group) * 32;
  }

  void fill(int64_t pass, int64_t tap, int64_t group, int64_t groups) {
    for (int64_t row = 0; row < 2; ++row)
      for (int64_t nibble = 0; nibble < 16; ++nibble) {
        int32_t sum = 0;
        for (int64_t c = 0; c < 4 && 4 * group + c < rows_.in; ++c)
          sum += (nibble >> c & 1) * rows_.at(2 * pass + row, 4 * group + c, tap);
        if (sum < -128 || sum > 127) std::abort();
        table(pass, tap, group, groups)[16 * row + nibble] = static_cast<int8_t>(sum);
      }
  }

  // Look-ups one by one, joined to runs where nothing comes between them.
  void pass_of(Random &random, int64_t pass, int64_t groups, int64_t streams) {
    int64_t largest = 1;
    for (int64_t at = 0; at < rows_.taps * groups * 32; ++at)
      largest = std::max<int64_t>(largest, std::abs(table(pass, 0, 0, groups)[at]));
    const int64_t width = random.between(1, std::max<int64_t>(1, std::min(streams, 127 / largest)));
    if (width < streams) together = 0;
    int64_t byte[2][2] = {{0}}, wide[2][2] = {{0}};  // [row][least, most]
    const size_t start = runs.size();
    for (int64_t tap = 0; tap < rows_.taps; ++tap)
      for (int64_t stream = 0; stream < streams; stream += width)
        for (int64_t g = 0; g < groups; ++g) {
          const int8_t *at = table(pass, tap, g, groups);
          const int64_t end = std::min(stream + width, streams);
          if (!all_ && std::all_of(at, at + 32, [](int8_t entry) { return entry == 0; })) continue;
          int64_t added[2][2];
          for (int64_t row = 0; row < 2; ++row) {
            added[row][0] = (end - stream) * std::min<int64_t>(0, *std::min_element(at + 16 * row, at + 16 * row + 16));
            added[row][1] = (end - stream) * std::max<int64_t>(0, *std::max_element(at + 16 * row, at + 16 * row + 16));
          }
          const bool some = runs.size() > start;
          const bool spills = some && exceeds(wide, added, short_bound_);
          const bool widens = spills || (some && (exceeds(byte, added, 127) || random.chance(breaks_)));
          if (widens) runs.back().widen = 1, runs.back().spill = spills;
          for (int64_t k = 0; k < 4; ++k) {
            byte[k / 2][k % 2] = (widens ? 0 : byte[k / 2][k % 2]) + added[k / 2][k % 2];
            wide[k / 2][k % 2] = (spills ? 0 : wide[k / 2][k % 2]) + added[k / 2][k % 2];
          }
          Run *last = some && !widens ? &runs.back() : nullptr;
          if (last && last->tap == tap && last->first_stream == stream && last->end == g)
            ++last->end;
          else
            runs.push_back({static_cast<int32_t>(tap), static_cast<int32_t>(g), static_cast<int32_t>(g + 1),
                            static_cast<int32_t>(stream), static_cast<int32_t>(end), 0, 0, 0, at - memory.data()});
        }
    if (runs.size() == start) runs.push_back({0, 0, 0, 0, static_cast<int32_t>(streams), 0, 0, 0, 0});
    runs.back().widen = 1;
  }

  static bool exceeds(const int64_t (*sums)[2], const int64_t (*added)[2], int64_t bound) {
    bool beyond = false;
    for (int64_t row = 0; row < 2; ++row)
      beyond |= sums[row][0] + added[row][0] < -bound - 1 || sums[row][1] + added[row][1] > bound;
    return beyond;
  }
};
