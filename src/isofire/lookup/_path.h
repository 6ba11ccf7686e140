// The paths that were compiled here, and the one that this processor takes.

#pragma once

#include "_dispatch.h"
#if HAS_AVX2
#include "_avx.h"
#elif HAS_NEON
#include "_neon.h"
#endif

namespace {

#if !HAS_AVX2 && !HAS_NEON
// Whether each of four floats is above 0, as a nibble.
INLINE uint8_t above_zero(const float *x) {
  return static_cast<uint8_t>((x[0] > 0.0f) | (x[1] > 0.0f) << 1 | (x[2] > 0.0f) << 2 | (x[3] > 0.0f) << 3);
}
#endif

// The best instruction set of this processor that this was compiled for.
Isa best_isa() {
#if HAS_AVX2
  static const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  static const Isa best = !__builtin_cpu_supports("avx2") ? PORTABLE : wide ? WITH_AVX512 : WITH_AVX2;
  return best;
#elif HAS_NEON
  return WITH_NEON;
#else
  return PORTABLE;
#endif
}

// The kernels of an instruction set, or of the best where this processor or compiler lacks it.
const Path &path_of(int32_t isa) {
  if (isa == PORTABLE) return PORTABLE_PATH;
#if HAS_AVX2
  const int32_t best = best_isa();
  if (best == PORTABLE) return PORTABLE_PATH;
  return isa == WITH_AVX2 || best == WITH_AVX2 ? AVX2_PATH : AVX512_PATH;
#elif HAS_NEON
  return NEON_PATH;
#else
  return PORTABLE_PATH;
#endif
}

}  // namespace
