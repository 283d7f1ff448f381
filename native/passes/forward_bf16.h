// Forward for bfloat16 in pairs: half the multiplications, where the CPU has an instruction for them (pairs.h).
// The softmax is in float32 as in forward.h; its weights are rounded to bfloat16 for the product with the values.
#pragma once
#include "passes/forward.h"
#include "passes/masked_values.h"
#include "vector/pairs.h"

#ifdef TILES
#include "tiles/forward.h"
#endif

namespace clearhead {
namespace {

// As RealBlock, in pairs: keys are read in place if their columns are contiguous; values are packed in pairs of keys.
struct PairBlock {
  static constexpr int64_t kStep = 2;  // a tile begins at a pair
  const PairRows keys;
  const uint16_t* const values;
  const int64_t value_stride;  // from pair to pair

  PairBlock(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n, int64_t, float* key_space,
            float* value_space)
      : keys(p.key, batch, kv_head, first, n, p.width, key_space),
        values(reinterpret_cast<uint16_t*>(value_space)),
        value_stride(2 * p.value_width) {
    pair_rows(p.value, batch, kv_head, first, n, p.value_width, p.value_width, reinterpret_cast<uint32_t*>(value_space));
  }

  static void start(const Attention& p, const TileState& state) {
    pair_lanes(p.width, kTile, state.query);  // exact: bfloat16 numbers times 1, -1 or 0
  }

  void logits(const Attention& p, const TileState& state, int64_t from, int64_t n, float* to) const {
    for_rows<InPairs>(state.rows, [&](auto how) {
      product<kAlong, decltype(how)>(n, keys.data + from * keys.stride, keys.stride, as_pairs(state.query), kTile, p.width,
                                     Set{to, kTile});
    });
  }

  void add_to_output(const Attention& p, const TileState& state, int64_t from, int64_t n, float* weights,
                     const Vec (&alpha)[2]) const {
    Vec exact[2] = {}, rounded[2] = {};
    for (int64_t j = 0; j < n; j += 2)
      UNROLL for (int v = 0; v < 2; v++) {
        const float* const at = weights + j * kTile + v * LANES;
        const Vec first = load(at), second = j + 1 < n ? load(at + kTile) : Vec{};
        const VecU pairs = round_pairs(first, second);
        store_pairs(weights + j / 2 * kTile + v * LANES, pairs);
        exact[v] += first + second;
        rounded[v] += first_of(pairs) + second_of(pairs);
      }
    UNROLL for (int v = 0; v < 2; v++) {
      float *const before = state.exact + v * LANES, *const after = state.rounded + v * LANES;
      store(before, load(before) * alpha[v] + exact[v]);
      store(after, load(after) * alpha[v] + rounded[v]);
    }
    for_rows<InPairs>(state.rows, [&](auto how) {
      product<kAcross, decltype(how)>(p.value_width, values + from / 2 * value_stride, value_stride, as_pairs(weights),
                                      kTile, n, Rescale{state.out, kTile, alpha[0], alpha[1]});
    });
  }

  static void correct(const TileState& state, float* share) { correct_for_rounding(state, share); }
};

#ifdef TILES
inline bool forward_in_tiles(const Attention& p) { return p.pieces > 0 || p.dtype != kFloat32; }
#endif

inline void forward_of_dtype(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first,
                             int64_t rows, const float* tiled, float* scratch) {
#ifdef TILES
  if (forward_in_tiles(p)) return forward_on_tiles(p, s, batch, head, first, rows, tiled, scratch);
#else
  (void)tiled;
#endif
#ifdef PAIRS
  if (p.dtype == kBFloat16) return forward_in<PairBlock>(p, s, batch, head, first, rows, scratch);
#endif
  forward_in<RealBlock>(p, s, batch, head, first, rows, scratch);
}

void forward(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first, int64_t rows,
             const float* tiled, float* scratch) {
  forward_of_dtype(p, s, batch, head, first, rows, tiled, scratch);
  leave_out_masked_values(p, batch, head, first, rows);
}

#ifdef TILES
size_t tiled_keys(const Attention& p) { return forward_in_tiles(p) ? tiled_numbers(p) : 0; }
size_t scratch_of_forward(const Attention& p, const Statistics* s, int64_t rows) {
  return forward_in_tiles(p) ? tiles_scratch(p, s, rows) : forward_scratch(p, s, rows);
}
constexpr auto tile_keys = lay_out_keys;
#else
constexpr auto tiled_keys = nothing_tiled;
constexpr auto scratch_of_forward = forward_scratch;
constexpr auto tile_keys = tile_nothing;
#endif

}  // namespace
}  // namespace clearhead
