// Backward for few queries. Their forward pass is in decode.h, which sums a logit in another order than product.h.
// Weights rebuilt with its lse, and δ from its output, therefore have an error as large as the difference: 1e-5 where
// logits are in the hundreds. With few queries P and dP of all keys fit in memory, so the lse and δ are computed again
// from them, without another product.
#pragma once
#include "passes/backward_scratch.h"

namespace clearhead {
namespace {

// Sums of a tile's weights, in units of 2^offset.
struct FewSums {
  Real offset[kTile], sum[kTile];

  explicit FewSums(Real slope) : sum{} {
    for (Real& x : offset) x = kNothing * slope;
  }
};

inline void add_logits(const Real* logits, Real slope, int64_t keys, FewSums& sums) {
  const Vec c = splat(slope);
  for (int64_t v = 0; v < kTile; v += LANES) {
    const Real* const at = logits + v;
    const Vec before = load(sums.offset + v);
    Vec top = before;
    for (int64_t j = 0; j < keys; j++) top = maximum(load(at + j * kTile) * c, top);
    Vec sum = load(sums.sum + v) * exp2(before - top);
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4) {  // computed together, as in the forward pass
      Vec x[4];
      UNROLL for (int i = 0; i < 4; i++) x[i] = load(at + (j + i) * kTile) * c - top;
      exp2_all(x);
      sum += (x[0] + x[1]) + (x[2] + x[3]);
    }
    for (; j < keys; j++) sum += exp2(load(at + j * kTile) * c - top);
    store(sums.offset + v, top);
    store(sums.sum + v, sum);
  }
}

// Compute the lse, including the sink. A row that may attend nothing keeps its +inf.
inline void finish_sums(const Attention& p, const BackwardScratch& s, int64_t head, const FewSums& sums) {
  for (int64_t i = 0; i < p.length; i++) {
    if (s.lse[i] == kInfinity) continue;
    const double sink = p.sinks ? double(number_at(p.sinks, head)) * kLog2EWide : -kInfinity;
    const double offset = sink > sums.offset[i] ? sink : sums.offset[i];
    const double sum = sums.sum[i] * __builtin_exp2(sums.offset[i] - offset) + __builtin_exp2(sink - offset);
    set_lse(s, i, offset + __builtin_log2(sum));
  }
}

// δ += rowsum(P ∘ dP)
inline void add_to_delta(const BackwardScratch& s, int64_t keys) {
  for (int64_t v = 0; v < kTile; v += LANES) {
    Vec sum = {};
    for (int64_t j = 0; j < keys; j++) sum += load(s.weights + j * kTile + v) * load(s.slopes + j * kTile + v);
    store(s.delta + v, load(s.delta + v) + sum);
  }
}

}  // namespace
}  // namespace clearhead
