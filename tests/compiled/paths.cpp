// Every path that is compiled here, beside what layers and maps are by definition: `paths CASES` prints what it ran and a digest of all
// spikes, which is the same on every machine. Needs neither Python nor torch, so that it also runs in an emulator.

#include "../../src/isofire/lookup/_tables.cpp"

#include <cstdio>
#include <string>

#include "definition.h"
#include "random.h"
#include "tables.h"

namespace {

const char *const NAMES[] = {"portable", "avx2", "avx512", "neon"};

std::vector<Isa> known() {
  std::vector<Isa> isas{PORTABLE};
  if (best_isa() == WITH_NEON) isas.push_back(WITH_NEON);
  if (best_isa() == WITH_AVX2 || best_isa() == WITH_AVX512) isas.push_back(WITH_AVX2);
  if (best_isa() == WITH_AVX512) isas.push_back(WITH_AVX512);
  return isas;
}

struct Totals {
  uint64_t digest = 0xCBF29CE484222325u;  // FNV-1a
  int64_t spikes = 0, neurons = 0, spilled = 0, wrong = 0;

  // `found` is to be `right`, to the last byte.
  void compare(const char *what, const char *path, int64_t number, const uint8_t *found, const uint8_t *right, int64_t size) {
    for (int64_t i = 0; i < size; ++i)
      if (found[i] != right[i]) {
        std::printf("%s, case %lld, %s: byte %lld of %lld is %d, not %d\n", what, static_cast<long long>(number), path,
                    static_cast<long long>(i), static_cast<long long>(size), found[i], right[i]);
        ++wrong;
        return;
      }
  }
  void digest_of(const void *data, int64_t size) {
    for (int64_t i = 0; i < size; ++i) digest = (digest ^ static_cast<const uint8_t *>(data)[i]) * 0x100000001B3u;
  }
  void count(const Memory<uint8_t> &map, int64_t bits) {
    digest_of(map.data(), map.bytes());
    for (int64_t i = 0; i < map.count(); ++i)
      for (int64_t c = 0; c < 4; ++c) spikes += map[i] >> c & 1;
    neurons += bits;
  }
};

// Kernel, strides, padding and dilation, and a map that they fit.
template <class Problem>
void shape(Random &random, Problem &p, int64_t &in_height, int64_t &in_width) {
  p.kernel_height = random.pick<int64_t>({1, 2, 3, 3, 5, 7}), p.kernel_width = random.pick<int64_t>({1, 2, 3, 3, 5, 7});
  p.stride_y = random.between(1, 3), p.stride_x = random.between(1, 3);
  p.pad_y = random.between(0, 3), p.pad_x = random.between(0, 3);
  p.dilation_y = random.pick<int64_t>({1, 1, 2}), p.dilation_x = random.pick<int64_t>({1, 1, 2});
  const int64_t tall = (p.kernel_height - 1) * p.dilation_y + 1, wide = (p.kernel_width - 1) * p.dilation_x + 1;
  in_height = std::max<int64_t>(1, tall - 2 * p.pad_y) + random.between(0, 3);
  in_width = std::max<int64_t>(1, wide - 2 * p.pad_x) + random.between(0, 3);
  p.out_height = (in_height + 2 * p.pad_y - tall) / p.stride_y + 1;
  p.out_width = (in_width + 2 * p.pad_x - wide) / p.stride_x + 1;
}

Codes codes_of(Random &random, int64_t out, int64_t in, int64_t taps, bool extreme) {
  Codes codes{out, in, taps, std::vector<int32_t>(static_cast<size_t>(out * in * taps))};
  const int32_t top = 1 << (extreme ? 5 : random.between(1, 8) - 1), groups = extreme ? 1 : static_cast<int32_t>(random.between(1, 3));
  const int64_t how = extreme ? random.between(1, 2) : random.between(0, 5);
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < in; ++i)
      for (int64_t tap = 0; tap < taps; ++tap) {
        if (o % groups != i % groups) continue;  // a layer of groups, as a dense one with zeros
        int32_t code = static_cast<int32_t>(random.between(-top, std::max(1, top - 1)));
        if (how == 1) code = std::max(1, top - 1);
        if (how == 2) code = -top;
        if (how == 3) code = 2 * static_cast<int32_t>(random.between(-top, top - 1)) + 1;
        if (how == 4 && random.chance(80)) code = 0;
        codes.at(o, i, tap) = code;
      }
  return codes;
}

// Values 0 to `streams`, a map each: stream s has those above s.
std::vector<Memory<uint8_t>> maps_of(Random &random, const Place &place, int64_t blocks, int64_t streams, bool extreme) {
  std::vector<Memory<uint8_t>> maps;
  for (int64_t s = 0; s < streams; ++s) maps.emplace_back(place.size(blocks));
  const int64_t how = extreme ? 1 : random.between(0, 9);
  const int64_t density = random.pick<int64_t>({10, 50, 90});
  for (int64_t i = 0; i < place.size(blocks); ++i)
    for (int64_t c = 0; c < 4 && i / LANES % place.groups() * 4 + c < place.channels; ++c) {
      const bool active = how != 0 && (how == 1 || random.chance(density));
      const int64_t value = how == 1 ? streams : active ? random.between(1, streams) : 0;
      for (int64_t s = 0; s < value; ++s) maps[static_cast<size_t>(s)][i] |= 1u << c;
    }
  return maps;
}

void layer_case(int64_t number, Totals &totals) {
  Random random{static_cast<uint64_t>(number) * 2654435761u};
  Layer p{};
  shape(random, p, p.in_height, p.in_width);
  const bool extreme = number % 50 == 0;  // sums beyond 16 bits
  const int64_t taps = p.kernel_height * p.kernel_width, places = p.out_height * p.out_width;
  const int64_t in = extreme ? 400 / taps + random.between(1, 9) : random.between(1, std::max<int64_t>(2, 150 / taps));
  p.in_groups = (in + 3) / 4;
  p.out_channels = random.between(1, 5);
  p.streams = extreme ? 3 : random.between(1, 3);
  p.steps = random.between(1, std::max<int64_t>(1, std::min<int64_t>(16, 2000 / (in * taps * places))) + 2);
  p.blocks = random.chance(20) ? 2 : 1;
  const Codes codes = codes_of(random, p.out_channels, in, taps, extreme);
  const Place from{p.in_height, p.in_width, p.steps, in}, to{p.out_height, p.out_width, p.steps, p.out_channels};
  const std::vector<Memory<uint8_t>> maps = maps_of(random, from, p.blocks, p.streams, extreme);
  std::vector<const uint8_t *> inputs;
  for (const Memory<uint8_t> &map : maps) inputs.push_back(map.data());
  const SomeTables tables(random, codes, p.streams);
  float typical = 0.0f;
  for (int32_t code : codes.values) typical += static_cast<float>(code) * static_cast<float>(code);
  SomeNeurons neurons(random, p.out_channels, 1.0f + std::sqrt(typical / static_cast<float>(p.out_channels)));
  p.passes = static_cast<int64_t>(tables.pass_runs.size()) - 1;
  p.high_factor = tables.high_factor, p.together = tables.together, p.threads = 1;
  p.inputs = inputs.data(), p.tables = tables.memory.data();
  p.runs = tables.runs.data(), p.pass_runs = tables.pass_runs.data();
  const std::vector<int64_t> sums = sums_of(p, codes);
  if (random.chance(70)) tie(random, neurons.n, to, sums);
  const Memory<uint8_t> right(to.size(p.blocks));
  fire_by_definition(neurons.n, to, sums, right);
  p.neurons = neurons.n;
  for (const Isa isa : known()) {
    const Memory<uint8_t> found(right.count(), 0xAA);
    p.isa = isa, p.spikes = found.data();
    isofire_lookup_layer(&p);
    totals.compare("layer", NAMES[isa], number, found.data(), right.data(), right.count());
  }
  totals.count(right, p.blocks * LANES * places * p.steps * p.out_channels);
  totals.spilled += std::any_of(tables.runs.begin(), tables.runs.end(), [](const Run &run) { return run.spill; });
}

void direct_case(int64_t number, Totals &totals) {
  Random random{static_cast<uint64_t>(number) * 2654435761u + 1};
  Direct p{};
  shape(random, p, p.height, p.width);
  const int64_t area = p.kernel_height * p.kernel_width;
  p.channels = random.between(1, std::max<int64_t>(1, 60 / area));
  p.images = random.between(1, 40), p.steps = random.between(1, 6), p.out_channels = random.between(1, 5);
  p.maps = random.chance(50) ? 1 : p.steps;
  const int64_t size = p.images * p.channels * p.height * p.width;
  p.step_t = p.maps == 1 ? 0 : size;
  p.step_n = p.channels * p.height * p.width;
  const bool last = random.chance(50);  // channels_last
  p.step_c = last ? 1 : p.height * p.width, p.step_x = last ? p.channels : 1, p.step_y = p.width * p.step_x;
  const Memory<float> inputs(p.maps * size), weights(p.out_channels * p.channels * area);
  for (int64_t i = 0; i < inputs.count(); ++i) inputs[i] = random.real(-2.0f, 2.0f);
  for (int64_t i = 0; i < weights.count(); ++i) weights[i] = random.real(-1.0f, 1.0f);
  SomeNeurons neurons(random, p.out_channels, std::sqrt(static_cast<float>(p.channels * area)));
  p.threads = 1, p.inputs = inputs.data(), p.weights = weights.data();
  const int64_t blocks = (p.images + LANES - 1) / LANES;
  const Place to{p.out_height, p.out_width, p.steps, p.out_channels};
  const std::vector<float> sums = sums_of(p);
  if (random.chance(70)) tie(random, neurons.n, to, sums);
  const Memory<uint8_t> right(to.size(blocks));
  fire_by_definition(neurons.n, to, sums, right);
  p.neurons = neurons.n;
  for (const Isa isa : known()) {
    const Memory<uint8_t> found(right.count(), 0xAA);
    p.isa = isa, p.spikes = found.data();
    isofire_lookup_direct(&p);
    totals.compare("direct", NAMES[isa], number, found.data(), right.data(), right.count());
  }
  totals.count(right, blocks * LANES * p.out_height * p.out_width * p.steps * p.out_channels);
}

// Floats to maps and back, and their totals, in any memory order and with a last block that is not full.
void map_case(int64_t number, Totals &totals) {
  Random random{static_cast<uint64_t>(number) * 2654435761u + 2};
  Map m{};
  m.steps = random.between(1, 5), m.images = random.between(1, 70), m.channels = random.between(1, 9);
  m.height = random.between(1, 4), m.width = random.between(1, 4), m.threads = 1;
  m.streams = static_cast<int32_t>(random.between(1, 3));
  const bool last = random.chance(60);
  m.step_c = last ? 1 : m.height * m.width, m.step_x = last ? m.channels : 1, m.step_y = m.width * m.step_x;
  m.step_n = m.channels * m.height * m.width, m.step_t = m.images * m.step_n;
  const int64_t blocks = (m.images + LANES - 1) / LANES;
  const Place place{m.height, m.width, m.steps, m.channels};
  const Memory<float> values(m.steps * m.step_t), back(values.count(), 0xAA), sums(m.steps * m.images * m.channels, 0xAA);
  std::vector<Memory<uint8_t>> right, found;
  std::vector<uint8_t *> pointers;
  for (int32_t s = 0; s < m.streams; ++s) {
    right.emplace_back(place.size(blocks));
    found.emplace_back(place.size(blocks), 0xAA);
    pointers.push_back(found.back().data());
  }
  Memory<float> right_sums(sums.count());
  for (int64_t k = 0; k < values.count(); ++k) {
    const int64_t t = k / m.step_t, n = k / m.step_n % m.images, c = k / m.step_c % m.channels;
    const int64_t value = random.between(0, m.streams);
    values[k] = static_cast<float>(value);
    right_sums[(t * m.images + n) * m.channels + c] += values[k];
    for (int64_t s = 0; s < value; ++s)
      right[static_cast<size_t>(s)][place.at(n, k / m.step_y % m.height, k / m.step_x % m.width, t, c)] |= 1u << (c % 4);
  }
  m.packed = pointers.data(), m.values = values.data();
  isofire_lookup_pack(&m);
  for (size_t s = 0; s < right.size(); ++s) {
    totals.compare("pack", "any", number, found[s].data(), right[s].data(), right[s].count());
    totals.digest_of(right[s].data(), right[s].bytes());
  }
  m.values = back.data();
  isofire_lookup_unpack(&m);
  const auto bytes = [](const Memory<float> &x) { return reinterpret_cast<const uint8_t *>(x.data()); };
  totals.compare("unpack", "any", number, bytes(back), bytes(values), values.bytes());
  m.values = sums.data(), m.step_c = 1, m.step_n = m.channels, m.step_t = m.images * m.channels, m.share = 1;
  isofire_lookup_totals(&m);
  totals.compare("totals", "any", number, bytes(sums), bytes(right_sums), sums.bytes());
}

}  // namespace

int main(int count, char **arguments) {
  const int64_t cases = count > 1 ? std::atoll(arguments[1]) : 1000;
  Totals totals;
  for (int64_t number = 0; number < cases; ++number) {
    layer_case(number, totals);
    if (number % 4 == 0) direct_case(number, totals);
    if (number % 4 == 1) map_case(number, totals);
  }
  std::string paths;
  for (const Isa isa : known()) paths += std::string(paths.empty() ? "" : " ") + NAMES[isa];
  std::printf("cases %lld, with sums of 32 bits %lld, spikes %lld of %lld, paths %s, wrong %lld\ndigest %016llx\n",
              static_cast<long long>(cases), static_cast<long long>(totals.spilled), static_cast<long long>(totals.spikes),
              static_cast<long long>(totals.neurons), paths.c_str(), static_cast<long long>(totals.wrong),
              static_cast<unsigned long long>(totals.digest));
  return totals.wrong ? 1 : 0;
}
