// Products of few rows (queries, or their gradients) with blocks of keys or values. The rows would leave most lanes empty,
// so the lanes hold columns; or the keys themselves, where these are narrow or transposed.
#pragma once
#include <type_traits>

#include "passes/row.h"
#include "vector/dots.h"
#include "vector/narrow.h"

namespace clearhead {
namespace {

// The query rows that share a key head.
inline int64_t few_rows(const Attention& p) { return p.heads / p.kv_heads * p.length; }

// Up to kDecodeKeys rows of a key head's keys or values.
struct KeyBlock {
  const Tensor& tensor;
  Dtype dtype;
  int64_t batch, kv_head, first, n;
  int64_t length, width;  // of the tensor

  const void* at() const { return row_of(tensor, dtype, batch, kv_head, first); }
};

inline KeyBlock keys_of(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n) {
  return {p.key, p.dtype, batch, kv_head, first, n, p.keys, p.width};
}

inline KeyBlock values_of(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n) {
  return {p.value, p.dtype, batch, kv_head, first, n, p.keys, p.value_width};
}

// Call act(count, r) for runs of four, two or one rows, from row r on; `count` is a constant.
template <class Act>
inline void by_rows(int64_t rows, const Act& act) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) act(std::integral_constant<int, 4>{}, r);
  for (; r + 2 <= rows; r += 2) act(std::integral_constant<int, 2>{}, r);
  for (; r < rows; r++) act(std::integral_constant<int, 1>{}, r);
}

// Whether dot products with a tensor's rows are computed from its columns: narrow rows would leave lanes empty, and a
// transposed tensor has columns already.
inline bool reads_columns(const Tensor& t, int64_t width, int64_t rows) {
  return is_transposed(t) || width <= (rows < 4 ? LANES : kTile);
}

// Whether sums of a tensor's rows are single vectors.
inline bool is_narrow(int64_t width) { return width <= LANES; }

// Numbers from one of the few rows to the next: of those that are multiplied, and of sums of a tensor's rows.
inline int64_t few_width(int64_t width) { return round_up(width, kTile); }
inline int64_t sum_width(int64_t width) { return is_narrow(width) ? LANES : few_width(width); }

// The space that few_dots() and few_sums() need.
inline size_t few_dots_scratch(const Tensor& t, int64_t width, int64_t rows) {
  return kDecodeKeys * few_width(width) + (reads_columns(t, width, rows) ? narrow_scratch(kDecodeKeys, width) : 0);
}
inline size_t few_sums_scratch(int64_t width) {
  return is_narrow(width) ? narrow_scratch(kDecodeKeys, LANES) : kDecodeKeys * few_width(width);
}

// Convert one of the few rows for few_dots() with the rows of `t`; few_width() numbers.
inline void load_few(const void* from, Dtype dtype, int64_t column, int64_t width, Real factor, const Tensor& t,
                     int64_t rows, Real* to) {
  const bool columns = reads_columns(t, width, rows);
  if (columns) load_row(from, dtype, column, width, to);
  else load_with_gap(from, dtype, column, width, to);
  const int64_t n = columns ? width : few_width(width);
  for (int64_t c = 0; c < n; c++) to[c] *= factor;
  if (!columns && are_of<uint16_t>(t, dtype)) row_to_bfloat16_order(to, n);
}

// The columns of a block, [width][kDecodeKeys].
inline void load_columns(const KeyBlock& block, Real* columns, Real* space) {
  const Tensor& t = block.tensor;
  if (is_transposed(t))
    for (int64_t c = 0; c < block.width; c++)
      load_row(element(block.at(), block.dtype, c * t.column), block.dtype, 1, block.n, columns + c * kDecodeKeys);
  else
    narrow_columns(narrow_rows(t, block.dtype, block.batch, block.kv_head, block.first, block.n, block.length, block.width,
                               space),
                   block.n, block.width, columns, kDecodeKeys);
}

// x[r * kDecodeKeys + j] = few[r] · row j of the block.
inline void few_dots(const KeyBlock& block, const Real* few, int64_t rows, Real* x, Real* space) {
  const int64_t width = few_width(block.width);
  if (reads_columns(block.tensor, block.width, rows)) {
    Real* const columns = space + narrow_scratch(kDecodeKeys, block.width);
    load_columns(block, columns, space);
    for (int64_t j = 0; j < block.n; j += kTile)
      product<kAlong>(rows, few, width, columns + j, kDecodeKeys, block.width, Set{x + j, kDecodeKeys});
    return;
  }
  with_rows(block.tensor, block.dtype, block.batch, block.kv_head, block.first, block.n, block.width, space,
            [&](const auto& keys) {
              by_rows(rows, [&](auto count, int64_t r) {
                dots<count>(few + r * width, width, keys, block.n, x + r * kDecodeKeys, kDecodeKeys);
              });
            });
}

// out[r][c] = out[r][c] * alpha[r] + sum over j of x[r][j] * values[j][c], for R rows and C pairs of vectors, which
// read(row, c, here) loads.
template <int R, int C, class T, class Read>
inline __attribute__((always_inline)) void mix_strip(const Real* x, const RowsOf<T>& values, int64_t n, const Real* alpha,
                                                     Real* out, int64_t stride, const Read& read) {
  Vec sum[R][C][2] = {};
#pragma GCC unroll 4  // a quarter faster where keys come from memory
  for (int64_t j = 0; j < n; j++) {
    UNROLL for (int c = 0; c < C; c++) {
      Vec here[2];
      read(values.data + j * values.stride, c * kTile, here);
      UNROLL for (int r = 0; r < R; r++) {
        const Vec weight = splat(x[r * kDecodeKeys + j]);
        sum[r][c][0] += here[0] * weight;
        sum[r][c][1] += here[1] * weight;
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int c = 0; c < C; c++) {
      Real* const at = out + r * stride + c * kTile;
      from_order_of(values.data, sum[r][c]);
      store(at, load(at) * splat(alpha[r]) + sum[r][c][0]);
      store(at + LANES, load(at + LANES) * splat(alpha[r]) + sum[r][c][1]);
    }
}

template <int R, class T>
inline void mix_rows(const Real* x, const RowsOf<T>& values, int64_t n, const Real* alpha, Real* out,
                     int64_t width) {
  constexpr int C = 4 / R;  // eight sums: enough to hide the latency of a multiply-add
  const int64_t whole = whole_columns(values.width);
  int64_t at = 0;
  const auto read = [&at](const T* row, int64_t c, Vec (&here)[2]) { load_two(row + at + c, here); };
  for (; at + C * kTile <= whole; at += C * kTile) mix_strip<R, C>(x, values, n, alpha, out + at, width, read);
  for (; at < whole; at += kTile) mix_strip<R, 1>(x, values, n, alpha, out + at, width, read);
  if (whole == values.width) return;
  mix_strip<R, 1>(x, values, n, alpha, out + whole, width, [&values](const T* row, int64_t, Vec (&here)[2]) {
    load_kept(row + values.width - kTile, values.kept, here);
  });
}

// out[r] = out[r] * alpha[r] + sum over j of x[r * kDecodeKeys + j] * row j of the block; sum_width() numbers, in which the
// last columns of a row that is not narrow have a gap in front of them, as in load_with_gap().
inline void few_sums(const KeyBlock& block, const Real* x, int64_t rows, const Real* alpha, Real* out, Real* space) {
  const int64_t width = sum_width(block.width);
  if (is_narrow(block.width)) {
    const Rows own = narrow_rows(block.tensor, block.dtype, block.batch, block.kv_head, block.first, block.n, block.length,
                                 block.width, space);
    by_rows(rows, [&](auto count, int64_t r) {
      mix_narrow<count>(x + r * kDecodeKeys, kDecodeKeys, own, block.n, alpha + r, out + r * width);
    });
    return;
  }
  with_rows(block.tensor, block.dtype, block.batch, block.kv_head, block.first, block.n, block.width, space,
            [&](const auto& values) {
              by_rows(rows, [&](auto count, int64_t r) {
                mix_rows<count>(x + r * kDecodeKeys, values, block.n, alpha + r, out + r * width, width);
              });
            });
}

// Move the last columns of such a row over its gap.
inline void close_gap(int64_t width, Real* row) {
  if (is_narrow(width)) return;
  const int64_t whole = whole_columns(width);
  for (int64_t c = whole, gap = few_width(width) - width; c < width && gap > 0; c++) row[c] = row[c + gap];
}

}  // namespace
}  // namespace clearhead
