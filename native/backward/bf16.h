// Backward for bfloat16 where it has kernels of its own: on tile registers, or in pairs of numbers (vector/pairs.h). In
// both P and dS are rounded to bfloat16 for their products, as torch rounds them.
#pragma once
#include "backward/backward.h"

#ifdef TILES
#include "tiles/backward.h"
#elif defined(PAIRS)
#include "vector/pairs.h"
#endif

namespace clearhead {
namespace {

#ifdef TILES

// Few queries use backward/few.h.
inline bool backward_in_tiles(const Attention& p) { return p.dtype == kBFloat16 && !few_queries(p); }

size_t scratch_of_backward(const Attention& p) {
  return backward_in_tiles(p) ? backward_tiles_scratch(p) : backward_scratch(p);
}

void backward_by_dtype(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first,
                       int64_t last, float* sums, float* scratch) {
  if (backward_in_tiles(p)) backward_on_tiles(p, g, batch, kv_head, first, last, sums, scratch);
  else backward(p, g, batch, kv_head, first, last, sums, scratch);
}

#else

constexpr auto scratch_of_backward = backward_scratch;

#ifdef PAIRS

// As RealOperands, in pairs, in the same scratch.
struct PairOperands {
  using How = InPairs<>;
  PairRows keys, values;
  RowsIn<How> key_sides;                                          // pairs of keys
  const uint32_t *query_lanes, *grad_lanes;                       // in pairs of columns
  const uint32_t *query_rows, *grad_rows;                         // in pairs of queries
  const uint16_t *weights, *slopes;                               // P and dS, rounded
  const uint32_t* slope_lanes;                                    // dS in pairs of keys

  static void pack(const Attention& p, const Gradients& g, const BackwardScratch& s, int64_t batch, int64_t head,
                   int64_t first, int64_t n, Multiplier m) {
    pack_lanes(p.query, p.dtype, batch, head, first, n, p.width, m.on_query, s.lanes, s.query_lanes, s.row_space);
    pair_lanes(p.width, s.lanes, s.query_lanes);  // exact: bfloat16 numbers times 1, -1 or 0
    pack_pairs(p.query, batch, head, first, n, p.width, s.query_rows);
    pack_lanes(g.grad_out, p.dtype, batch, head, first, n, p.value_width, 1.0f, s.lanes, s.grad_lanes, s.row_space);
    pair_lanes(p.value_width, s.lanes, s.grad_lanes);
    pack_pairs(g.grad_out, batch, head, first, n, p.value_width, s.grad_rows);
  }

  PairOperands(const Attention& p, const BackwardScratch& s, const Place& at)
      : keys(p.key, at.batch, kv_head(p, at), at.key, at.keys, p.width, s.key_space + p.width * kBackKeys / 2),
        values(p.value, at.batch, kv_head(p, at), at.key, at.keys, p.value_width, s.value_space),
        key_sides{reinterpret_cast<uint16_t*>(s.key_space), 2 * p.width},
        query_lanes(as_pairs(s.query_lanes)), grad_lanes(as_pairs(s.grad_lanes)),
        query_rows(as_pairs(s.query_rows)), grad_rows(as_pairs(s.grad_rows)),
        weights(reinterpret_cast<uint16_t*>(s.space)), slopes(weights + kWholeKeys * kRows),
        slope_lanes(as_pairs(s.slopes)) {
    pair_rows(p.key, at.batch, kv_head(p, at), at.key, at.keys, p.width, p.width, reinterpret_cast<uint32_t*>(s.key_space));
  }

  // Round P and dS; each head's own factor is applied here, to the dS of its keys.
  void take_weights(const Attention& p, const BackwardScratch& s, const Place& at) const {
    const Vec factor = splat(p.head_scale ? number_at(p.head_scale, at.head) : 1);
    uint16_t *const weights = reinterpret_cast<uint16_t*>(s.space), *const slopes = weights + kWholeKeys * kRows;
    for (int64_t i = 0; i < at.keys * s.lanes; i += LANES) {
      store_rounded(weights + i, load(s.weights + i));
      store_rounded(slopes + i, load(s.slopes + i) * factor);
    }
    pair_lanes(at.keys, s.lanes, s.slopes);
  }

 private:
  static int64_t kv_head(const Attention& p, const Place& at) { return at.head / (p.heads / p.kv_heads); }

  static void pack_pairs(const Tensor& t, int64_t batch, int64_t head, int64_t first, int64_t n, int64_t width,
                         float* to) {
    const int64_t lanes = lanes_of(n), columns = padded(width);
    if (n < lanes || width < columns) __builtin_memset(to, 0, sizeof(uint32_t) * lanes / 2 * columns);
    pair_rows(t, batch, head, first, n, width, columns, reinterpret_cast<uint32_t*>(to));
  }
};

void backward_by_dtype(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first,
                       int64_t last, float* sums, float* scratch) {
  if (p.dtype == kBFloat16 && !few_queries(p)) backward_in<PairOperands>(p, g, batch, kv_head, first, last, sums, scratch);
  else backward(p, g, batch, kv_head, first, last, sums, scratch);
}

#else

constexpr auto backward_by_dtype = backward;

#endif

#endif

}  // namespace
}  // namespace clearhead
