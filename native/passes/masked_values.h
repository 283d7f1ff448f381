// NaN and infinite values at keys that a query may not attend. The queries of a tile share blocks of keys, and 0 times
// such a value is NaN. So a row whose output is not finite is computed again alone, from the values whose weight is not
// 0.
#pragma once
#include "passes/row.h"

namespace clearhead {
namespace {

constexpr int64_t kAloneColumns = 64;  // of the output, computed at a time

// Whether there are queries that may not attend every key.
inline bool leaves_out_keys(const Attention& p) {
  return p.allow.data || p.bias.data || !inside_band(p, 0, p.length, 0, p.keys);
}

template <class Bits>
inline bool any_exponent_is_full(const void* numbers, int64_t n, Bits exponent) {
  const Bits* const bits = static_cast<const Bits*>(numbers);
  int full = 0;
  for (int64_t i = 0; i < n; i++) full |= (bits[i] & exponent) == exponent;
  return full != 0;
}

// Whether n contiguous numbers are finite.
inline bool are_finite(const void* numbers, Dtype dtype, int64_t n) {
  switch (dtype) {
    case kFloat64: return !any_exponent_is_full<uint64_t>(numbers, n, 0x7FF0000000000000u);
    case kFloat32: return !any_exponent_is_full<uint32_t>(numbers, n, 0x7F800000u);
    case kBFloat16: return !any_exponent_is_full<uint16_t>(numbers, n, 0x7F80);
    default: return !any_exponent_is_full<uint16_t>(numbers, n, 0x7C00);
  }
}

inline Real dot_of_rows(const Attention& p, const void* query, Real on_query, const void* key) {
  Real sum = 0, q[kAloneColumns], k[kAloneColumns];
  for (int64_t c = 0; c < p.width; c += kAloneColumns) {
    const int64_t n = smaller(kAloneColumns, p.width - c);
    load_row(element(query, p.dtype, c * p.query.column), p.dtype, p.query.column, n, q);
    load_row(element(key, p.dtype, c * p.key.column), p.dtype, p.key.column, n, k);
    for (int64_t i = 0; i < n; i++) sum += q[i] * on_query * k[i];
  }
  return sum;
}

// Recompute columns first .. first + n - 1 of one row of the output. A row whose weights are NaN does not change.
inline void output_of_row(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t first, int64_t n) {
  const int64_t kv_head = head / (p.heads / p.kv_heads);
  const Multiplier m = multiplier_of(p, head);
  const void* const query = row_of(p.query, p.dtype, batch, head, row);
  Real offset = kNothing * m.slope, sum = 0, weights[kDecodeKeys], value[kAloneColumns], out[kAloneColumns] = {};
  const Span span = span_of(p, row, 1);
  for (int64_t key = span.first; key < span.last; key += kDecodeKeys) {
    const int64_t keys = smaller(kDecodeKeys, span.last - key);
    for (int64_t j = 0; j < keys; j++)
      weights[j] = dot_of_rows(p, query, m.on_query, row_of(p.key, p.dtype, batch, kv_head, key + j));
    change_row(p, m, batch, head, row, key, keys, weights);
    const Real alpha = softmax_row(m.slope, keys, weights, &offset, &sum);
    if (sum != sum) return;
    drop_row(p, batch, head, row, key, keys, weights);
    for (int64_t c = 0; c < n; c++) out[c] *= alpha;
    for (int64_t j = 0; j < keys; j++) {
      if (weights[j] == 0) continue;
      const void* const from = row_of(p.value, p.dtype, batch, kv_head, key + j);
      load_row(element(from, p.dtype, first * p.value.column), p.dtype, p.value.column, n, value);
      for (int64_t c = 0; c < n; c++) out[c] += weights[j] * value[c];
    }
  }
  double total = sum;
  if (p.sinks) total += __builtin_exp2(double(number_at(p.sinks, head)) * kLog2EWide - offset);
  for (int64_t c = 0; c < n; c++) out[c] = total == 0 ? 0 : Real(out[c] / total);
  store_row(out, n, p.dtype, element(row_of(p.out, p.dtype, batch, head, row), p.dtype, first));
}

// Check rows first .. first + n - 1 of a stored output, and recompute those that need it.
inline void leave_out_masked_values(const Attention& p, int64_t batch, int64_t head, int64_t first, int64_t n) {
  if (!leaves_out_keys(p)) return;
  for (int64_t row = first; row < first + n; row++)
    for (int64_t c = 0; c < p.value_width; c += kAloneColumns) {
      const int64_t columns = smaller(kAloneColumns, p.value_width - c);
      const void* const out = element(row_of(p.out, p.dtype, batch, head, row), p.dtype, c);
      if (!are_finite(out, p.dtype, columns)) output_of_row(p, batch, head, row, c, columns);
    }
}

}  // namespace
}  // namespace clearhead
