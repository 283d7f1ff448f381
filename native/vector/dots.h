// Dot products of rows that are read in place, with the lanes along the columns: for few rows against many, where
// transposing either into the lanes would take as long as multiplying them.
#pragma once
#include "vector/product.h"
#include "vector/rows.h"
#include "vector/shuffle.h"

namespace clearhead {
namespace {

// Add vectors in pairs until one is left, whose lane i is the total of v[i]; the shuffles are those of Eklundh's
// transposition.
template <int H>
inline __attribute__((always_inline)) void totals(Vec (&v)[LANES]) {
  UNROLL for (int i = 0; i < H; i++)
    v[i] = shuffle<UpperSquares<H>>(v[i], v[i + H]) + shuffle<LowerSquares<H>>(v[i], v[i + H]);
  if constexpr (H > 1) totals<H / 2>(v);
}

// Load kTile columns as two vectors, in the order that loads fastest: for bfloat16 the even columns, then the odd ones.
inline void load_two(const Real* from, Vec (&x)[2]) {
  x[0] = load(from);
  x[1] = load(from + LANES);
}

inline void load_two(const uint16_t* from, Vec (&x)[2]) {
  const VecU pairs = (VecU)load(reinterpret_cast<const Real*>(from));
  x[0] = (Vec)(pairs << 16);
  x[1] = (Vec)(pairs & 0xFFFF0000u);
}

// Reorder floats into the order of bfloat16's load_two(), and back from the order of T.
inline void from_order_of(const Real*, Vec (&)[2]) {}

inline void to_bfloat16_order(Vec (&x)[2]) {
  const Vec first = shuffle<EvenLanes>(x[0], x[1]);
  x[1] = shuffle<OddLanes>(x[0], x[1]);
  x[0] = first;
}

inline void row_to_bfloat16_order(Real* row, int64_t width) {
  for (int64_t c = 0; c < width; c += kTile) {
    Vec two[2];
    load_two(row + c, two);
    to_bfloat16_order(two);
    store(row + c, two[0]);
    store(row + c + LANES, two[1]);
  }
}

inline void from_order_of(const uint16_t*, Vec (&x)[2]) {
  const Vec first = shuffle<InterleavedLow>(x[0], x[1]);
  x[1] = shuffle<InterleavedHigh>(x[0], x[1]);
  x[0] = first;
}

// Rows of one element type with contiguous columns.
template <class T>
struct RowsOf {
  const T* data;
  int64_t stride;
};

// R queries times n keys: x[r * stride + j]. `query` is in T's order.
template <int R, class T>
inline void dots(const Real* query, int64_t width, const RowsOf<T>& keys, int64_t n, Real* x, int64_t stride) {
  // LANES sums are totaled together. One query reads key after key, which suits the prefetcher; two queries use two keys
  // at once, so that the queries are loaded less often.
  constexpr int K = LANES / R, G = R == 2 ? 2 : 1;
  static_assert(K % G == 0, "whole groups of keys");
  int64_t j = 0;
  for (; j + K <= n; j += K) {
    Vec sum[LANES];
    UNROLL for (int k = 0; k < K; k += G) {
      const T* key = keys.data + (j + k) * keys.stride;
      Vec part[G][R][2] = {};
      for (int64_t c = 0; c < width; c += kTile) {
        UNROLL for (int g = 0; g < G; g++) {
          Vec here[2];
          load_two(key + g * keys.stride + c, here);
          UNROLL for (int r = 0; r < R; r++) {
            part[g][r][0] += here[0] * load(query + r * width + c);
            part[g][r][1] += here[1] * load(query + r * width + c + LANES);
          }
        }
      }
      UNROLL for (int g = 0; g < G; g++)
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k + g] = part[g][r][0] + part[g][r][1];
    }
    totals<LANES / 2>(sum);
    UNROLL for (int r = 0; r < R; r++)
      UNROLL for (int k = 0; k < K; k++) x[r * stride + j + k] = sum[0][r * K + k];
  }
  for (; j < n; j++)
    for (int r = 0; r < R; r++) {
      Vec sum = {};
      for (int64_t c = 0; c < width; c += kTile) {
        Vec here[2];
        load_two(keys.data + j * keys.stride + c, here);
        sum += here[0] * load(query + r * width + c) + here[1] * load(query + r * width + c + LANES);
      }
      x[r * stride + j] = total_of(sum);
    }
}

// The same for R rows of x and as many of `rows` as give LANES sums: enough to hide the latency of a multiply-add, with
// as few loads as possible.
template <int R, class T>
inline void dots_side_by_side(const Real* x, int64_t width, const RowsOf<T>& rows, int64_t n, Real* to,
                              int64_t stride) {
  constexpr int K = LANES / R;
  int64_t j = 0;
  for (; j + K <= n; j += K) {
    const T* const row = rows.data + j * rows.stride;
    Vec sum[LANES] = {};
    for (int64_t c = 0; c < width; c += kTile) {
      Vec own[R][2];
      UNROLL for (int r = 0; r < R; r++) load_two(x + r * width + c, own[r]);
      UNROLL for (int k = 0; k < K; k++) {
        Vec here[2];
        load_two(row + k * rows.stride + c, here);
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k] += here[0] * own[r][0];
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k] += here[1] * own[r][1];
      }
    }
    totals<LANES / 2>(sum);
    UNROLL for (int r = 0; r < R; r++)
      UNROLL for (int k = 0; k < K; k++) to[r * stride + j + k] = sum[0][r * K + k];
  }
  if (j < n) dots<R>(x, width, RowsOf<T>{rows.data + j * rows.stride, rows.stride}, n - j, to + j, stride);
}

// Whether a tensor's rows can be read in place as T: contiguous columns that fill whole vectors.
template <class T>
inline bool usable_in_place(const Tensor& t, Dtype dtype, int64_t width, int64_t wide) {
  return width == wide && t.column == 1 && dtype == (sizeof(T) == 2 ? kBFloat16 : kReal);
}

// Call use() with rows first .. first + n - 1, in place or else as Real in `space` with columns of 0 up to `wide`.
template <class Use>
inline void with_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                      int64_t width, int64_t wide, Real* space, const Use& use) {
  const void* const data = row_of(t, dtype, batch, head, first);
  if (usable_in_place<Real>(t, dtype, width, wide)) return use(RowsOf<Real>{static_cast<const Real*>(data), t.row});
  if constexpr (kReal == kFloat32)
    if (usable_in_place<uint16_t>(t, dtype, width, wide))
      return use(RowsOf<uint16_t>{static_cast<const uint16_t*>(data), t.row});
  for (int64_t i = 0; i < n; i++) {
    Real* to = space + i * wide;
    load_row(row_of(t, dtype, batch, head, first + i), dtype, t.column, width, to);
    for (int64_t c = width; c < wide; c++) to[c] = 0;
  }
  use(RowsOf<Real>{space, wide});
}

}  // namespace
}  // namespace clearhead
