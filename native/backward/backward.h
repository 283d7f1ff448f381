// Backward: queries in the lanes, blocks of kRows queries against blocks of keys (Dao 2023, FlashAttention-2, alg. 2).
// With P the weights, dP = dO Vᵀ and δ = rowsum(dO ∘ O) - d lse: dS = P ∘ (dP - δ), dQ = dS K, dK = dSᵀ Q, dV = Pᵀ dO.
#pragma once
#include "passes/backward_few.h"
#include "passes/backward_scratch.h"

namespace clearhead {
namespace {

inline void pack_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                      int64_t width, Real* to) {
  if (n < lanes_of(n) || width < padded(width)) __builtin_memset(to, 0, sizeof(Real) * padded(width) * lanes_of(n));
  load_rows(t, dtype, batch, head, first, n, width, to, padded(width));
}

// The lse and δ of a block's queries; rowsum(i) is row i's dO · O. A lane past the end or an empty row gets lse +inf: its
// weights are 0.
template <class RowSum>
inline void start_sums(const Attention& p, const Gradients& g, const BackwardScratch& s, int64_t batch, int64_t head,
                       int64_t first, int64_t n, const RowSum& rowsum) {
  const Real* grad_lse = static_cast<const Real*>(g.grad_lse.data);
  for (int64_t i = 0; i < s.lanes; i++) {
    const double here = i < n ? lse_at(p, batch, head, first + i) : -kInfinity;
    s.lse[i] = kInfinity;
    s.lse_rest[i] = s.delta[i] = 0;
    if (here == -kInfinity) continue;
    set_lse(s, i, here * kLog2EWide);
    s.delta[i] = rowsum(i);
    if (grad_lse)
      s.delta[i] -= grad_lse[batch * g.grad_lse.batch + head * g.grad_lse.head + (first + i) * g.grad_lse.row];
  }
}

// Prepare what a block of queries needs.
inline void start_block(const Attention& p, const Gradients& g, const BackwardScratch& s, int64_t batch, int64_t head,
                        int64_t first, int64_t n, Multiplier m) {
  pack_lanes(p.query, p.dtype, batch, head, first, n, p.width, m.on_query, s.lanes, s.query_lanes, s.row_space);
  pack_rows(p.query, p.dtype, batch, head, first, n, p.width, s.query_rows);
  // The sums over the heads of a key are multiplied by the scale on storing; each head's own factor is applied here.
  if (p.head_scale) {
    const Real factor = number_at(p.head_scale, head);
    for (int64_t i = 0; i < padded(p.width) * s.lanes; i++) s.query_rows[i] *= factor;
  }
  pack_lanes(g.grad_out, p.dtype, batch, head, first, n, p.value_width, 1.0f, s.lanes, s.grad_lanes, s.row_space);
  pack_rows(g.grad_out, p.dtype, batch, head, first, n, p.value_width, s.grad_rows);
  __builtin_memset(s.grad_query, 0, sizeof(Real) * p.width * s.lanes);
  __builtin_memset(s.distance_sums, 0, sizeof(Real) * s.lanes);
  start_sums(p, g, s, batch, head, first, n, [&](int64_t i) {
    load_row(row_of(p.out, p.dtype, batch, head, first + i), p.dtype, 1, p.value_width, s.row_space);
    return dot(s.grad_rows + i * padded(p.value_width), s.row_space, p.value_width);
  });
}

// Turn logits into weights, in place.
inline void weights_from_logits(const BackwardScratch& s, Real slope, int64_t keys) {
  const Vec c = splat(slope);
  for (int64_t v = 0; v < s.lanes; v += LANES) {
    const Vec lse = load(s.lse + v), rest = load(s.lse_rest + v);
    Real* const at = s.weights + v;
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4) {  // computed together, as in the forward pass
      Vec x[4];
      UNROLL for (int i = 0; i < 4; i++) x[i] = load(at + (j + i) * s.lanes) * c - lse - rest;
      exp2_all(x);
      UNROLL for (int i = 0; i < 4; i++) store(at + (j + i) * s.lanes, x[i]);
    }
    for (; j < keys; j++) store(at + j * s.lanes, exp2(load(at + j * s.lanes) * c - lse - rest));
  }
}

// dS = P ∘ (dP - δ), written over dP.
inline void slopes_from_weights(const BackwardScratch& s, int64_t keys) {
  for (int64_t v = 0; v < s.lanes; v += LANES) {
    const Vec delta = load(s.delta + v);
    for (int64_t j = 0; j < keys; j++) {
      Real* at = s.slopes + j * s.lanes + v;
      store(at, load(s.weights + j * s.lanes + v) * (load(at) - delta));
    }
  }
}

inline void multiply_block(Real* x, const Real* by, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) store(x + i, load(x + i) * load(by + i));
}

inline void add_alibi_rows(const Attention& p, const BackwardScratch& s, const Place& at) {
  for (int64_t v = 0; v < s.lanes; v += LANES) {
    const Distance distance(p, at.row + v, at.key);
    Vec sum = load(s.distance_sums + v);
    for (int64_t j = 0; j < at.keys; j++) sum += load(s.slopes + j * s.lanes + v) * distance(j);
    store(s.distance_sums + v, sum);
  }
}

// Add dS to the gradient of a bias that has one number per key, [keys].
inline void add_to_bias_of_keys(const BackwardScratch& s, const Place& at, Real* grad_bias) {
  for (int64_t j = 0; j < at.keys; j++) {
    Vec sum = {};
    for (int64_t v = 0; v < s.lanes; v += LANES) sum += load(s.slopes + j * s.lanes + v);
    grad_bias[at.key + j] += total_of(sum);
  }
}

// Add dS to the gradient of a bias that has one number per row, or per row and key.
inline void add_to_bias(const Gradients& g, const BackwardScratch& s, const Place& at) {
  const Tensor& b = g.grad_bias;
  Real* const to = static_cast<Real*>(b.data) + at.batch * b.batch + at.head * b.head + at.row * b.row +
                    at.key * b.column;
  if (b.column == 0) {
    for (int64_t v = 0; v < at.rows; v += LANES) {
      Vec sum = {};
      for (int64_t j = 0; j < at.keys; j++) sum += load(s.slopes + j * s.lanes + v);
      for (int64_t i = v; i < at.rows && i < v + LANES; i++) to[i * b.row] += sum[i - v];
    }
    return;
  }
  const int64_t lanes = round_up(at.rows, LANES);
  for (int64_t j = 0; j < at.keys; j += LANES)
    transpose_rows(s.slopes + j * s.lanes, s.lanes, lanes, 1.0f, s.space + j, kWholeKeys);
  for (int64_t i = 0; i < at.rows; i++)
    for (int64_t j = 0; j < at.keys; j++) to[i * b.row + j] += s.space[i * kWholeKeys + j];
}

// The keys of a block, counted from its first, that the band lets each tile of queries attend. Other keys are neither
// multiplied nor added: at the edge of a causal mask that saves a third of the work.
struct Reached {
  Span tile[kRows / kTile];
  int64_t lanes, tiles;
  bool whole;

  Reached(const Attention& p, const Place& at)
      : lanes(lanes_of(at.rows)), tiles(lanes / kTile), whole(inside_band(p, at.row, lanes, at.key, at.keys)) {
    for (int64_t t = 0; t < tiles; t++) {
      const Span span = span_of(p, at.row + t * kTile, kTile);
      const int64_t first = whole ? 0 : smaller(larger(0, span.first - at.key), at.keys);
      tile[t] = {first, whole ? at.keys : larger(first, smaller(span.last - at.key, at.keys))};
    }
  }

  // The range of queries, in whole tiles, that reach some of keys first .. last - 1.
  Span queries(int64_t first, int64_t last) const {
    Span all = {lanes, 0};
    for (int64_t t = 0; t < tiles; t++)
      if (tile[t].first < last && first < tile[t].last) all = {smaller(all.first, t * kTile), (t + 1) * kTile};
    return all;
  }
};

// x[key][lane] = rows · lanes for the keys that each tile reaches; 0 elsewhere, where the band makes the weights 0.
inline void reached_products(const Reached& reached, int64_t count, Rows rows, const Real* lanes,
                             int64_t width, Real* x) {
  const int64_t stride = reached.lanes;
  for (int64_t t = 0; t < reached.tiles; t++) {
    const Span keys = reached.tile[t];
    product<kAlong>(keys.last - keys.first, rows.data + keys.first * rows.stride, rows.stride, lanes + t * kTile,
                    stride, width, Set{x + keys.first * stride + t * kTile, stride});
    for (int64_t j = 0; j < count; j++)
      for (int v = 0; v < kTile && (j < keys.first || j >= keys.last); v += LANES)
        store(x + j * stride + t * kTile + v, Vec{});
  }
}

// sums[key] += x[key][lane] * rows[lane], summed over the lanes that reach the key.
inline void add_to_keys(const Reached& reached, int64_t keys, const Real* x, const Real* rows, int64_t width,
                        Real* sums) {
  const int64_t step = reached.whole ? keys : 2 * ROWS;
  for (int64_t j = 0; j < keys; j += step) {
    const int64_t n = smaller(step, keys - j);
    const Span lanes = reached.queries(j, j + n);
    for (int64_t c = 0; c < width && lanes.first < lanes.last; c += kTile)
      product<kAlong>(n, x + j * reached.lanes + lanes.first, reached.lanes, rows + lanes.first * width + c, width,
                      lanes.last - lanes.first, Add{sums + j * width + c, width});
  }
}

// Logits, in s.weights, and dP, in s.slopes.
inline void products_of_block(const Attention& p, const BackwardScratch& s, const Multiplier& m, const Place& at,
                              State mask, Rows keys) {
  const Reached reached(p, at);
  reached_products(reached, at.keys, keys, s.query_lanes, p.width, s.weights);
  change_logits(p, at, m, mask, s.weights, s.lanes, s.lanes, s.cap_slopes, s.space);
  const Rows values = rows_as_real(p.value, p.dtype, at.batch, at.head / (p.heads / p.kv_heads), at.key, at.keys,
                                   p.value_width, s.value_space);
  reached_products(reached, at.keys, values, s.grad_lanes, p.value_width, s.slopes);
  drop(p, at, s.slopes, s.lanes, s.lanes);
}

// dS from P and dP, and the gradients that are sums of dS; then dropout is applied to P, as in the forward pass.
inline void slopes_of_block(const Attention& p, const Gradients& g, const BackwardScratch& s, const Place& at,
                            Real* sums) {
  slopes_from_weights(s, at.keys);
  if (g.alibi_rows) add_alibi_rows(p, s, at);
  if (bias_of_keys(g))
    add_to_bias_of_keys(s, at, sums + numbers_of_keys(p) + at.head % (p.heads / p.kv_heads) * p.keys);
  else if (g.grad_bias.data)
    add_to_bias(g, s, at);
  if (p.softcap != 0) multiply_block(s.slopes, s.cap_slopes, at.keys * s.lanes);
  drop(p, at, s.weights, s.lanes, s.lanes);
}

// Compute all gradients from P and dP.
inline void gradients_of_block(const Attention& p, const Gradients& g, const BackwardScratch& s, const Place& at,
                               Rows keys, Real* sums) {
  const int64_t n = at.keys;
  const int64_t width = padded(p.width), value_width = padded(p.value_width);
  Real* const grad_key = sums + at.key * width;
  Real* const grad_value = sums + key_rows(p) * width + at.key * value_width;
  const Reached reached(p, at);
  slopes_of_block(p, g, s, at, sums);
  for (int64_t t = 0; t < reached.tiles; t++) {
    const Span some = reached.tile[t];
    product<kAcross>(p.width, keys.data + some.first * keys.stride, keys.stride,
                     s.slopes + some.first * s.lanes + t * kTile, s.lanes, some.last - some.first,
                     Add{s.grad_query + t * kTile, s.lanes});
  }
  add_to_keys(reached, n, s.weights, s.grad_rows, value_width, grad_value);
  add_to_keys(reached, n, s.slopes, s.query_rows, width, grad_key);
}

inline void finish_block(const Attention& p, const Gradients& g, const BackwardScratch& s, int64_t batch, int64_t head,
                         int64_t first, int64_t n) {
  if (g.sinks_rows) {  // a sink is one more logit, of weight exp(sink - lse), with value 0
    Real* const rows = static_cast<Real*>(g.sinks_rows) + (batch * p.heads + head) * p.length + first;
    const double sink = double(number_at(p.sinks, head)) * kLog2EWide;
    for (int64_t i = 0; i < n; i++) rows[i] = -Real(__builtin_exp2(sink - s.lse[i] - s.lse_rest[i])) * s.delta[i];
  }
  if (g.head_scale_rows) {  // Σⱼ dS scale q·k = scale q·(dS K)
    Real* const rows = static_cast<Real*>(g.head_scale_rows) + (batch * p.heads + head) * p.length + first;
    for (int64_t i = 0; i < n; i++) {
      load_row(row_of(p.query, p.dtype, batch, head, first + i), p.dtype, p.query.column, p.width, s.row_space);
      Real sum = 0;
      for (int64_t c = 0; c < p.width; c++) sum += s.row_space[c] * s.grad_query[c * s.lanes + i];
      rows[i] = sum * Real(p.scale);
    }
  }
  for (int64_t i = 0; i < s.lanes; i++) s.delta[i] = scale_of(p, head);  // δ is no longer needed
  unpack_lanes(s.grad_query, s.lanes, n, p.width, s.delta, g.grad_query, p.dtype, batch, head, first, s.row_space);
  if (!g.alibi_rows) return;
  Real* const rows = static_cast<Real*>(g.alibi_rows) + (batch * p.heads + head) * p.length + first;
  for (int64_t i = 0; i < n; i++) rows[i] = -s.distance_sums[i];
}

// Call act(place, mask state, keys) for every block of keys of which these queries may attend any.
template <class Act>
inline void for_each_block(const Attention& p, const BackwardScratch& s, int64_t batch, int64_t head, int64_t row,
                           int64_t rows, const Act& act) {
  const Span all = span_of(p, row, rows);
  for (int64_t key = all.first; key < all.last; key += kBackKeys) {
    Place at = {batch, head, row, rows, key, smaller(kBackKeys, all.last - key)};
    const State mask = trim(p, &at, 1);
    if (mask == kEmpty) continue;
    act(at, mask,
        rows_as_real(p.key, p.dtype, batch, head / (p.heads / p.kv_heads), at.key, at.keys, p.width, s.key_space));
  }
}

size_t backward_scratch(const Attention& p) {
  return few_queries(p) ? size_of_scratch(p, carve_few) : size_of_scratch(p, carve);
}

void backward(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first, int64_t last,
              Real* sums, Real* scratch) {
  if (few_queries(p)) return FewBackward(p, g, batch, kv_head, scratch).run();
  size_t total;
  BackwardScratch s = carve(p, scratch, &total);
  const int64_t group = p.heads / p.kv_heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
    const Multiplier m = multiplier_of(p, head);
    for (int64_t row = first; row < last; row += kRows) {
      const int64_t rows = smaller(kRows, last - row);
      s.lanes = lanes_of(rows);
      start_block(p, g, s, batch, head, row, rows, m);
      for_each_block(p, s, batch, head, row, rows, [&](const Place& at, State mask, Rows keys) {
        products_of_block(p, s, m, at, mask, keys);
        weights_from_logits(s, m.slope, at.keys);
        gradients_of_block(p, g, s, at, keys, sums);
      });
      finish_block(p, g, s, batch, head, row, rows);
    }
  }
}

void store_key_sums(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, const Real* sums) {
  if (few_queries(p)) return;  // backward() has stored them
  const int64_t width = padded(p.width), value_width = padded(p.value_width);
  const int64_t group = p.heads / p.kv_heads;
  for (int64_t head = 0; bias_of_keys(g) && head < group; head++) {
    const Real* const from = sums + numbers_of_keys(p) + head * p.keys;
    Real* const to = static_cast<Real*>(g.grad_bias.data) + batch * g.grad_bias.batch +
                      (kv_head * group + head) * g.grad_bias.head;
    for (int64_t j = 0; j < p.keys; j++) to[j] = from[j];
  }
  Real scaled[1024];
  for (int64_t j = 0; j < p.keys; j++) {
    const Real* key = sums + j * width;
    const void* to = row_of(g.grad_key, p.dtype, batch, kv_head, j);
    for (int64_t c = 0; c < p.width; c += 1024) {
      const int64_t n = smaller(1024, p.width - c);
      for (int64_t i = 0; i < n; i++) scaled[i] = key[c + i] * Real(p.scale);
      store_row(scaled, n, p.dtype, element(to, p.dtype, c));
    }
    store_row(sums + key_rows(p) * width + j * value_width, p.value_width, p.dtype,
              row_of(g.grad_value, p.dtype, batch, kv_head, j));
  }
}

}  // namespace
}  // namespace clearhead
