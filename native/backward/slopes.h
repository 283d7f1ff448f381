// The slopes dS of a block from its weights P and dP, and the gradients that are sums of them: those of biases and of
// ALiBi's slopes. Blocks are x[key][lane], with queries in the lanes.
#pragma once
#include "backward/scratch.h"

namespace clearhead {
namespace {

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

}  // namespace
}  // namespace clearhead
