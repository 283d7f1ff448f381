// The weights themselves, for callers who want the L×S matrix: exp(logit - lse), of each head or averaged over heads.
// A second pass over rows whose lse is known; a head's own matrix is never stored where only the average is wanted.
#pragma once
#include "logits.h"
#include "product.h"

namespace clearhead {
namespace {

constexpr int64_t kWeightKeys = 128 / ROWS * ROWS;

size_t weights_scratch(const Attention& p) {
  return p.width * kTile + kWeightKeys * (3 * kTile + p.width) + larger(turn_space(p.width), turn_space(kWeightKeys));
}

// Add to sum[key][lane] the weights of one block; `lse` in units of log2.
inline void add_weights(const float* logits, float slope, const float* lse, int64_t keys, float* sum) {
  UNROLL for (int v = 0; v < kTile; v += LANES) {
    const Vec c = splat(slope), total = load(lse + v);
    for (int64_t j = 0; j < keys; j++) {
      float* const at = sum + j * kTile + v;
      store(at, load(at) + exp2(load(logits + j * kTile + v) * c - total));
    }
  }
}

// Queries first .. first + rows - 1 (at most kTile) against all keys, for the mean of all heads where p.out.head is 0,
// else for head `head` alone. p.out is (batch, head or 0, query, key), its last axis contiguous.
void weights(const Attention& p, int64_t batch, int64_t head, int64_t first, int64_t rows, float* scratch) {
  const bool average = p.out.head == 0;
  const int64_t from_head = average ? 0 : head, to_head = average ? p.heads : head + 1;
  float* const query = scratch;
  float* const logits = query + p.width * kTile;
  float* const space = logits + kWeightKeys * kTile;
  float* const sum = space + kWeightKeys * kTile;
  float* const key_space = sum + kWeightKeys * kTile;
  float* const row_space = key_space + kWeightKeys * p.width;
  const Multiplier m = multiplier_of(p);
  alignas(64) float lse[kTile], share[kTile];
  for (int i = 0; i < kTile; i++) share[i] = average ? 1.0f / p.heads : 1.0f;

  for (int64_t start = 0; start < p.keys; start += kWeightKeys) {
    const int64_t n = smaller(kWeightKeys, p.keys - start);
    __builtin_memset(sum, 0, sizeof(float) * n * kTile);
    for (int64_t h = from_head; h < to_head; h++) {
      const Place at = {batch, h, first, rows, start, n};
      const State mask = mask_state(p, at);
      if (mask == kEmpty) continue;
      const float* from = static_cast<const float*>(p.lse.data) + batch * p.lse.batch + h * p.lse.head;
      for (int64_t i = 0; i < kTile; i++) {  // an empty row, and a lane past the last, has weights of 0
        const float here = i < rows ? from[(first + i) * p.lse.row] : kInfinity;
        lse[i] = here == -kInfinity ? kInfinity : here * kLog2E;
      }
      if (h == from_head || average)
        pack_lanes(p.query, p.dtype, batch, h, first, rows, p.width, m.on_query, kTile, query, row_space);
      const Rows keys = rows_as_float(p.key, p.dtype, batch, h / (p.heads / p.kv_heads), start, n, p.width, key_space);
      product<kAlong>(n, keys.data, keys.stride, query, kTile, p.width, Set{logits, kTile});
      change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
      add_weights(logits, m.slope, lse, n, sum);
    }
    Tensor out = p.out;
    out.data = const_cast<void*>(element(p.out.data, p.dtype, start));
    unpack_lanes(sum, kTile, rows, n, share, out, p.dtype, batch, average ? 0 : head, first, row_space);
  }
}

}  // namespace
}  // namespace clearhead
