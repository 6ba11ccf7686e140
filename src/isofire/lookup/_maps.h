// Maps of spikes made of floats and turned back, cut into tiles and joined, and counted.

#pragma once

#include <vector>

#include "_path.h"

extern "C" {

// A map of few images, cut into tiles that lie side by side as if each were an image of its own, cut otherwise: tile (row, column) of the
// new ones begins at (row * step_y - top, column * step_x - left) and may reach beyond the map, where it is 0. A whole map is one tile.
// At most 32 tiles in all, before and after. Mirrors isofire.lookup.native.Tiling.
struct Tiling {
  int64_t inner, images, height, width;  // inner: steps * channels / 4
  int64_t from_rows, from_columns, from_height, from_width;
  int64_t rows, columns, tile_height, tile_width, step_y, step_x, top, left;
  const uint8_t *from;
  uint8_t *to;
};

// A float map as spikes. Mirrors isofire.lookup.native.Map.
struct Map {
  int64_t steps, images, channels, height, width;
  int64_t step_t, step_n, step_c, step_y, step_x;  // strides of the float tensor, in elements
  int32_t streams, threads, share, pad;  // share: tiles of an image that lie side by side, whose totals are one
  float *values;
  uint8_t *const *packed;
};
}

namespace {

// Along one axis of a new cut, for every tile and place in it: the old tile, -1 beyond the map, and the place in that.
struct Axis {
  int64_t places;
  std::vector<int32_t> tile, place;
  Axis(int64_t tiles, int64_t places, int64_t step, int64_t before, int64_t size, int64_t old) : places(places) {
    for (int64_t i = 0; i < tiles; ++i)
      for (int64_t k = 0; k < places; ++k) {
        const int64_t at = i * step - before + k;
        tile.push_back(at < 0 || at >= size ? -1 : static_cast<int32_t>(at / old));
        place.push_back(at < 0 || at >= size ? 0 : static_cast<int32_t>(at % old));
      }
  }
};

// Whether place k of every tile lies at the same place of the tile that is `shift` further on, or beyond the map.
bool is_shift(const Axis &axis, int64_t tiles, int64_t k, int64_t &shift, int64_t &place) {
  bool found = false;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t tile = axis.tile[i * axis.places + k], at = axis.place[i * axis.places + k];
    if (tile < 0) continue;
    if (found && (tile - i != shift || at != place)) return false;
    found = true, shift = tile - i, place = at;
  }
  if (!found) shift = place = 0;
  return true;
}

void retile(const Tiling &p) {
  const Axis y_axis(p.rows, p.tile_height, p.step_y, p.top, p.height, p.from_height);
  const Axis x_axis(p.columns, p.tile_width, p.step_x, p.left, p.width, p.from_width);
  const int64_t count = p.images * p.rows * p.columns, size = p.from_height * p.from_width * p.inner * LANES;
  int64_t image[LANES], row[LANES], column[LANES];
  for (int64_t i = 0; i < count; ++i) {
    image[i] = i / (p.rows * p.columns), row[i] = i / p.columns % p.rows, column[i] = i % p.columns;
  }
  std::vector<uint8_t> inside_y(static_cast<size_t>(p.tile_height * LANES)), inside_x(static_cast<size_t>(p.tile_width * LANES));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t y = 0; y < p.tile_height; ++y) inside_y[y * LANES + i] = y_axis.tile[row[i] * p.tile_height + y] < 0 ? 0 : 255;
    for (int64_t x = 0; x < p.tile_width; ++x) inside_x[x * LANES + i] = x_axis.tile[column[i] * p.tile_width + x] < 0 ? 0 : 255;
  }
  const bool alike = p.rows == p.from_rows && p.columns == p.from_columns;
  for (int64_t y = 0; y < p.tile_height; ++y) {
    int64_t down = 0, along = 0, cell_y = 0, cell_x = 0;
    const bool row_alike = alike && is_shift(y_axis, p.rows, y, down, cell_y);
    for (int64_t x = 0; x < p.tile_width; ++x) {
      uint8_t *to = p.to + (y * p.tile_width + x) * p.inner * LANES;
      uint8_t inside[LANES], taken[LANES];
      for (int64_t i = 0; i < LANES; ++i) inside[i] = inside_y[y * LANES + i] & inside_x[x * LANES + i];
      if (row_alike && is_shift(x_axis, p.columns, x, along, cell_x)) {
        // the tiles lie as before, but for a shift: all 32 at once
        const int64_t first = (cell_y * p.from_width + cell_x) * p.inner * LANES + down * p.columns + along;
        for (int64_t k = 0; k < p.inner; ++k) {
          const int64_t at = first + k * LANES;
          if (at >= 0 && at + LANES <= size) {
            std::memcpy(taken, p.from + at, LANES);
            for (int64_t i = 0; i < LANES; ++i) taken[i] &= inside[i];
          } else {
            for (int64_t i = 0; i < LANES; ++i) taken[i] = inside[i] ? p.from[at + i] : 0;
          }
          std::memcpy(to + k * LANES, taken, LANES);
        }
        continue;
      }
      std::memset(to, 0, static_cast<size_t>(p.inner * LANES));
      for (int64_t i = 0; i < count; ++i) {
        if (!inside[i]) continue;
        const int64_t at_y = row[i] * p.tile_height + y, at_x = column[i] * p.tile_width + x;
        const int64_t cell = y_axis.place[at_y] * p.from_width + x_axis.place[at_x];
        const int64_t tile = (image[i] * p.from_rows + y_axis.tile[at_y]) * p.from_columns + x_axis.tile[at_x];
        const uint8_t *from = p.from + cell * p.inner * LANES + tile;
        for (int64_t k = 0; k < p.inner; ++k) to[k * LANES + i] = from[k * LANES];
      }
    }
  }
}

// Nibbles of one row of one block from a float map, or back.
template <bool PACK>
void convert_row(const Map &m, int64_t block, int64_t y) {
  const int64_t groups = (m.channels + 3) / 4, first = block * LANES;
  for (int64_t x = 0; x < m.width; ++x)
    for (int64_t t = 0; t < m.steps; ++t)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = ((((block * m.height + y) * m.width + x) * m.steps + t) * groups + g) * LANES;
        const int64_t channels = m.channels - 4 * g < 4 ? m.channels - 4 * g : 4;
        if (PACK)
          for (int32_t s = 0; s < m.streams; ++s) std::memset(m.packed[s] + at, 0, LANES);
        if (PACK && m.streams == 1 && m.step_c == 1 && channels == 4) {
          const float *from = m.values + t * m.step_t + first * m.step_n + 4 * g + y * m.step_y + x * m.step_x;
          for (int64_t i = 0; i < LANES && first + i < m.images; ++i) m.packed[0][at + i] = above_zero(from + i * m.step_n);
          continue;
        }
        for (int64_t i = 0; i < LANES && first + i < m.images; ++i) {
          float *from = m.values + t * m.step_t + (first + i) * m.step_n + 4 * g * m.step_c + y * m.step_y + x * m.step_x;
          for (int64_t c = 0; c < channels; ++c) {
            if (PACK) {
              const int32_t value = static_cast<int32_t>(from[c * m.step_c]);
              for (int32_t s = 0; s < value && s < m.streams; ++s)
                m.packed[s][at + i] = static_cast<uint8_t>(m.packed[s][at + i] | (1u << c));
            } else {
              int32_t value = 0;
              for (int32_t s = 0; s < m.streams; ++s) value += (m.packed[s][at + i] >> c) & 1;
              from[c * m.step_c] = static_cast<float>(value);
            }
          }
        }
      }
}

// Spikes of each channel over the whole map, [T, N, C] by the strides of m.values.
void total_of(const Map &m, int64_t block, int64_t t) {
  const int64_t groups = (m.channels + 3) / 4, first = block * LANES, places = m.height * m.width, left = m.images * m.share - first;
  const int64_t here = left < LANES ? left : LANES;
  for (int64_t g = 0; g < groups; ++g) {
    int32_t totals[4][LANES] = {{0}};
    for (int32_t s = 0; s < m.streams; ++s)
      for (int64_t place = 0; place < places; ++place) {
        const uint8_t *at = m.packed[s] + (((block * places + place) * m.steps + t) * groups + g) * LANES;
        for (int64_t c = 0; c < 4; ++c)
          for (int64_t i = 0; i < here; ++i) totals[c][i] += (at[i] >> c) & 1;
      }
    for (int64_t c = 0; c < 4 && 4 * g + c < m.channels; ++c)
      for (int64_t i = 0; i < here; i += m.share) {
        int32_t total = 0;
        for (int64_t k = i; k < i + m.share; ++k) total += totals[c][k];
        m.values[t * m.step_t + (first + i) / m.share * m.step_n + (4 * g + c) * m.step_c] = static_cast<float>(total);
      }
  }
}

}  // namespace
