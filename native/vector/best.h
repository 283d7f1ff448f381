// The largest logits of each row, lane by lane. The k-th largest of a row is the threshold that a new logit must exceed.
#pragma once
#include "vector/product.h"

namespace clearhead {
namespace {

// The lists of one tile, largest first: [top][kTile].
struct Best {
  int64_t top;
  Real* logits;
  Int* keys;  // -1 where the list has no logit yet
};

inline int64_t best_numbers(int64_t top) { return 2 * top * kTile; }

inline Best best_at(Real* at, int64_t top) { return {top, at, reinterpret_cast<Int*>(at + top * kTile)}; }

inline void start_best(const Best& t) {
  for (int64_t i = 0; i < t.top * kTile; i++) {
    t.logits[i] = -kInfinity;
    t.keys[i] = -1;
  }
}

inline bool any(VecI mask) {
#if defined(__AVX512F__)  // gcc 12 extracts the lanes one by one
  if constexpr (sizeof(VecI) == 64) return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#endif
  typedef int64_t Wide __attribute__((vector_size(LANES * kBytes)));
  const Wide halves = (Wide)mask;
  int64_t bits = 0;
  UNROLL for (int i = 0; i < LANES * kBytes / 8; i++) bits |= halves[i];
  return bits != 0;
}

// Insert x into each lane's list where it exceeds the last entry. Of equal logits the first one found comes first.
inline void insert(const Best& t, int v, Vec x, VecI key) {
  VecI before = {};
  for (int64_t r = 0; r < t.top; r++) {
    Real* const value = t.logits + r * kTile + v * LANES;
    Real* const place = reinterpret_cast<Real*>(t.keys) + r * kTile + v * LANES;
    const Vec old = load(value);
    const VecI old_key = (VecI)load(place);
    before = before | (x > old);
    store(value, before ? x : old);
    store(place, (Vec)(before ? key : old_key));
    x = before ? old : x;
    key = before ? old_key : key;
  }
}

// Only groups of keys whose largest logit exceeds the last entry of some lane's list are searched.
inline void best_of_block(const Best& t, int64_t first_key, int64_t keys, const Real* logits) {
  constexpr int64_t kGroup = 8;
  for (int v = 0; v < 2; v++) {
    const Real* const x = logits + v * LANES;
    const Real* const last = t.logits + (t.top - 1) * kTile + v * LANES;
    Vec least = load(last);
    for (int64_t j = 0; j < keys; j += kGroup) {
      const int64_t stop = smaller(j + kGroup, keys);
      Vec high = load(x + j * kTile);
      for (int64_t i = j + 1; i < stop; i++) high = maximum(load(x + i * kTile), high);
      if (!any(high > least)) continue;
      for (int64_t i = j; i < stop; i++) {
        const Vec here = load(x + i * kTile);
        if (!any(here > least)) continue;
        insert(t, v, here, splat_int(Int(first_key + i)));
        least = load(last);
      }
    }
  }
}

inline Real weight_of(Real logit, Real slope, Real lse) {
  return logit == -kInfinity ? 0 : exp2(splat(logit * slope - lse))[0];
}

// Replace logits by weights, 2^(logit * slope - lse), lane by lane; -inf becomes 0.
inline void weigh_best(const Best& t, Real slope, const Vec (&lse)[2]) {
  for (int64_t r = 0; r < t.top; r++)
    UNROLL for (int v = 0; v < 2; v++) {
      Real* const at = t.logits + r * kTile + v * LANES;
      const Vec logit = load(at);
      store(at, logit == splat(-kInfinity) ? Vec{} : exp2(logit * splat(slope) - lse[v]));
    }
}

// Store a row's weights and keys. A row that may attend fewer than `top` keys is filled up with other keys, lowest first,
// of weight 0.
inline void store_best(const Statistics& s, const Best& t, int64_t lane, int64_t row) {
  int64_t next = 0;
  for (int64_t r = 0; r < s.top; r++) {
    int64_t key = t.keys[r * kTile + lane];
    const bool filler = key < 0;
    for (; filler && key < 0; next++) {
      key = next;
      for (int64_t other = 0; other < s.top; other++)
        if (t.keys[other * kTile + lane] == next) key = -1;
    }
    s.top_keys[row * s.top + r] = key;
    s.top_weights[row * s.top + r] = filler ? 0 : t.logits[r * kTile + lane];
  }
}

}  // namespace
}  // namespace clearhead
