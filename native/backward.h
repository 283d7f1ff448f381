// Backward: queries in the lanes, blocks of kRows queries against blocks of keys (Dao 2023, FlashAttention-2, alg. 2).
// With P the weights, dP = dO Vᵀ and δ = rowsum(dO ∘ O) - d lse: dS = P ∘ (dP - δ), dQ = dS K, dK = dSᵀ Q, dV = Pᵀ dO.
#pragma once
#include "forward.h"

namespace clearhead {
namespace {

constexpr int64_t kRows = 64;  // queries in one block; a multiple of kTile for every target
constexpr int64_t kBackKeys = 64 / ROWS * ROWS;
static_assert(kRows % kTile == 0, "a block of queries is whole tiles");

inline int64_t padded(int64_t width) { return round_up(width, kTile); }

inline size_t key_sums(const Attention& p) { return p.keys * (padded(p.width) + padded(p.value_width)); }

struct BackwardScratch {
  float *query_lanes, *query_rows, *grad_lanes, *grad_rows;  // Q and dO, as [c][kRows] and as [i][padded]
  float *grad_query;                                         // [width][kRows]
  float *lse, *delta;                                        // [kRows]
  float *weights, *slopes;                                   // [kBackKeys][kRows]: P and dS
  float *cap_slopes, *space;                                 // [kBackKeys][kRows]
  float *key_space, *value_space, *row_space;
};

inline BackwardScratch carve(const Attention& p, float* at, size_t* total) {
  float* const begin = at;
  BackwardScratch s;
  const auto take = [&at](int64_t n) { float* here = at; at += round_up(n, 16); return here; };
  s.query_lanes = take(p.width * kRows);
  s.query_rows = take(padded(p.width) * kRows);
  s.grad_lanes = take(p.value_width * kRows);
  s.grad_rows = take(padded(p.value_width) * kRows);
  s.grad_query = take(p.width * kRows);
  s.lse = take(kRows);
  s.delta = take(kRows);
  s.weights = take(kBackKeys * kRows);
  s.slopes = take(kBackKeys * kRows);
  s.cap_slopes = take(kBackKeys * kRows);
  s.space = take(kBackKeys * kRows);
  s.key_space = take(kBackKeys * p.width);
  s.value_space = take(kBackKeys * p.value_width);
  s.row_space = take(turn_space(larger(p.width, p.value_width)));
  *total = at - begin;
  return s;
}

inline size_t backward_scratch(const Attention& p) {
  size_t total;
  float nothing;
  carve(p, &nothing, &total);
  return total;
}

inline void pack_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                      int64_t width, float* to) {
  __builtin_memset(to, 0, sizeof(float) * padded(width) * kRows);
  for (int64_t i = 0; i < n; i++)
    load_row(row_of(t, dtype, batch, head, first + i), dtype, t.column, width, to + i * padded(width));
}

// Everything a block of queries needs, and δ. A lane past the end, or an empty row, gets lse +inf: its weights are 0.
inline void start_block(const Attention& p, const Backward& g, const BackwardScratch& s, int64_t batch, int64_t head,
                        int64_t first, int64_t n, Multiplier m) {
  pack_lanes(p.query, p.dtype, batch, head, first, n, p.width, m.on_query, kRows, s.query_lanes, s.row_space);
  pack_rows(p.query, p.dtype, batch, head, first, n, p.width, s.query_rows);
  pack_lanes(g.grad_out, p.dtype, batch, head, first, n, p.value_width, 1.0f, kRows, s.grad_lanes, s.row_space);
  pack_rows(g.grad_out, p.dtype, batch, head, first, n, p.value_width, s.grad_rows);
  __builtin_memset(s.grad_query, 0, sizeof(float) * p.width * kRows);
  const float* lse = static_cast<const float*>(p.lse.data) + batch * p.lse.batch + head * p.lse.head;
  const float* grad_lse = static_cast<const float*>(g.grad_lse.data);
  for (int64_t i = 0; i < kRows; i++) {
    const float here = i < n ? lse[(first + i) * p.lse.row] : -kInfinity;
    s.lse[i] = kInfinity;
    s.delta[i] = 0;
    if (here == -kInfinity) continue;
    s.lse[i] = here * kLog2E;
    load_row(row_of(p.out, p.dtype, batch, head, first + i), p.dtype, 1, p.value_width, s.row_space);
    const float* upstream = s.grad_rows + i * padded(p.value_width);
    float delta = 0;
    for (int64_t e = 0; e < p.value_width; e++) delta += upstream[e] * s.row_space[e];
    if (grad_lse) delta -= grad_lse[batch * g.grad_lse.batch + head * g.grad_lse.head + (first + i) * g.grad_lse.row];
    s.delta[i] = delta;
  }
}

// Weights from logits, in place.
inline void weights_from_logits(const BackwardScratch& s, float slope, int64_t keys) {
  const Vec c = splat(slope);
  for (int64_t v = 0; v < kRows; v += LANES) {
    const Vec lse = load(s.lse + v);
    for (int64_t j = 0; j < keys; j++) {
      float* at = s.weights + j * kRows + v;
      store(at, exp2(load(at) * c - lse));
    }
  }
}

// dS = P ∘ (dP - δ), in place of dP.
inline void slopes_from_weights(const BackwardScratch& s, int64_t keys) {
  for (int64_t v = 0; v < kRows; v += LANES) {
    const Vec delta = load(s.delta + v);
    for (int64_t j = 0; j < keys; j++) {
      float* at = s.slopes + j * kRows + v;
      store(at, load(s.weights + j * kRows + v) * (load(at) - delta));
    }
  }
}

inline void multiply_block(float* x, const float* by, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) store(x + i, load(x + i) * load(by + i));
}

inline void backward_block(const Attention& p, const BackwardScratch& s, const Multiplier& m, const Place& at,
                           State mask, Rows keys, Rows values, float* sums) {
  const int64_t n = at.keys;
  const int64_t width = padded(p.width), value_width = padded(p.value_width);
  float* const grad_key = sums + at.key * width;
  float* const grad_value = sums + p.keys * width + at.key * value_width;
  for (int64_t v = 0; v < kRows; v += kTile)
    product<kAlong>(n, keys.data, keys.stride, s.query_lanes + v, kRows, p.width, Set{s.weights + v, kRows});
  change_logits(p, at, m, mask, s.weights, kRows, kRows, s.cap_slopes, s.space);
  weights_from_logits(s, m.slope, n);
  for (int64_t v = 0; v < kRows; v += kTile)
    product<kAlong>(n, values.data, values.stride, s.grad_lanes + v, kRows, p.value_width, Set{s.slopes + v, kRows});
  drop(p, at, s.slopes, kRows, kRows);
  slopes_from_weights(s, n);
  if (p.softcap != 0) multiply_block(s.slopes, s.cap_slopes, n * kRows);
  drop(p, at, s.weights, kRows, kRows);
  for (int64_t v = 0; v < kRows; v += kTile)
    product<kAcross>(p.width, keys.data, keys.stride, s.slopes + v, kRows, n, Add{s.grad_query + v, kRows});
  for (int64_t c = 0; c < value_width; c += kTile)
    product<kAlong>(n, s.weights, kRows, s.grad_rows + c, value_width, kRows, Add{grad_value + c, value_width});
  for (int64_t c = 0; c < width; c += kTile)
    product<kAlong>(n, s.slopes, kRows, s.query_rows + c, width, kRows, Add{grad_key + c, width});
}

inline void finish_block(const Attention& p, const Backward& g, const BackwardScratch& s, int64_t batch, int64_t head,
                         int64_t first, int64_t n) {
  for (int64_t i = 0; i < kRows; i++) s.delta[i] = p.scale;  // δ is not needed any more
  unpack_lanes(s.grad_query, kRows, n, p.width, s.delta, g.grad_query, p.dtype, batch, head, first, s.row_space);
}

void backward(const Attention& p, const Backward& g, int64_t batch, int64_t kv_head, int64_t first, int64_t last,
              float* sums, float* scratch) {
  size_t total;
  const BackwardScratch s = carve(p, scratch, &total);
  const Multiplier m = multiplier_of(p);
  const int64_t group = p.heads / p.kv_heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
    for (int64_t row = first; row < last; row += kRows) {
      const int64_t rows = smaller(kRows, last - row);
      start_block(p, g, s, batch, head, row, rows, m);
      const Span all = span_of(p, row, rows);
      for (int64_t key = all.first; key < all.last; key += kBackKeys) {
        const int64_t n = smaller(kBackKeys, all.last - key);
        const Place at = {batch, head, row, rows, key, n};
        const State mask = mask_state(p, at);
        if (mask == kEmpty) continue;
        const Rows keys = rows_as_float(p.key, p.dtype, batch, kv_head, key, n, p.width, s.key_space);
        const Rows values = rows_as_float(p.value, p.dtype, batch, kv_head, key, n, p.value_width, s.value_space);
        backward_block(p, s, m, at, mask, keys, values, sums);
      }
      finish_block(p, g, s, batch, head, row, rows);
    }
}

void store_key_sums(const Attention& p, const Backward& g, int64_t batch, int64_t kv_head, const float* sums) {
  const int64_t width = padded(p.width), value_width = padded(p.value_width);
  float scaled[1024];
  for (int64_t j = 0; j < p.keys; j++) {
    const float* key = sums + j * width;
    const void* to = row_of(g.grad_key, p.dtype, batch, kv_head, j);
    for (int64_t c = 0; c < p.width; c += 1024) {
      const int64_t n = smaller(1024, p.width - c);
      for (int64_t i = 0; i < n; i++) scaled[i] = key[c + i] * p.scale;
      store_row(scaled, n, p.dtype, element(to, p.dtype, c));
    }
    store_row(sums + p.keys * width + j * value_width, p.value_width, p.dtype,
              row_of(g.grad_value, p.dtype, batch, kv_head, j));
  }
}

}  // namespace
}  // namespace clearhead
