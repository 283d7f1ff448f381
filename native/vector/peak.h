// The peak of the arithmetic units: multiply-adds on registers only. The bench reports its figures as shares of it.
#pragma once
#include "vector/vector.h"

namespace clearhead {
namespace {

constexpr int kChains = 2 * ROWS;  // as many sums as the product keeps

// Returns how many floating-point operations it did.
double multiply_adds(int64_t steps) {
  Vec sum[kChains];
  UNROLL for (int i = 0; i < kChains; i++) sum[i] = splat(float(i));
  // Volatile: with constants a compiler sees that 1 stays 1 under 0.999 x + 0.001, drops that chain, and the peak is wrong.
  volatile float factor = 0.999f, term = 0.001f;
  const Vec a = splat(factor), b = splat(term);
  for (int64_t k = 0; k < steps; k++) {
    UNROLL for (int i = 0; i < kChains; i++) sum[i] = sum[i] * a + b;
  }
  volatile float kept = 0;
  for (int i = 0; i < kChains; i++) kept = kept + sum[i][0];
  return 2.0 * steps * kChains * LANES;
}

}  // namespace
}  // namespace clearhead
