// Maps of spikes made of floats and turned back, cut into tiles and joined, and counted.

#pragma once

#include "_path.h"

extern "C" {

// A map of few images beside the same as tiles of it, image by image and tile by tile, as if each were an image of its own. Tile
// (row, column) begins at (row * step_y + from_y, column * step_x + from_x); it may reach beyond the map. Mirrors
// isofire.lookup.native.Tiling.
struct Tiling {
  int64_t steps, groups, images, height, width, rows, columns, tile_height, tile_width, step_y, step_x, from_y, from_x;
  uint8_t *whole, *tiles;
};

// A float map as spikes. Mirrors isofire.lookup.native.Map.
struct Map {
  int64_t steps, images, channels, height, width;
  int64_t step_t, step_n, step_c, step_y, step_x;  // strides of the float tensor, in elements
  int32_t streams, threads;
  float *values;
  uint8_t *const *packed;
};
}

namespace {

// Tiles from the map, zeros beyond it; or the map from tiles.
template <bool TO_TILES>
void tile(const Tiling &p) {
  const int64_t count = p.images * p.rows * p.columns, blocks = (count + LANES - 1) / LANES, inner = p.steps * p.groups;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t here = count - block * LANES < LANES ? count - block * LANES : LANES;
    int64_t first_y[LANES], first_x[LANES], images[LANES];
    for (int64_t i = 0; i < here; ++i) {
      const int64_t tile = block * LANES + i, place = tile % (p.rows * p.columns);
      images[i] = tile / (p.rows * p.columns);
      first_y[i] = place / p.columns * p.step_y + p.from_y;
      first_x[i] = place % p.columns * p.step_x + p.from_x;
    }
    for (int64_t y = 0; y < p.tile_height; ++y)
      for (int64_t x = 0; x < p.tile_width; ++x) {
        uint8_t *tiles = p.tiles + ((block * p.tile_height + y) * p.tile_width + x) * inner * LANES;
        if (TO_TILES) std::memset(tiles, 0, static_cast<size_t>(inner * LANES));
        for (int64_t i = 0; i < here; ++i) {
          const int64_t at_y = first_y[i] + y, at_x = first_x[i] + x;
          if (at_y < 0 || at_y >= p.height || at_x < 0 || at_x >= p.width) continue;
          uint8_t *whole = p.whole + (at_y * p.width + at_x) * inner * LANES + images[i], *tile = tiles + i;
          for (int64_t k = 0; k < inner; ++k)
            if (TO_TILES)
              tile[k * LANES] = whole[k * LANES];
            else
              whole[k * LANES] = tile[k * LANES];
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
  const int64_t groups = (m.channels + 3) / 4, first = block * LANES, places = m.height * m.width;
  for (int64_t g = 0; g < groups; ++g) {
    int32_t totals[4][LANES] = {{0}};
    for (int32_t s = 0; s < m.streams; ++s)
      for (int64_t place = 0; place < places; ++place) {
        const uint8_t *at = m.packed[s] + (((block * places + place) * m.steps + t) * groups + g) * LANES;
        for (int64_t c = 0; c < 4; ++c)
          for (int64_t i = 0; i < LANES; ++i) totals[c][i] += (at[i] >> c) & 1;
      }
    for (int64_t c = 0; c < 4 && 4 * g + c < m.channels; ++c)
      for (int64_t i = 0; i < LANES && first + i < m.images; ++i)
        m.values[t * m.step_t + (first + i) * m.step_n + (4 * g + c) * m.step_c] = static_cast<float>(totals[c][i]);
  }
}

}  // namespace
