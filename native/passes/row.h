// From logits to weights for a single row, with its keys in the lanes: for few queries, and for masked_values.h.
#pragma once
#include "passes/logits.h"

namespace clearhead {
namespace {

constexpr int64_t kDecodeKeys = 128;

inline void scale_and_cap_row(const Attention& p, const Multiplier& m, int64_t n, Real* x) {
  const Real cap = Real(p.softcap);
  if (cap != 0)
    for (int64_t j = 0; j < n; j++) x[j] = cap * kLog2E * tanh(x[j] * (m.on_logits / kLog2E / cap));
  else if (has_change(p))
    for (int64_t j = 0; j < n; j++) x[j] *= m.on_logits;
}

// Apply bias, mask and band to one row, key by key. Decoding waits for the memory of keys and values, not for this.
inline void add_and_mask_row(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t key, int64_t n, Real* x) {
  if (p.bias.data) {
    const int64_t at = batch * p.bias.batch + head * p.bias.head + row * p.bias.row + key * p.bias.column;
    Real bias[kDecodeKeys];
    load_row(element(p.bias.data, p.bias_dtype, at), p.bias_dtype, p.bias.column, n, bias);
    for (int64_t j = 0; j < n; j++) x[j] += bias[j] * kLog2E;
  }
  if (p.alibi) {
    const Real slope = number_at(p.alibi, head) * kLog2E;
    for (int64_t j = 0; j < n; j++) {
      const Real distance = Real(row + p.first_query - p.first_key - key - j);
      x[j] -= slope * (distance < 0 ? -distance : distance);
    }
  }
  if (p.allow.data) {
    const uint8_t* allow = static_cast<const uint8_t*>(p.allow.data) + batch * p.allow.batch + head * p.allow.head +
                           row * p.allow.row + key * p.allow.column;
    if (p.allow.column == 1) for (int64_t j = 0; j < n; j++) x[j] = allow[j] ? x[j] : -kInfinity;  // in vectors
    else for (int64_t j = 0; j < n; j++) x[j] = allow[j * p.allow.column] ? x[j] : -kInfinity;
  }
  if (inside_band(p, row, 1, key, n)) return;
  for (int64_t j = 0; j < n; j++) {
    const int64_t distance = key + j - row;
    if (distance < reach_low(p) || distance > reach_high(p)) x[j] = -kInfinity;
  }
}

inline void change_row(const Attention& p, const Multiplier& m, int64_t batch, int64_t head, int64_t row, int64_t key,
                       int64_t n, Real* x) {
  scale_and_cap_row(p, m, n, x);
  add_and_mask_row(p, batch, head, row, key, n, x);
}

inline void drop_row(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t key, int64_t n, Real* x) {
  if (p.dropout_p == 0) return;
  const uint32_t own = mix(dropout_word(p, batch, head) + uint32_t(p.first_query + row)), below = drop_below(p);
  const Real kept = keep_factor(p);
  for (int64_t j = 0; j < n; j++)
    x[j] = mix(own ^ mix(uint32_t(p.first_key + key + j))) < below ? 0 : x[j] * kept;
}

// Replace n logits by weights, update the row's offset and sum, and return what its output so far is multiplied by.
inline Real softmax_row(Real slope, int64_t n, Real* x, Real* offset, Real* sum) {
  constexpr int N = 4;  // vectors computed together
  static_assert(kDecodeKeys % (N * LANES) == 0, "x has room for whole groups");
  for (int64_t j = n; j < round_up(n, N * LANES); j++) x[j] = -kInfinity;
  Vec tops = splat(kNothing);
  for (int64_t j = 0; j < n; j += LANES) tops = maximum(load(x + j), tops);
  Real top = tops[0];
  for (int i = 1; i < LANES; i++) top = tops[i] > top ? tops[i] : top;
  const Real now = top * slope > *offset ? top * slope : *offset;
  const Real alpha = exp2(splat(*offset - now))[0];
  Vec total = {};
  for (int64_t j = 0; j < n; j += N * LANES) {
    Vec weight[N];
    UNROLL for (int i = 0; i < N; i++) weight[i] = load(x + j + i * LANES) * splat(slope) - splat(now);
    exp2_all(weight);
    UNROLL for (int i = 0; i < N; i++) store(x + j + i * LANES, weight[i]);
    UNROLL for (int i = 0; i < N; i++) total += weight[i];
  }
  *sum = *sum * alpha + total_of(total);
  *offset = now;
  return alpha;
}

}  // namespace
}  // namespace clearhead
