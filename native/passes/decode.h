// Few queries against many keys. All query rows that share a key head read each block of keys together. The keys are split
// into parts of fixed length, whose results are merged by their lse, in order.
#pragma once
#include "passes/few_rows.h"
#include "passes/masked_values.h"

namespace clearhead {
namespace {

// The result of one part: [rows] offsets, [rows] sums, [rows][sum_width] outputs before division by the sums.
size_t decode_partial(const Attention& p) { return few_rows(p) * (2 + sum_width(p.value_width)); }

size_t decode_scratch(const Attention& p) {
  const int64_t rows = few_rows(p);
  return rows * (few_width(p.width) + kDecodeKeys + 1) +
         larger(few_dots_scratch(p.key, p.width, rows), few_sums_scratch(p.value_width));
}

void decode(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t last, Real* partial,
            Real* scratch) {
  const int64_t rows = few_rows(p), width = few_width(p.width), value_width = sum_width(p.value_width);
  Real *const offset = partial, *const sum = offset + rows, *const out = sum + rows;
  Real* const query = scratch;
  Real* const x = query + rows * width;
  Real* const alpha = x + rows * kDecodeKeys;
  Real* const space = alpha + rows;
  const int64_t head = kv_head * (p.heads / p.kv_heads);
  for (int64_t r = 0; r < rows; r++) {
    const Multiplier m = multiplier_of(p, head + r / p.length);
    load_few(row_of(p.query, p.dtype, batch, head + r / p.length, r % p.length), p.dtype, p.query.column, p.width,
             m.on_query, p.key, rows, query + r * width);
    offset[r] = kNothing * m.slope;
    sum[r] = 0;
  }
  for (int64_t i = 0; i < rows * value_width; i++) out[i] = 0;
  const Span span = span_of(p, 0, p.length);
  last = smaller(last, span.last);
  for (int64_t key = larger(first, span.first); key < last; key += kDecodeKeys) {
    const int64_t n = smaller(kDecodeKeys, last - key);
    few_dots(keys_of(p, batch, kv_head, key, n), query, rows, x, space);
    for (int64_t r = 0; r < rows; r++) {
      Real* const own = x + r * kDecodeKeys;
      const Multiplier m = multiplier_of(p, head + r / p.length);
      change_row(p, m, batch, head + r / p.length, r % p.length, key, n, own);
      alpha[r] = softmax_row(m.slope, n, own, offset + r, sum + r);
      drop_row(p, batch, head + r / p.length, r % p.length, key, n, own);
    }
    few_sums(values_of(p, batch, kv_head, key, n), x, rows, alpha, out, space);
  }
}

// Merge the parts of one key head, each `each` numbers after the one before it; `space` holds sum_width numbers.
void decode_merge(const Attention& p, int64_t batch, int64_t kv_head, int64_t parts, const Real* partials, int64_t each,
                  Real* space) {
  const int64_t rows = few_rows(p), value_width = sum_width(p.value_width);
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
    for (int64_t c = 0; c < value_width; c++) space[c] = 0;
    for (int64_t i = 0; i < parts; i++) {
      const Real share = total == 0 ? 0 : Real(__builtin_exp2(partials[i * each + r] - top) / total);
      const Real* out = partials + i * each + 2 * rows + r * value_width;
      for (int64_t c = 0; c < value_width; c++) space[c] += out[c] * share;
    }
    close_gap(p.value_width, space);
    store_row(space, p.value_width, p.dtype, row_of(p.out, p.dtype, batch, head + r / p.length, r % p.length));
    if (p.lse.data)
      store_lse(p, batch, head + r / p.length, r % p.length,
                total == 0 ? -kInfinity : top * kLn2 + __builtin_log(total));
    leave_out_masked_values(p, batch, head + r / p.length, r % p.length, 1);
  }
}

}  // namespace
}  // namespace clearhead
