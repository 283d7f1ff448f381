// Few queries against many keys. Queries would leave most lanes empty, so the lanes hold columns, or keys where these are
// narrow or transposed (for the logits), and value columns (for the output). All query rows that share a key head read each block of keys together. The keys are
// split into parts of fixed length, whose results are merged by their lse, in order.
#pragma once
#include "passes/masked_values.h"
#include "vector/dots.h"
#include "vector/narrow.h"

namespace clearhead {
namespace {

inline int64_t decode_rows(const Attention& p) { return p.heads / p.kv_heads * p.length; }

// Whether logits are computed from columns of keys, with the lanes along the keys: narrow rows would leave lanes empty, and
// a transposed tensor has columns already. And whether a row of values is a single vector.
inline bool reads_columns(const Attention& p) {
  return is_transposed(p.key) || p.width <= (decode_rows(p) < 4 ? LANES : kTile);
}
inline bool has_narrow_values(const Attention& p) { return p.value_width <= LANES; }

inline int64_t decode_width(const Attention& p) { return round_up(p.width, kTile); }
inline int64_t decode_value_width(const Attention& p) {
  return has_narrow_values(p) ? LANES : round_up(p.value_width, kTile);
}

// A block of keys, and later of values: where they are not read in place, and keys once more as columns.
inline size_t decode_key_space(const Attention& p) {
  return kDecodeKeys * decode_width(p) + (reads_columns(p) ? narrow_scratch(kDecodeKeys, p.width) : 0);
}
inline size_t decode_value_space(const Attention& p) {
  return has_narrow_values(p) ? narrow_scratch(kDecodeKeys, LANES) : kDecodeKeys * decode_value_width(p);
}

// The result of one part: [rows] offsets, [rows] sums, [rows][decode_value_width] outputs before division by the sums, each
// with its gap.
size_t decode_partial(const Attention& p) { return decode_rows(p) * (2 + decode_value_width(p)); }

size_t decode_scratch(const Attention& p) {
  return decode_rows(p) * (decode_width(p) + kDecodeKeys + 1) +
         larger(decode_key_space(p), decode_value_space(p));
}

template <class T>
inline void all_dots(const Real* query, int64_t rows, int64_t width, const RowsOf<T>& keys, int64_t n, Real* x) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dots<4>(query + r * width, width, keys, n, x + r * kDecodeKeys, kDecodeKeys);
  for (; r + 2 <= rows; r += 2) dots<2>(query + r * width, width, keys, n, x + r * kDecodeKeys, kDecodeKeys);
  for (; r < rows; r++) dots<1>(query + r * width, width, keys, n, x + r * kDecodeKeys, kDecodeKeys);
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

template <class T>
inline void mix_all(const Real* x, int64_t rows, const RowsOf<T>& values, int64_t n, const Real* alpha, Real* out,
                    int64_t width) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) mix_rows<4>(x + r * kDecodeKeys, values, n, alpha + r, out + r * width, width);
  for (; r + 2 <= rows; r += 2) mix_rows<2>(x + r * kDecodeKeys, values, n, alpha + r, out + r * width, width);
  for (; r < rows; r++) mix_rows<1>(x + r * kDecodeKeys, values, n, alpha + r, out + r * width, width);
}

// As all_dots(), from columns of keys.
inline void column_dots(const Attention& p, const Real* query, int64_t batch, int64_t kv_head, int64_t key, int64_t n,
                        Real* x, Real* space) {
  Real* const columns = space + narrow_scratch(kDecodeKeys, p.width);
  if (is_transposed(p.key))
    for (int64_t c = 0; c < p.width; c++)
      load_row(element(row_of(p.key, p.dtype, batch, kv_head, key), p.dtype, c * p.key.column), p.dtype, 1, n,
               columns + c * kDecodeKeys);
  else
    narrow_columns(narrow_rows(p.key, p.dtype, batch, kv_head, key, n, p.keys, p.width, space), n, p.width, columns,
                   kDecodeKeys);
  for (int64_t j = 0; j < n; j += kTile)
    product<kAlong>(decode_rows(p), query, decode_width(p), columns + j, kDecodeKeys, p.width, Set{x + j, kDecodeKeys});
}

inline void mix_all_narrow(const Real* x, int64_t rows, const Rows& values, int64_t n, const Real* alpha, Real* out) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) mix_narrow<4>(x + r * kDecodeKeys, kDecodeKeys, values, n, alpha + r, out + r * LANES);
  for (; r + 2 <= rows; r += 2) mix_narrow<2>(x + r * kDecodeKeys, kDecodeKeys, values, n, alpha + r, out + r * LANES);
  for (; r < rows; r++) mix_narrow<1>(x + r * kDecodeKeys, kDecodeKeys, values, n, alpha + r, out + r * LANES);
}

void decode(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t last, Real* partial,
            Real* scratch) {
  const int64_t rows = decode_rows(p), width = decode_width(p), value_width = decode_value_width(p);
  Real *const offset = partial, *const sum = offset + rows, *const out = sum + rows;
  Real* const query = scratch;
  Real* const x = query + rows * width;
  Real* const alpha = x + rows * kDecodeKeys;
  Real* const space = alpha + rows;
  const int64_t head = kv_head * (p.heads / p.kv_heads);
  const bool columns = reads_columns(p);
  for (int64_t r = 0; r < rows; r++) {
    const Multiplier m = multiplier_of(p, head + r / p.length);
    Real* q = query + r * width;
    const void* const from = row_of(p.query, p.dtype, batch, head + r / p.length, r % p.length);
    if (columns) load_row(from, p.dtype, p.query.column, p.width, q);
    else load_with_gap(from, p.dtype, p.query.column, p.width, q);
    for (int64_t c = 0; c < (columns ? p.width : width); c++) q[c] *= m.on_query;
    if (!columns && are_of<uint16_t>(p.key, p.dtype)) row_to_bfloat16_order(q, width);
    offset[r] = kNothing * m.slope;
    sum[r] = 0;
  }
  for (int64_t i = 0; i < rows * value_width; i++) out[i] = 0;
  const Span span = span_of(p, 0, p.length);
  last = smaller(last, span.last);
  for (int64_t key = larger(first, span.first); key < last; key += kDecodeKeys) {
    const int64_t n = smaller(kDecodeKeys, last - key);
    if (columns) column_dots(p, query, batch, kv_head, key, n, x, space);
    else with_rows(p.key, p.dtype, batch, kv_head, key, n, p.width, space,
                   [&](const auto& keys) { all_dots(query, rows, width, keys, n, x); });
    for (int64_t r = 0; r < rows; r++) {
      Real* const own = x + r * kDecodeKeys;
      const Multiplier m = multiplier_of(p, head + r / p.length);
      change_row(p, m, batch, head + r / p.length, r % p.length, key, n, own);
      alpha[r] = softmax_row(m.slope, n, own, offset + r, sum + r);
      drop_row(p, batch, head + r / p.length, r % p.length, key, n, own);
    }
    if (has_narrow_values(p))
      mix_all_narrow(x, rows, narrow_rows(p.value, p.dtype, batch, kv_head, key, n, p.keys, p.value_width, space), n,
                     alpha, out);
    else with_rows(p.value, p.dtype, batch, kv_head, key, n, p.value_width, space,
                   [&](const auto& values) { mix_all(x, rows, values, n, alpha, out, value_width); });
  }
}

// Merge the parts of one key head, each `each` numbers after the one before it; `space` holds value_width numbers.
void decode_merge(const Attention& p, int64_t batch, int64_t kv_head, int64_t parts, const Real* partials, int64_t each,
                  Real* space) {
  const int64_t rows = decode_rows(p), value_width = decode_value_width(p);
  const int64_t whole = has_narrow_values(p) ? p.value_width : whole_columns(p.value_width);
  const int64_t gap = value_width - p.value_width;
  const int64_t head = kv_head * (p.heads / p.kv_heads);
  for (int64_t r = 0; r < rows; r++) {
    double top = partials[r], total = 0;
    for (int64_t i = 1; i < parts; i++) top = partials[i * each + r] > top ? partials[i * each + r] : top;
    if (p.sinks) {
      const double sink = double(number_at(p.sinks, head + r / p.length)) * kLog2EWide;
      top = sink > top ? sink : top;
      total = __builtin_exp2(sink - top);
    }
    for (int64_t i = 0; i < parts; i++)
      total += partials[i * each + rows + r] * __builtin_exp2(partials[i * each + r] - top);
    for (int64_t c = 0; c < p.value_width; c++) space[c] = 0;
    for (int64_t i = 0; i < parts; i++) {
      const Real share = total == 0 ? 0 : Real(__builtin_exp2(partials[i * each + r] - top) / total);
      const Real* out = partials + i * each + 2 * rows + r * value_width;
      for (int64_t c = 0; c < whole; c++) space[c] += out[c] * share;
      for (int64_t c = whole; c < p.value_width; c++) space[c] += out[c + gap] * share;
    }
    store_row(space, p.value_width, p.dtype, row_of(p.out, p.dtype, batch, head + r / p.length, r % p.length));
    if (p.lse.data)
      store_lse(p, batch, head + r / p.length, r % p.length,
                total == 0 ? -kInfinity : top * kLn2 + __builtin_log(total));
    leave_out_masked_values(p, batch, head + r / p.length, r % p.length, 1);
  }
}

}  // namespace
}  // namespace clearhead
