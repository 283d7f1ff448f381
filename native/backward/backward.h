// Backward: queries in the lanes, blocks of kRows queries against blocks of keys (Dao 2023, FlashAttention-2, alg. 2).
// With P the weights, dP = dO Vᵀ and δ = rowsum(dO ∘ O) - d lse: dS = P ∘ (dP - δ), dQ = dS K, dK = dSᵀ Q, dV = Pᵀ dO.
#pragma once
#include "backward/few.h"
#include "backward/slopes.h"

namespace clearhead {
namespace {

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

// Prepare what a block of queries needs, its operands excepted.
inline void start_block(const Attention& p, const Gradients& g, const BackwardScratch& s, int64_t batch, int64_t head,
                        int64_t first, int64_t n) {
  __builtin_memset(s.grad_query, 0, sizeof(Real) * p.width * s.lanes);
  __builtin_memset(s.distance_sums, 0, sizeof(Real) * s.lanes);
  start_sums(p, g, s, batch, head, first, n, [&](int64_t i) {
    Real *const out = s.row_space, *const grad = out + p.value_width;
    load_row(row_of(p.out, p.dtype, batch, head, first + i), p.dtype, 1, p.value_width, out);
    load_row(row_of(g.grad_out, p.dtype, batch, head, first + i), p.dtype, 1, p.value_width, grad);
    return dot(out, grad, p.value_width);
  });
}

// Rows of numbers that a product reads.
template <class How>
struct RowsIn {
  const typename How::A* data;
  int64_t stride;
};

// What the products of a block of queries and a block of keys read. In pairs of bfloat16: bf16.h.
struct RealOperands {
  using How = InReals<>;
  RowsIn<How> keys, values, key_sides;                                // [key][column]; the keys once more, for dQ
  const Real *query_lanes, *grad_lanes, *query_rows, *grad_rows;      // Q and dO, [column][lane] and [lane][column]
  const Real *weights, *slopes, *slope_lanes;                         // P and dS, [key][lane]; dS once more, for dQ

  // Pack the queries of a block and their gradients of the output.
  static void pack(const Attention& p, const Gradients& g, const BackwardScratch& s, int64_t batch, int64_t head,
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
  }

  RealOperands(const Attention& p, const BackwardScratch& s, const Place& at)
      : keys(rows(p, p.key, at, p.width, s.key_space)),
        values(rows(p, p.value, at, p.value_width, s.value_space)),
        key_sides(keys),
        query_lanes(s.query_lanes), grad_lanes(s.grad_lanes), query_rows(s.query_rows), grad_rows(s.grad_rows),
        weights(s.weights), slopes(s.slopes), slope_lanes(s.slopes) {}

  // P and dS are computed: they are read where they are.
  void take_weights(const Attention&, const BackwardScratch&, const Place&) const {}

 private:
  static void pack_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                        int64_t width, Real* to) {
    if (n < lanes_of(n) || width < padded(width)) __builtin_memset(to, 0, sizeof(Real) * padded(width) * lanes_of(n));
    load_rows(t, dtype, batch, head, first, n, width, to, padded(width));
  }

  static RowsIn<How> rows(const Attention& p, const Tensor& t, const Place& at, int64_t width, Real* space) {
    const Rows rows =
        rows_as_real(t, p.dtype, at.batch, at.head / (p.heads / p.kv_heads), at.key, at.keys, width, space);
    return {rows.data, rows.stride};
  }
};

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
template <class How, class Rows>
inline void reached_products(const Reached& reached, int64_t count, const Rows& rows, const typename How::B* lanes,
                             int64_t width, Real* x) {
  const int64_t stride = reached.lanes;
  for (int64_t t = 0; t < reached.tiles; t++) {
    const Span keys = reached.tile[t];
    product<kAlong, How>(keys.last - keys.first, rows.data + keys.first * rows.stride, rows.stride, lanes + t * kTile,
                         stride, width, Set{x + keys.first * stride + t * kTile, stride});
    for (int64_t j = 0; j < count; j++)
      for (int v = 0; v < kTile && (j < keys.first || j >= keys.last); v += LANES)
        store(x + j * stride + t * kTile + v, Vec{});
  }
}

// sums[key] += x[key][lane] * rows[lane], summed over the lanes that reach the key.
template <class How>
inline void add_to_keys(const Reached& reached, int64_t keys, const typename How::A* x, const typename How::B* rows,
                        int64_t width, Real* sums) {
  const int64_t step = reached.whole ? keys : 2 * ROWS;
  for (int64_t j = 0; j < keys; j += step) {
    const int64_t n = smaller(step, keys - j);
    const Span lanes = reached.queries(j, j + n);
    for (int64_t c = 0; c < width && lanes.first < lanes.last; c += kTile)
      product<kAlong, How>(n, x + j * reached.lanes + lanes.first, reached.lanes,
                           rows + lanes.first / How::kSide * width + c, width, lanes.last - lanes.first,
                           Add{sums + j * width + c, width});
  }
}

// dQᵀ += Kᵀ dSᵀ, over the keys that each tile reaches. `keys` are rows, or pairs of rows, that are read across.
template <class How>
inline void add_to_queries(const Attention& p, const BackwardScratch& s, const Reached& reached, RowsIn<How> keys,
                           const typename How::B* slopes) {
  for (int64_t t = 0; t < reached.tiles; t++) {
    const Span some = reached.tile[t];
    const int64_t first = some.first / How::kSide;  // a pair's other key is out of reach: its slopes are 0
    product<kAcross, How>(p.width, keys.data + first * keys.stride, keys.stride, slopes + first * s.lanes + t * kTile,
                          s.lanes, some.last - first * How::kSide, Add{s.grad_query + t * kTile, s.lanes});
  }
}

// Logits, in s.weights, and dP, in s.slopes.
template <class Operands>
inline void products_of_block(const Attention& p, const BackwardScratch& s, const Multiplier& m, const Place& at,
                              State mask, const Operands& x) {
  using How = typename Operands::How;
  const Reached reached(p, at);
  reached_products<How>(reached, at.keys, x.keys, x.query_lanes, p.width, s.weights);
  change_logits(p, at, m, mask, s.weights, s.lanes, s.lanes, s.cap_slopes, s.space);
  reached_products<How>(reached, at.keys, x.values, x.grad_lanes, p.value_width, s.slopes);
  drop(p, at, s.slopes, s.lanes, s.lanes);
}

// Compute all gradients from P and dP.
template <class Operands>
inline void gradients_of_block(const Attention& p, const Gradients& g, const BackwardScratch& s, const Place& at,
                               const Operands& x, Real* sums) {
  using How = typename Operands::How;
  const int64_t width = padded(p.width), value_width = padded(p.value_width);
  Real* const grad_key = sums + at.key * width;
  Real* const grad_value = sums + key_rows(p) * width + at.key * value_width;
  const Reached reached(p, at);
  slopes_of_block(p, g, s, at, sums);
  x.take_weights(p, s, at);
  add_to_queries<How>(p, s, reached, x.key_sides, x.slope_lanes);
  add_to_keys<How>(reached, at.keys, x.weights, x.grad_rows, value_width, grad_value);
  add_to_keys<How>(reached, at.keys, x.slopes, x.query_rows, width, grad_key);
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

// Call act(place, mask state) for every block of keys of which these queries may attend any.
template <class Act>
inline void for_each_block(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t rows, const Act& act) {
  const Span all = span_of(p, row, rows);
  for (int64_t key = all.first; key < all.last; key += kBackKeys) {
    Place at = {batch, head, row, rows, key, smaller(kBackKeys, all.last - key)};
    const State mask = trim(p, &at, 1);
    if (mask != kEmpty) act(at, mask);
  }
}

size_t backward_scratch(const Attention& p) {
  return few_queries(p) ? size_of_scratch(p, carve_few) : size_of_scratch(p, carve);
}

template <class Operands>
inline void backward_in(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first,
                        int64_t last, Real* sums, Real* scratch) {
  size_t total;
  BackwardScratch s = carve(p, scratch, &total);
  const int64_t group = p.heads / p.kv_heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
    const Multiplier m = multiplier_of(p, head);
    for (int64_t row = first; row < last; row += kRows) {
      const int64_t rows = smaller(kRows, last - row);
      s.lanes = lanes_of(rows);
      start_block(p, g, s, batch, head, row, rows);
      Operands::pack(p, g, s, batch, head, row, rows, m);
      for_each_block(p, batch, head, row, rows, [&](const Place& at, State mask) {
        const Operands operands(p, s, at);
        products_of_block(p, s, m, at, mask, operands);
        weights_from_logits(s, m.slope, at.keys);
        gradients_of_block(p, g, s, at, operands, sums);
      });
      finish_block(p, g, s, batch, head, row, rows);
    }
  }
}

void backward(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first, int64_t last,
              Real* sums, Real* scratch) {
  if (few_queries(p)) FewBackward(p, g, batch, kv_head, scratch).run();
  else backward_in<RealOperands>(p, g, batch, kv_head, first, last, sums, scratch);
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
