// Histograms of counts, and the earth mover's distance of two populations of rates.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "_parallel.h"

namespace {

// counts of each value 0..levels-1, a histogram a task; false if a value lies outside
template <class Int>
bool histogram(const Int *values, int64_t size, int64_t levels, int64_t tasks, int32_t threads, int32_t *counts) {
  std::atomic<bool> inside{true};
  parallel(tasks, threads, [&](int64_t task) {
    const int64_t from = task * size / tasks, to = (task + 1) * size / tasks;
    int32_t *own = counts + task * levels;
    for (int64_t i = from; i < to; ++i) {
      // a negative value is a large one here
      const uint64_t value = static_cast<uint64_t>(static_cast<int64_t>(values[i]));
      if (value >= static_cast<uint64_t>(levels)) {
        inside = false;
        return;
      }
      ++own[value];
    }
  });
  return inside;
}

// The earth mover's distance is the integral of |F - G|. Over a bucket in which F - G keeps its sign it is the integral
// of F less that of G, for which each population needs one sum; only buckets in which the sign may change are sorted.
struct Population {
  struct Bucket {
    double below, lost;  // sum of the upper edge less each value, and what rounding took from it
    int64_t count;
  };
  const double *values;
  int64_t size, weight;  // weight: the size of the other, so that shares are whole numbers
  double low, high;
  int64_t least = 0;  // values that equal the least of both populations
  std::vector<Bucket> buckets;
  std::vector<double> sorted;  // of the buckets that are asked for
  std::vector<int64_t> begins;

  void find_range() {
    double lo = values[0], hi = values[0];
    for (int64_t i = 1; i < size; ++i) {
      lo = values[i] < lo ? values[i] : lo;
      hi = values[i] > hi ? values[i] : hi;
    }
    low = lo;
    high = hi;
  }
};

struct Grid {
  double low, width, inverse;
  int64_t size;
  double edge(int64_t i) const { return low + static_cast<double>(i) * width; }
  // Within the grid whatever the value; next to an edge it may be rounded to the other side.
  int64_t at(double x) const {
    const int64_t i = static_cast<int64_t>((x - low) * inverse);
    return i < 0 ? 0 : i < size ? i : size - 1;
  }
};

// A task on another thread must not throw: false where there is no memory.
template <class Work>
bool within_memory(const Work &work) {
  try {
    work();
    return true;
  } catch (const std::bad_alloc &) {
    return false;
  }
}

void fill(Population &p, const Grid &grid) {
  p.buckets.assign(grid.size, {0.0, 0.0, 0});
  int64_t least = 0;
  for (int64_t k = 0; k < p.size; ++k) {
    const double x = p.values[k];
    // dead neurons are many: a step of F, and no work for a bucket
    if (x == grid.low) {
      ++least;
      continue;
    }
    const int64_t i = grid.at(x);
    auto &bucket = p.buckets[i];
    // summed with compensation (Kahan 1965): a million equal values would add up their rounding
    const double more = (grid.edge(i + 1) - x) - bucket.lost, sum = bucket.below + more;
    bucket.lost = (sum - bucket.below) - more;
    bucket.below = sum;
    ++bucket.count;
  }
  p.least = least;
}

void sort_asked(Population &p, const Grid &grid, const std::vector<char> &asked) {
  p.begins.assign(grid.size + 1, 0);
  for (int64_t i = 0; i < grid.size; ++i) p.begins[i + 1] = p.begins[i] + (asked[i] ? p.buckets[i].count : 0);
  if (!p.begins[grid.size]) return;
  p.sorted.resize(p.begins[grid.size]);
  std::vector<int64_t> next(p.begins.begin(), p.begins.end() - 1);
  for (int64_t k = 0; k < p.size; ++k) {
    const double x = p.values[k];
    if (x == grid.low) continue;
    const int64_t i = grid.at(x);
    // rates that another thread writes meanwhile may be more than were counted
    if (asked[i] && next[i] < p.begins[i + 1]) p.sorted[next[i]++] = x;
  }
  for (int64_t i = 0; i < grid.size; ++i) {
    const auto from = p.sorted.begin() + p.begins[i], to = p.sorted.begin() + p.begins[i + 1];
    if (asked[i] && !std::is_sorted(from, to)) std::sort(from, to);
  }
}

// The integral over a bucket whose values are sorted; `ahead` is F - G before it, and after it then.
double sweep(const Population &a, const Population &b, const Grid &grid, int64_t i, int64_t &ahead) {
  int64_t k = a.begins[i], l = b.begins[i];
  const int64_t k_end = a.begins[i + 1], l_end = b.begins[i + 1];
  double at = grid.edge(i), found = 0.0;
  while (k < k_end || l < l_end) {
    const bool first = l == l_end || (k < k_end && a.sorted[k] <= b.sorted[l]);
    const double x = first ? a.sorted[k++] : b.sorted[l++];
    found += std::fabs(static_cast<double>(ahead)) * (x - at);
    ahead += first ? a.weight : -b.weight;
    at = x;
  }
  return found + std::fabs(static_cast<double>(ahead)) * (grid.edge(i + 1) - at);
}

// Less than 0 where sorting all does better: most values lie in buckets that are to be sorted, the range is too small to be
// cut into buckets, or there is no memory.
double distance(const double *first, int64_t n, const double *second, int64_t m, int64_t size, int32_t threads) {
  Population both[2];
  both[0].values = first, both[0].size = n, both[0].weight = m;
  both[1].values = second, both[1].size = m, both[1].weight = n;
  Population &a = both[0], &b = both[1];
  parallel(2, threads, [&](int64_t task) { both[task].find_range(); });
  const double low = std::min(a.low, b.low), high = std::max(a.high, b.high);
  if (low == high) return 0.0;
  const Grid grid{low, (high - low) / static_cast<double>(size), static_cast<double>(size) / (high - low), size};
  // neighbouring edges must differ, where floats lie closest and where they lie farthest apart
  if (!std::isfinite(grid.inverse) || grid.edge(size) <= grid.edge(size - 1) || grid.edge(1) <= low) return -1.0;
  std::atomic<bool> fits{true};
  parallel(2, threads, [&](int64_t task) {
    if (!within_memory([&] { fill(both[task], grid); })) fits = false;
  });
  std::vector<char> asked;
  if (!fits || !within_memory([&] { asked.assign(size, 0); })) return -1.0;
  const int64_t begin = a.least * m - b.least * n;
  double total = 0.0;
  int64_t ahead = begin, to_sort = 0;
  for (int64_t i = 0; i < size; ++i) {
    const auto &p = a.buckets[i], &q = b.buckets[i];
    const int64_t up = p.count * m, down = q.count * n;
    if (ahead < down && ahead > -up) {
      asked[i] = 1;
      to_sort += p.count + q.count;
    } else {
      total += std::fabs(static_cast<double>(ahead) * (grid.edge(i + 1) - grid.edge(i)) +
                         (p.below * static_cast<double>(m) - q.below * static_cast<double>(n)));
    }
    ahead += up - down;
  }
  if (to_sort > (n + m) / 2) return -1.0;
  parallel(2, threads, [&](int64_t task) {
    if (!within_memory([&] { sort_asked(both[task], grid, asked); })) fits = false;
  });
  if (!fits) return -1.0;
  ahead = begin;
  for (int64_t i = 0; i < size; ++i) {
    if (asked[i])
      total += sweep(a, b, grid, i, ahead);
    else
      ahead += a.buckets[i].count * m - b.buckets[i].count * n;
  }
  const double found = total / (static_cast<double>(n) * static_cast<double>(m));
  // a distance this small, but for none, may be made of rounding
  return found > 0.0 && found < 1e-6 * (high - low) ? -1.0 : found;
}

}  // namespace
