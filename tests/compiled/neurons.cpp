// The neurons' kernels on problems by chance: `neurons CASES` prints a digest of all that each wrote, the same on every machine to the
// last bit. What is right is tested from Python, on one machine. Needs neither Python nor torch.

#include "../../src/isofire/neurons/_kernels.cpp"

#include <cstdio>

#include "random.h"

namespace {

// FNV-1a, of one kernel's outputs.
struct Digest {
  const char *kernel;
  uint64_t value = 0xCBF29CE484222325u;
  template <class T>
  void add(const Memory<T> &memory) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(memory.data());
    for (int64_t i = 0; i < memory.bytes(); ++i) value = (value ^ bytes[i]) * 0x100000001B3u;
  }
  void print() const { std::printf("%s %016llx\n", kernel, static_cast<unsigned long long>(value)); }
};

Digest forward{"forward"}, backward{"backward"}, cuba_forward{"cuba forward"}, cuba_backward{"cuba backward"};
Digest moments{"moments"}, combined{"combine"}, counted{"tally and histogram"}, moved{"distance"};

Memory<float> reals(Random &random, int64_t count, float low, float high) {
  Memory<float> made(count);
  for (int64_t i = 0; i < count; ++i) made[i] = random.real(low, high);
  return made;
}

// A table of levels and the edges between them; rows side by side, or one after the other where there are many levels.
struct Table {
  Memory<float> edges, levels;
  Table(Random &random, int64_t rows, int32_t bits) : edges(rows * ((1 << bits) - 1)), levels(rows << bits) {
    const int64_t count = int64_t{1} << bits;
    for (int64_t row = 0; row < rows; ++row) {
      float edge = -1.5f, level = -1.6f;
      for (int64_t k = 0; k < count; ++k) {
        const bool beside = bits <= COMPARED_BITS;
        levels[beside ? k * rows + row : row * count + k] = level += random.real(0.0f, 4.0f / static_cast<float>(count));
        if (k + 1 < count)
          edges[beside ? k * rows + row : row * (count - 1) + k] = edge += random.real(0.0f, 4.0f / static_cast<float>(count));
      }
    }
  }
};

Problem problem_of(Random &random) {
  Problem p{};
  p.steps = random.between(1, 9), p.images = random.between(1, 3), p.channels = random.between(1, 11);
  p.plane = random.pick<int64_t>({1, random.between(2, 40), random.between(60, 300)});
  p.channels_last = random.chance(50), p.hard_reset = random.chance(50), p.detach_reset = random.chance(50);
  p.charge = random.pick<int32_t>({IF, LIF_DECAY, LIF_UNDECAYED, PLIF_DECAY, PLIF_UNDECAYED});
  p.tau = p.charge >= PLIF_DECAY ? random.real(0.1f, 0.9f) : random.pick({2.0f, 3.0f, 1.7f});
  p.surrogate = random.pick<int32_t>({SIGMOID, ATAN, TRIANGLE});
  p.alpha = random.pick({1.0f, 2.0f, 4.0f}), p.threshold = random.pick({1.0f, 0.7f});
  p.reset = p.hard_reset ? random.pick({0.0f, -0.25f}) : 0.0f;
  p.placement = random.pick<int32_t>({NONE, PRE_FIRE, POST_RESET});
  p.clipped = random.chance(50), p.k_max = 15.0f, p.threads = 1;
  return p;
}

void neuron_case(int64_t number) {
  Random random{static_cast<uint64_t>(number) * 2654435761u + 3};
  Problem p = problem_of(random);
  const bool cuba = random.chance(30), scaled = !cuba && random.chance(60);
  p.repeat = !cuba && random.chance(30);
  const int64_t inner = p.channels * p.plane, size = p.images * inner;
  const Memory<float> x = reals(random, (p.repeat ? 1 : p.steps) * size, -1.0f, 3.0f);
  const Memory<float> scale = reals(random, p.channels, -0.5f, 1.5f), shift = reals(random, p.channels, -0.5f, 0.5f);
  const Memory<float> origin = reals(random, p.channels, -1.5f, -0.5f), step = reals(random, p.channels, 0.1f, 0.3f);
  const Memory<float> lo = reals(random, p.channels, -1.5f, -0.5f), hi = reals(random, p.channels, 0.8f, 2.0f);
  const Memory<float> mean = reals(random, p.channels, -0.5f, 0.5f);
  p.x = x.data(), p.lo = lo.data(), p.hi = hi.data(), p.mean = mean.data();
  if (scaled) p.scale = scale.data(), p.shift = shift.data();
  p.level_bits = p.placement != NONE && random.chance(50) ? static_cast<int32_t>(random.between(1, 8)) : 0;
  p.table_rows = static_cast<int32_t>(random.chance(50) ? 1 : p.channels);
  const Table table(random, p.table_rows, p.level_bits);
  if (p.level_bits)
    p.edges = table.edges.data(), p.levels = table.levels.data();
  else
    p.origin = origin.data(), p.step = step.data();
  const Memory<float> tau_mem = reals(random, inner, 1.2f, 4.0f), tau_syn = reals(random, inner, 1.2f, 4.0f);
  const Memory<float> thresholds = reals(random, inner, 0.5f, 1.5f), grad_spikes = reals(random, p.steps * size, -1.0f, 1.0f);
  p.tau_mem = tau_mem.data(), p.tau_syn = tau_syn.data(), p.thresholds = thresholds.data();
  p.synapse = random.pick<int32_t>({BEFORE_DECAY, AFTER_DECAY, BEFORE_INPUT}), p.decay_input = random.chance(50);
  const Memory<float> spikes(p.steps * size), grad_in(x.count());
  const Memory<uint8_t> counts(size);
  const Memory<double> sums(isofire_tasks(&p) * 2 * p.channels), decay_sum(isofire_tasks(&p));
  p.spikes = spikes.data(), p.counts = counts.data(), p.grad_spikes = grad_spikes.data(), p.grad_in = grad_in.data();
  if (!cuba) p.sums = sums.data();
  if (!cuba && p.charge >= PLIF_DECAY) p.decay_sum = decay_sum.data();
  (cuba ? isofire_cuba_forward : isofire_forward)(&p);
  (cuba ? isofire_cuba_backward : isofire_backward)(&p);
  Digest &there = cuba ? cuba_forward : forward, &back = cuba ? cuba_backward : backward;
  there.add(spikes), there.add(counts);
  back.add(grad_in), back.add(sums), back.add(decay_sum);
}

void sums_case(int64_t number) {
  Random random{static_cast<uint64_t>(number) * 2654435761u + 4};
  const int64_t images = random.between(1, 5), channels = random.between(1, 37), plane = random.between(1, 70);
  const int64_t size = images * channels * plane;
  const int32_t last = random.chance(50);
  const Memory<float> x = reals(random, size, -3.0f, 3.0f), g = reals(random, size, -1.0f, 1.0f);
  const Memory<float> a = reals(random, channels, -1.0f, 1.0f), b = reals(random, channels, -1.0f, 1.0f);
  const Memory<double> both(images * 2 * channels);
  isofire_moments(x.data(), images, channels, plane, last, 1, both.data());
  moments.add(both);
  isofire_combine(x.data(), a.data(), b.data(), a.data(), images, channels, plane, last, 1, g.data());
  combined.add(g);
  const Memory<uint8_t> counts(size);
  for (int64_t i = 0; i < size; ++i) counts[i] = static_cast<uint8_t>(random.between(0, 255));
  const Memory<int64_t> rows(images);
  for (int64_t i = 0; i < images; ++i) rows[i] = random.between(0, 1);
  const Memory<int32_t> tallied(2 * channels * plane), histogram(2 * 65536);
  isofire_tally(counts.data(), rows.data(), images, channels * plane, 1, tallied.data());
  counted.add(tallied);
  isofire_histogram(tallied.data(), 0, tallied.count(), 65536, 2, 1, histogram.data());
  if (number % 50 == 0) counted.add(histogram);
}

// The integral of |F - G| over all values in order.
double in_order(std::vector<double> a, std::vector<double> b) {
  std::sort(a.begin(), a.end()), std::sort(b.begin(), b.end());
  const double n = static_cast<double>(a.size()), m = static_cast<double>(b.size());
  std::vector<double> all(a);
  all.insert(all.end(), b.begin(), b.end());
  std::sort(all.begin(), all.end());
  double found = 0.0;
  size_t k = 0, l = 0;
  for (size_t i = 0; i + 1 < all.size(); ++i) {
    while (k < a.size() && a[k] <= all[i]) ++k;
    while (l < b.size() && b[l] <= all[i]) ++l;
    found += std::fabs(static_cast<double>(k) / n - static_cast<double>(l) / m) * (all[i + 1] - all[i]);
  }
  return found;
}

int64_t answered = 0;

void distance_case(int64_t number) {
  Random random{static_cast<uint64_t>(number) * 2654435761u + 5};
  const bool levels = random.chance(50), shared = random.chance(20);
  std::vector<double> rates[2];
  for (auto &its : rates) {
    its.resize(random.between(1, 300));
    const float most = random.pick({1.0f, 0.3f, 40.0f});
    for (double &x : its) {
      x = random.chance(20) ? 0.0 : random.real(0.0f, most);
      if (levels) x = std::round(x * 7) / 7;
    }
  }
  if (shared) rates[1].assign(rates[0].rbegin(), rates[0].rend());
  Memory<double> a(static_cast<int64_t>(rates[0].size())), b(static_cast<int64_t>(rates[1].size())), found(1);
  std::copy(rates[0].begin(), rates[0].end(), a.data()), std::copy(rates[1].begin(), rates[1].end(), b.data());
  found[0] = isofire_emd(a.data(), a.count(), b.data(), b.count(), random.pick<int64_t>({1, 2, 16, 1000}), 1);
  const double due = in_order(rates[0], rates[1]);
  // less than 0: better sorted
  answered += found[0] >= 0.0;
  if (found[0] >= 0.0 && (shared ? found[0] != 0.0 : std::fabs(found[0] - due) > 1e-12 * (1.0 + due))) {
    std::printf("case %lld: %.17g, in order %.17g\n", static_cast<long long>(number), found[0], due);
    std::exit(1);
  }
  moved.add(found);
}

}  // namespace

int main(int count, char **arguments) {
  const int64_t cases = count > 1 ? std::atoll(arguments[1]) : 1000;
  for (int64_t number = 0; number < cases; ++number) {
    neuron_case(number);
    if (number % 4 == 0) sums_case(number);
    distance_case(number);
  }
  if (answered < cases / 10) {
    std::printf("%lld distances of %lld\n", static_cast<long long>(answered), static_cast<long long>(cases));
    return 1;
  }
  std::printf("cases %lld\n", static_cast<long long>(cases));
  for (const Digest *each : {&forward, &backward, &cuba_forward, &cuba_backward, &moments, &combined, &counted, &moved}) each->print();
}
