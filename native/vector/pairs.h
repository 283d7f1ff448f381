// Pairs of bfloat16, two numbers of a row in one 32-bit lane: their dot products are summed in float32.
// With -mavx512bf16 each step is one instruction (vdpbf16ps); without it the same algorithm runs in float32.
#pragma once
#include "vector/product.h"
#include "vector/rows.h"

namespace clearhead {
namespace {

typedef uint32_t UnalignedPairs __attribute__((vector_size(LANES * 4), aligned(2), may_alias));  // of rows of odd length too

inline VecU load_pairs(const uint32_t* from) { return *reinterpret_cast<const UnalignedPairs*>(from); }
inline void store_pairs(void* to, VecU x) { *reinterpret_cast<UnalignedPairs*>(to) = x; }

// The first number of each pair, in the low half of its lane, and the second number.
inline Vec first_of(VecU pairs) { return (Vec)(pairs << 16); }
inline Vec second_of(VecU pairs) { return (Vec)(pairs & 0xFFFF0000u); }

// sum + a.first * b.first + a.second * b.second. The instruction treats denormals as 0.
inline __attribute__((always_inline)) Vec dot_pairs(Vec sum, VecU a, VecU b) {
#ifdef __AVX512BF16__
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  sum += second_of(a) * second_of(b);
  return sum + first_of(a) * first_of(b);
#endif
}

// Round to nearest, ties to even; NaN stays NaN. The instruction treats denormals as 0.
inline VecU round_pairs(Vec first, Vec second) {
#ifdef __AVX512BF16__  // two instructions instead of 14: `first` is rounded to the lower half of `both`
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  const VecU lane = (VecU)lane_numbers();
  return (VecU)_mm512_maskz_permutexvar_epi16(0xFFFFFFFF, (__m512i)(lane | (lane + LANES) << 16), both);
#else
  const auto rounded = [](Vec x) {
    const VecU bits = (VecU)x;
    return x == x ? bits + 0x7FFF + (bits >> 16 & 1) : bits | 0x00400000u;
  };
  return rounded(first) >> 16 | (rounded(second) & 0xFFFF0000u);
#endif
}

typedef uint16_t UnalignedHalves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

// Store a vector rounded as above.
inline void store_rounded(uint16_t* to, Vec x) {
#ifdef __AVX512BF16__
  *reinterpret_cast<UnalignedHalves*>(to) = (UnalignedHalves)_mm512_cvtneps_pbh((__m512)x);
#else
  *reinterpret_cast<UnalignedHalves*>(to) = __builtin_convertvector(round_pairs(x, Vec{}) & 0xFFFF, UnalignedHalves);
#endif
}

// Replace x[n][lanes] in float32 by pairs [n / 2][lanes] in place; a last odd row is paired with 0.
inline void pair_lanes(int64_t n, int64_t lanes, float* x) {
  for (int64_t j = 0; j < n; j += 2)
    for (int64_t v = 0; v < lanes; v += LANES) {
      const float* const at = x + j * lanes + v;
      store_pairs(x + j / 2 * lanes + v, round_pairs(load(at), j + 1 < n ? load(at + lanes) : Vec{}));
    }
}

inline const uint32_t* as_pairs(const float* x) { return reinterpret_cast<const uint32_t*>(x); }

// Pair rows of a tensor, to[n / 2][stride]: row 2 i with row 2 i + 1; a last odd row is paired with 0.
inline void pair_rows(const Tensor& t, int64_t batch, int64_t head, int64_t first, int64_t n, int64_t width,
                      int64_t stride, uint32_t* to) {
  const uint16_t* row = static_cast<const uint16_t*>(row_of(t, kBFloat16, batch, head, first));
  for (int64_t i = 0; i < n; i += 2, row += 2 * t.row, to += stride) {
    const uint16_t* const next = row + t.row;
    if (i + 1 == n) for (int64_t c = 0; c < width; c++) to[c] = row[c * t.column];
    else if (t.column == 1) for (int64_t c = 0; c < width; c++) to[c] = row[c] | uint32_t(next[c]) << 16;
    else for (int64_t c = 0; c < width; c++) to[c] = row[c * t.column] | uint32_t(next[c * t.column]) << 16;
  }
}

// to[j * width + c] = from[c * column + j] for n rows whose columns are apart, by squares of pairs: number by number, a
// number takes ten times as long.
inline void copy_transposed(const uint16_t* from, int64_t column, int64_t n, int64_t width, uint16_t* to) {
  constexpr int64_t kColumns = 2 * LANES;
  const auto lanes = [](const uint16_t* x) {
    return __builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(x), VecU);
  };
  for (int64_t c = 0; c < width; c += kColumns)
    for (int64_t j = 0; j < n; j += LANES) {
      const uint16_t* const corner = from + c * column + j;
      uint16_t* const rows = to + j * width + c;
      if (c + kColumns <= width && j + LANES <= n) {
        Vec square[LANES];
        UNROLL for (int k = 0; k < LANES; k++)
          square[k] = (Vec)(lanes(corner + 2 * k * column) | lanes(corner + (2 * k + 1) * column) << 16);
        transpose(square);
        UNROLL for (int k = 0; k < LANES; k++) store_pairs(rows + k * width, (VecU)square[k]);
        continue;
      }
      for (int64_t i = 0; i < smaller(LANES, n - j); i++)
        for (int64_t k = 0; k < smaller(kColumns, width - c); k++) rows[i * width + k] = corner[k * column + i];
    }
}

// Rows whose columns are contiguous: in place, or copied to `space`.
struct PairRows {
  const uint16_t* data;
  int64_t stride;

  PairRows(const Tensor& t, int64_t batch, int64_t head, int64_t first, int64_t n, int64_t width, float* space)
      : data(static_cast<const uint16_t*>(row_of(t, kBFloat16, batch, head, first))), stride(t.row) {
    if (t.column == 1) return;
    uint16_t* const to = reinterpret_cast<uint16_t*>(space);
    if (is_transposed(t)) copy_transposed(data, t.column, n, width, to);
    else for (int64_t j = 0; j < n; j++)
      for (int64_t c = 0; c < width; c++) to[j * width + c] = data[j * stride + c * t.column];
    data = to;
    stride = width;
  }
};

// The product in pairs. `a` holds bfloat16 numbers: rows in place, or adjacent rows with the numbers of each pair
// together. `b` holds pairs. n and the strides of `a` count numbers, the stride of `b` counts pairs. A last odd number
// is paired with 0. V as in InReals.
template <int V = 2>
struct InPairs {
  using A = uint16_t;
  using B = uint32_t;
  static constexpr int kSide = 2;

  template <int R, Unit U>
  static inline __attribute__((always_inline)) void multiply(const uint16_t* a, int64_t stride_a, const uint32_t* b,
                                                             int64_t stride_b, int64_t n, Vec (&sum)[R][2]) {
    UNROLL for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = Vec{};
    const int64_t to_row = U == kAlong ? stride_a : kSide, to_pair = U == kAlong ? 2 : stride_a;
#pragma GCC unroll 4
    for (int64_t k = 0; k < n / 2; k++) step<R>(a + k * to_pair, to_row, 4, b + k * stride_b, sum);
    if (n % 2) step<R>(a + n / 2 * to_pair, to_row, 2, b + n / 2 * stride_b, sum);
  }

 private:
  // One pair of each row; `bytes` of it are read, from any address.
  template <int R>
  static inline __attribute__((always_inline)) void step(const uint16_t* a, int64_t to_row, int bytes,
                                                         const uint32_t* b, Vec (&sum)[R][2]) {
    VecU here[V];
    UNROLL for (int v = 0; v < V; v++) here[v] = load_pairs(b + v * LANES);
    UNROLL for (int r = 0; r < R; r++) {
      uint32_t pair = 0;
      __builtin_memcpy(&pair, a + r * to_row, bytes);
      const VecU x = pair - VecU{};
      UNROLL for (int v = 0; v < V; v++) sum[r][v] = dot_pairs(sum[r][v], x, here[v]);
    }
  }
};

}  // namespace
}  // namespace clearhead
