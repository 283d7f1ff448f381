// Backward for few queries, row by row, whose forward pass is decode.h. Weights rebuilt with that pass's lse, and δ from its
// output, would have an error as large as that of the output: 1e-5 where logits are in the hundreds. With few queries P and
// dP of all keys fit in memory, so the lse and δ are computed again from them. Keys and values are read twice, and each row
// of their gradients is stored once.
#pragma once
#include "backward/scratch.h"
#include "passes/few_rows.h"

namespace clearhead {
namespace {

struct FewScratch {
  Real *query, *grad;                // Q and dO, as few_dots() reads them, [rows][few_width]
  Real *query_rows, *grad_rows;      // Q times the scale, and dO, [rows][few_width]
  Real* grad_query;                  // [rows][sum_width]
  Real *offset, *sum, *delta, *one;  // [rows]
  Real* factors;                     // [blocks][rows]: what turns a block's weights into P
  Real *weights, *slopes, *caps;     // [blocks][rows][kDecodeKeys]: P; dP, then dS; the derivative of the cap
  Real* products;                    // [kDecodeKeys][few_width]: rows of dK or dV
  Real* space;
};

inline FewScratch carve_few(const Attention& p, Real* at, size_t* total) {
  Real* const begin = at;
  FewScratch s;
  const auto take = [&at](int64_t n) { Real* here = at; at += round_up(n, 16); return here; };
  const int64_t rows = few_rows(p), blocks = (p.keys + kDecodeKeys - 1) / kDecodeKeys;
  const int64_t cells = blocks * rows * kDecodeKeys;
  const int64_t width = few_width(p.width), value_width = few_width(p.value_width);
  s.query = take(rows * width);
  s.grad = take(rows * value_width);
  s.query_rows = take(rows * width);
  s.grad_rows = take(rows * value_width);
  s.grad_query = take(rows * sum_width(p.width));
  s.offset = take(rows);
  s.sum = take(rows);
  s.delta = take(rows);
  s.one = take(rows);
  s.factors = take(blocks * rows);
  s.weights = take(cells);
  s.slopes = take(cells);
  s.caps = take(p.softcap != 0 ? cells : 0);
  s.products = take(kDecodeKeys * larger(width, value_width));
  s.space = take(larger(larger(few_dots_scratch(p.key, p.width, rows), few_dots_scratch(p.value, p.value_width, rows)),
                        few_sums_scratch(p.width)));
  *total = at - begin;
  return s;
}

// One key head of a backward pass.
struct FewBackward {
  const Attention& p;
  const Gradients& g;
  int64_t batch, kv_head, rows, first_head;
  FewScratch s;

  FewBackward(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, Real* scratch)
      : p(p), g(g), batch(batch), kv_head(kv_head), rows(few_rows(p)), first_head(kv_head * (p.heads / p.kv_heads)) {
    size_t total;
    s = carve_few(p, scratch, &total);
  }

  int64_t head_of(int64_t r) const { return first_head + r / p.length; }
  int64_t query_of(int64_t r) const { return r % p.length; }
  Real* of_row(Real* cells, int64_t block, int64_t r) const { return cells + (block * rows + r) * kDecodeKeys; }

  // Call act(block, first key, number of keys) for the keys that the band lets a query attend.
  template <class Act>
  void for_blocks(const Act& act) const {
    const Span span = span_of(p, 0, p.length);
    for (int64_t key = span.first, block = 0; key < span.last; key += kDecodeKeys, block++)
      act(block, key, smaller(kDecodeKeys, span.last - key));
  }

  void start() const {
    const int64_t width = few_width(p.width), value_width = few_width(p.value_width);
    for (int64_t r = 0; r < rows; r++) {
      const Multiplier m = multiplier_of(p, head_of(r));
      const void* const query = row_of(p.query, p.dtype, batch, head_of(r), query_of(r));
      const void* const grad = row_of(g.grad_out, p.dtype, batch, head_of(r), query_of(r));
      load_few(query, p.dtype, p.query.column, p.width, m.on_query, p.key, rows, s.query + r * width);
      load_few(grad, p.dtype, 1, p.value_width, 1, p.value, rows, s.grad + r * value_width);
      load_whole(query, p.query.column, p.width, scale_of(p, head_of(r)), s.query_rows + r * width);
      load_whole(grad, 1, p.value_width, 1, s.grad_rows + r * value_width);
      s.offset[r] = kNothing * m.slope;
      s.sum[r] = s.delta[r] = 0;
      s.one[r] = 1;
    }
    for (int64_t i = 0; i < rows * sum_width(p.width); i++) s.grad_query[i] = 0;
  }

  void load_whole(const void* from, int64_t column, int64_t width, Real factor, Real* to) const {
    load_row(from, p.dtype, column, width, to);
    for (int64_t c = 0; c < width; c++) to[c] *= factor;
    for (int64_t c = width; c < few_width(width); c++) to[c] = 0;
  }

  // A block's weights, in units of 2^-offset, and dP; the sum of the weights and that of P ∘ dP so far.
  void weigh(int64_t block, int64_t key, int64_t n) const {
    few_dots(keys_of(p, batch, kv_head, key, n), s.query, rows, of_row(s.weights, block, 0), s.space);
    few_dots(values_of(p, batch, kv_head, key, n), s.grad, rows, of_row(s.slopes, block, 0), s.space);
    for (int64_t r = 0; r < rows; r++) {
      Real *const x = of_row(s.weights, block, r), *const slopes = of_row(s.slopes, block, r);
      const Multiplier m = multiplier_of(p, head_of(r));
      scale_and_cap_row(p, m, n, x);
      if (p.softcap != 0) {
        const Real whole = 1 / (Real(p.softcap) * kLog2E);
        Real* const caps = of_row(s.caps, block, r);
        for (int64_t j = 0; j < n; j++) caps[j] = 1 - x[j] * whole * (x[j] * whole);
      }
      add_and_mask_row(p, batch, head_of(r), query_of(r), key, n, x);
      const Real alpha = softmax_row(m.slope, n, x, s.offset + r, s.sum + r);
      drop_row(p, batch, head_of(r), query_of(r), key, n, slopes);
      for (int64_t j = 0; j < n; j++) slopes[j] = x[j] == 0 ? 0 : slopes[j];  // a value left out may be NaN
      s.delta[r] = s.delta[r] * alpha + dot(x, slopes, n);
      s.factors[block * rows + r] = s.offset[r];
    }
  }

  // The lse, including the sink, from all blocks: what turns each block's weights into P, and δ.
  void normalise() const {
    const Real* const grad_lse = static_cast<const Real*>(g.grad_lse.data);
    for (int64_t r = 0; r < rows; r++) {
      const double sink = p.sinks ? double(number_at(p.sinks, head_of(r))) * kLog2EWide : -kInfinity;
      const double top = sink > s.offset[r] ? sink : s.offset[r], last = __builtin_exp2(s.offset[r] - top);
      const double total = s.sum[r] * last + __builtin_exp2(sink - top);
      for_blocks([&](int64_t block, int64_t, int64_t) {
        Real& factor = s.factors[block * rows + r];
        factor = total == 0 ? 0 : Real(__builtin_exp2(factor - top) / total);
      });
      s.delta[r] = total == 0 ? 0 : Real(s.delta[r] * last / total);
      if (grad_lse && total != 0)
        s.delta[r] -= grad_lse[batch * g.grad_lse.batch + head_of(r) * g.grad_lse.head + query_of(r) * g.grad_lse.row];
      if (g.sinks_rows)
        *share_of(g.sinks_rows, r) = total == 0 ? 0 : Real(-__builtin_exp2(sink - top) / total * s.delta[r]);
      if (g.alibi_rows) *share_of(g.alibi_rows, r) = 0;
    }
  }

  // A query's share in the gradient of one number of its head.
  Real* share_of(void* shares, int64_t r) const {
    return static_cast<Real*>(shares) + (batch * p.heads + head_of(r)) * p.length + query_of(r);
  }

  // dS = P ∘ (dP - δ), written over dP, and the gradients of what was added to the logits; then dropout is applied to P.
  void slopes(int64_t block, int64_t key, int64_t n) const {
    for (int64_t r = 0; r < rows; r++) {
      Real *const weights = of_row(s.weights, block, r), *const slopes = of_row(s.slopes, block, r);
      const Real factor = s.factors[block * rows + r], delta = s.delta[r];
      for (int64_t j = 0; j < n; j++) {
        weights[j] *= factor;
        slopes[j] = weights[j] * (slopes[j] - delta);
      }
      add_to_bias(r, key, n, slopes);
      if (g.alibi_rows) *share_of(g.alibi_rows, r) -= distances(r, key, n, slopes);
      if (p.softcap != 0) {
        const Real* const caps = of_row(s.caps, block, r);
        for (int64_t j = 0; j < n; j++) slopes[j] *= caps[j];
      }
      drop_row(p, batch, head_of(r), query_of(r), key, n, weights);
    }
  }

  void add_to_bias(int64_t r, int64_t key, int64_t n, const Real* slopes) const {
    const Tensor& b = g.grad_bias;
    if (!b.data) return;
    Real* const to = static_cast<Real*>(b.data) + batch * b.batch + head_of(r) * b.head + query_of(r) * b.row + key * b.column;
    for (int64_t j = 0; j < n; j++) to[j * b.column] += slopes[j];
  }

  Real distances(int64_t r, int64_t key, int64_t n, const Real* slopes) const {
    Real sum = 0;
    for (int64_t j = 0; j < n; j++) {
      const Real distance = Real(query_of(r) + p.first_query - p.first_key - key - j);
      sum += slopes[j] * (distance < 0 ? -distance : distance);
    }
    return sum;
  }

  // The keys of a block without those at its ends that no query attends, which may be NaN.
  Span with_slopes(const Real* slopes, int64_t n) const {
    const auto none = [&](int64_t j) {
      for (int64_t r = 0; r < rows; r++)
        if (slopes[r * kDecodeKeys + j] != 0) return false;
      return true;
    };
    int64_t first = 0;
    while (n > 0 && none(n - 1)) n--;
    while (first < n && none(first)) first++;
    return {first, n};
  }

  // Gradient rows of a block's keys or values: x[r][j] times the few rows, summed over r.
  void store_products(const Tensor& to, int64_t width, int64_t key, int64_t n, const Real* x, const Real* few) const {
    const int64_t stride = few_width(width);
    for (int64_t c = 0; c < stride; c += kTile)
      product<kAcross>(n, x, kDecodeKeys, few + c, stride, rows, Set{s.products + c, stride});
    for (int64_t j = 0; j < n; j++)
      store_row(s.products + j * stride, width, p.dtype, row_of(to, p.dtype, batch, kv_head, key + j));
  }

  // Gradients of keys that no query may attend.
  void store_zeros(int64_t first, int64_t last) const {
    for (int64_t i = 0; i < larger(few_width(p.width), few_width(p.value_width)); i++) s.products[i] = 0;
    for (int64_t key = first; key < last; key++) {
      store_row(s.products, p.width, p.dtype, row_of(g.grad_key, p.dtype, batch, kv_head, key));
      store_row(s.products, p.value_width, p.dtype, row_of(g.grad_value, p.dtype, batch, kv_head, key));
    }
  }

  void store_queries() const {
    for (int64_t r = 0; r < rows; r++) {
      Real* const row = s.grad_query + r * sum_width(p.width);
      close_gap(p.width, row);
      if (g.head_scale_rows) {  // Σⱼ dS scale q·k = scale q·(dS K)
        const void* const query = row_of(p.query, p.dtype, batch, head_of(r), query_of(r));
        load_whole(query, p.query.column, p.width, Real(p.scale), s.query_rows);
        *share_of(g.head_scale_rows, r) = dot(s.query_rows, row, p.width);
      }
      for (int64_t c = 0; c < p.width; c++) row[c] *= scale_of(p, head_of(r));
      store_row(row, p.width, p.dtype, row_of(g.grad_query, p.dtype, batch, head_of(r), query_of(r)));
    }
  }

  void run() const {
    start();
    for_blocks([&](int64_t block, int64_t key, int64_t n) { weigh(block, key, n); });
    normalise();
    for_blocks([&](int64_t block, int64_t key, int64_t n) {
      slopes(block, key, n);
      Real *const weights = of_row(s.weights, block, 0), *const slopes = of_row(s.slopes, block, 0);
      const Span some = with_slopes(slopes, n);
      few_sums(keys_of(p, batch, kv_head, key + some.first, some.last - some.first), slopes + some.first, rows, s.one,
               s.grad_query, s.space);
      store_products(g.grad_key, p.width, key, n, slopes, s.query_rows);
      store_products(g.grad_value, p.value_width, key, n, weights, s.grad_rows);
    });
    const Span span = span_of(p, 0, p.length);
    const int64_t first = smaller(span.first, p.keys), last = larger(first, span.last);
    store_zeros(0, first);
    store_zeros(last, p.keys);
    store_queries();
  }
};

}  // namespace
}  // namespace clearhead
