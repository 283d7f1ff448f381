// Numbers as sums of bfloat16 numbers, their pieces, so that tile registers can multiply float16 and float32 too. Each
// piece is what the pieces before it leave, rounded. A float16 is the exact sum of two pieces, a float32 of three.
#pragma once
#include "tiles/registers.h"
#include "vector/best.h"

namespace clearhead {
namespace {

constexpr int kMostPieces = 3;

typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

inline Halves load_halves(const uint16_t* from) { return *reinterpret_cast<const UnalignedHalves*>(from); }
inline void store_halves(uint16_t* to, Halves x) { *reinterpret_cast<UnalignedHalves*>(to) = x; }

// How many pieces each number of this problem is split into.
inline int pieces_of(const Attention& p) { return p.dtype == kBFloat16 ? 1 : p.dtype == kFloat16 ? 2 : p.pieces; }

// Call each(i, j) for every product of piece i of one number and piece j of another, the smallest products first. With N
// pieces only N (N + 1) / 2 products are computed: the others are smaller than the error of rounding to N pieces.
template <int N, class Each>
inline __attribute__((always_inline)) void each_product(const Each& each) {
  UNROLL for (int sum = N - 1; sum >= 0; sum--)
    UNROLL for (int i = sum; i >= 0; i--) each(i, sum - i);
}

// The next piece of a number, in the upper half of its lane; it is subtracted from `rest`.
inline __attribute__((always_inline)) VecU take_piece(Vec& rest) {
  const VecU piece = ((VecU)rest + 0x8000u) & 0xFFFF0000u;
  rest -= (Vec)piece;
  return piece;
}

// Whether each number of a vector is the sum of its pieces and no product of two of them overflows: it is 0, or between
// 2^-100 and 2^60 in absolute value. Tile registers treat pieces below 2^-126 as 0.
inline VecI has_pieces(Vec x) {
  constexpr uint32_t least = uint32_t(127 - 100) << 23, most = uint32_t(127 + 60) << 23;
  const VecU size = (VecU)x & 0x7FFFFFFFu;
  return (size == 0u) | ((size >= least) & (size <= most));
}

// Load LANES contiguous numbers of any dtype.
inline Vec load_numbers(const void* from, Dtype dtype) {
  if (dtype == kFloat32) return load(static_cast<const float*>(from));
  const Halves halves = load_halves(static_cast<const uint16_t*>(from));
  if (dtype == kBFloat16) return (Vec)(__builtin_convertvector(halves, VecU) << 16);
#ifdef __AVX512F__
  return (Vec)_mm512_maskz_cvtph_ps(0xFFFF, (__m256i)halves);  // the plain form makes gcc 12 warn of its own register
#else
  Vec x;
  for (int i = 0; i < LANES; i++) x[i] = from_float16(halves[i]);
  return x;
#endif
}

// Store the first `n` of LANES numbers as output.
inline void store_numbers(Vec x, int64_t n, Dtype dtype, void* to) {
  if (dtype == kFloat32) {
    if (n == LANES) store(static_cast<float*>(to), x);
    else __builtin_memcpy(to, &x, n * sizeof(float));
    return;
  }
  Halves halves;
#ifdef __AVX512F__
  if (dtype == kFloat16) halves = (Halves)_mm512_maskz_cvtps_ph(0xFFFF, (__m512)x, 0);
#else
  if (dtype == kFloat16) for (int i = 0; i < LANES; i++) halves[i] = to_float16(x[i]);
#endif
  else halves = __builtin_convertvector(round_pairs(x, Vec{}) & 0xFFFF, Halves);
  if (n == LANES) store_halves(static_cast<uint16_t*>(to), halves);
  else __builtin_memcpy(to, &halves, n * sizeof(uint16_t));
}

// Store rows first .. first + n - 1 in N pieces, to[N][kBlock][columns], with 0 past the last row and column. Returns
// whether every number is the sum of its pieces. A bfloat16 number always is, even if it is infinite or NaN.
template <int N>
inline bool copy_pieces(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                        int64_t width, int64_t columns, uint16_t* to) {
  if (width < columns || n < kBlock) __builtin_memset(to, 0, N * kBlock * columns * sizeof(uint16_t));
  VecI good = ~VecI{};
  for (int64_t i = 0; i < n && width > 0; i++) {
    const void* const row = row_of(t, dtype, batch, head, first + i);
    for (int64_t c = 0; c < width; c += LANES) {
      Vec x;
      if (dtype == kBFloat16 && t.column == 1 && c + LANES <= width) {
        store_halves(to + i * columns + c, load_halves(static_cast<const uint16_t*>(element(row, dtype, c))));
        continue;
      }
      if (t.column == 1 && c + LANES <= width) {
        x = load_numbers(element(row, dtype, c), dtype);
      } else {
        float some[LANES] = {};
        load_row(element(row, dtype, c * t.column), dtype, t.column, smaller(LANES, width - c), some);
        x = load(some);
      }
      if (dtype != kBFloat16) good &= has_pieces(x);
      UNROLL for (int k = 0; k < N; k++)
        store_halves(to + (k * kBlock + i) * columns + c, __builtin_convertvector(take_piece(x) >> 16, Halves));
    }
  }
  return !any(good == VecI{});
}

}  // namespace
}  // namespace clearhead
