// Weights for the tile registers: a shorter exponential, and float32 rounded to bfloat16 in rows and in pairs.
#pragma once
#include "tiles/layout.h"

namespace clearhead {
namespace {

// 2^x in place, with relative error 3e-6; exactly 0 below -126 and at -inf, exactly 1 at 0, NaN at NaN. The error of the
// weights' sum, and so of the lse, is no larger. The weights themselves are rounded to bfloat16 anyway.
#ifdef __AVX512DQ__
// One instruction computes f = x - floor(x) and another multiplies by 2^floor(x): 7 instructions per vector, where
// exp2_by() has 11. Needs denormal results disabled (TileUse). The coefficients are those of (2^f - 1) / f for
// 0 <= f <= 1.
template <int N>
inline __attribute__((always_inline)) void short_exp2(Vec (&x)[N]) {
  constexpr float kShortPower[] = {0.0134266838f, 0.0522424728f, 0.241280198f, 0.693044841f};
  constexpr int kFloor = 9;  // round down, no exception
  // With a mask of ones, which costs nothing: for the plain forms gcc 12 warns of an undefined register in its headers.
  Vec f[N], p[N];
  UNROLL for (int i = 0; i < N; i++) f[i] = (Vec)_mm512_maskz_reduce_ps(0xFFFF, (__m512)x[i], kFloor);
  UNROLL for (int i = 0; i < N; i++) p[i] = splat(kShortPower[0]);
  UNROLL for (int k = 1; k < 4; k++)
    UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * f[i] + splat(kShortPower[k]);
  UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * f[i] + splat(1);
  UNROLL for (int i = 0; i < N; i++) x[i] = (Vec)_mm512_maskz_scalef_ps(0xFFFF, (__m512)p[i], (__m512)x[i]);
}
#else
template <int N>
inline __attribute__((always_inline)) void short_exp2(Vec (&x)[N]) {
  constexpr float kShortPower[] = {0.00958285294f, 0.0559064262f, 0.240240991f, 0.693124175f};
  exp2_by(x, kShortPower);
}
#endif

// 2^x in place, for weights of N pieces.
template <int N, int Vectors>
inline __attribute__((always_inline)) void exp2_for_pieces(Vec (&x)[Vectors]) {
  if constexpr (N < kMostPieces) short_exp2(x);
  else exp2_all(x);
}

typedef uint16_t Row32 __attribute__((vector_size(64)));
typedef uint16_t UnalignedRow32 __attribute__((vector_size(64), aligned(2), may_alias));

inline void store_row32(uint16_t* to, Row32 x) { *reinterpret_cast<UnalignedRow32*>(to) = x; }

// Round 32 numbers of a row to nearest, ties to even; NaN stays NaN. The instruction treats denormals as 0.
inline __attribute__((always_inline)) Row32 round_row(Vec first, Vec second) {
#ifdef __AVX512BF16__
  return (Row32)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
#else
  const Halves low = __builtin_convertvector(round_pairs(first, Vec{}) & 0xFFFF, Halves);
  const Halves high = __builtin_convertvector(round_pairs(second, Vec{}) & 0xFFFF, Halves);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
                                 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
#endif
}

// Combine two rows in pairs. Of each eight lanes the first four are in the lower pairs and the others in the upper pairs,
// because that takes one instruction. restored_lower() and restored_upper() put the lanes back in order.
inline __attribute__((always_inline)) Row32 lower_pairs(Row32 a, Row32 b) {
  return __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 8, 40, 9, 41, 10, 42, 11, 43, 16, 48, 17, 49, 18,
                                 50, 19, 51, 24, 56, 25, 57, 26, 58, 27, 59);
}

inline __attribute__((always_inline)) Row32 upper_pairs(Row32 a, Row32 b) {
  return __builtin_shufflevector(a, b, 4, 36, 5, 37, 6, 38, 7, 39, 12, 44, 13, 45, 14, 46, 15, 47, 20, 52, 21, 53, 22,
                                 54, 23, 55, 28, 60, 29, 61, 30, 62, 31, 63);
}

inline Vec restored_lower(Vec lower, Vec upper) {
  return __builtin_shufflevector(lower, upper, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
}

inline Vec restored_upper(Vec lower, Vec upper) {
  return __builtin_shufflevector(lower, upper, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
}

}  // namespace
}  // namespace clearhead
