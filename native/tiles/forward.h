// Forward for bfloat16 on tile registers: Sᵀ = K Qᵀ and Oᵀ = Vᵀ Pᵀ, with the queries in the lanes as in passes/forward.h.
#pragma once
#include "tiles/tile.h"

namespace clearhead {
namespace {

template <int KS, int DB, bool kMore>
__attribute__((noinline)) void run_tile(const Attention& p, const Statistics* s, const TiledKeys& tiled,
                                        const TileSpace& t, const Place& tile) {
  TileRun<KS, DB, kMore>(p, s, tiled, t, tile).run();
}

template <bool kMore>
inline void run_tile_of(const Attention& p, const Statistics* s, const TiledKeys& tiled, const TileSpace& t,
                        const Place& tile) {
  const int64_t keys = key_columns(p) / kBlock;
  if (keys == value_columns(p) / kBlock) {
#ifndef TILE_MODEL  // one is enough to test it
    if (keys == 1) return run_tile<1, 1, kMore>(p, s, tiled, t, tile);
    if (keys == 4) return run_tile<4, 4, kMore>(p, s, tiled, t, tile);
#endif
    if (keys == 2) return run_tile<2, 2, kMore>(p, s, tiled, t, tile);
  }
  run_tile<0, 0, kMore>(p, s, tiled, t, tile);
}

// ln x for x >= 0 to 2e-7; infinity and NaN stay.
inline Vec natural_log(Vec x) {
  constexpr int32_t kRootOfHalf = 0x3F3504F3;
  const VecI exponent = ((VecI)x - kRootOfHalf) >> 23;
  const Vec m = (Vec)((VecI)x - (exponent << 23));  // from the root of 1/2 to the root of 2
  const Vec s = (m - splat(1.0f)) / (m + splat(1.0f)), z = s * s;
  Vec p = splat(2.0f / 9) * z + splat(2.0f / 7);
  p = p * z + splat(2.0f / 5);
  p = p * z + splat(2.0f / 3);
  p = p * z * s + (s + s);
  const Vec result = __builtin_convertvector(exponent, Vec) * splat(float(kLn2)) + p;
  return x == Vec{} ? splat(-kInfinity) : x - x == Vec{} ? result : x;
}

// shares_of_tile() where there are no sinks, in vectors: scalars take as long as the weights of 60 keys.
inline void shares_of_rows(const Attention& p, const TileState& state, int64_t batch, int64_t head, int64_t first,
                           int64_t rows) {
  for (int v = 0; v < 2; v++) {
    const Vec sum = load(state.sum + v * LANES);
    store(state.top + v * LANES, sum == Vec{} ? Vec{} : splat(1.0f) / sum);  // NaN passes through
    if (!p.lse.data) continue;
    const Vec lse = load(state.offset + v * LANES) * splat(float(kLn2)) + natural_log(sum);
    for (int i = 0; i < LANES && v * LANES + i < rows; i++) store_lse(p, batch, head, first + v * LANES + i, lse[i]);
  }
}

inline size_t tiles_scratch(const Attention& p, const Statistics* s) { return tile_space_numbers(p, s); }

void forward_on_tiles(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first, int64_t rows,
                      const float* tiled_keys, float* scratch) {
  const TileUse in_use;
  const TiledKeys tiled(p, batch, head / (p.heads / p.kv_heads), tiled_keys);
  const TileSpace t = tile_space(p, s, scratch);
  const Multiplier m = multiplier_of(p, head);
  const uint32_t flip = m.on_query < 0 ? 0x80008000u : 0, keep = m.on_query == 0 ? 0 : ~0u;
  const Place all = {batch, head, first, rows, 0, 0};
  for (int64_t row = first; row < first + rows; row += kTile) {
    Place tile = all;
    tile.row = row;
    tile.rows = smaller(kTile, first + rows - row);
    pair_block(block_rows(p.query, batch, head, row, tile.rows, p.width, key_columns(p), t.rows), key_columns(p), flip,
               keep, reinterpret_cast<uint32_t*>(t.state.query));
    if (s) start_best(t.asked.best);
    if (s || p.dropout_p != 0) run_tile_of<true>(p, s, tiled, t, tile);
    else run_tile_of<false>(p, s, tiled, t, tile);
    if (s) shares_of_tile<true>(p, s, t.state, t.asked, m.slope, batch, head, row, tile.rows);
    else if (p.sinks) shares_of_tile<false>(p, s, t.state, t.asked, m.slope, batch, head, row, tile.rows);
    if (!p.sinks) shares_of_rows(p, t.state, batch, head, row, tile.rows);  // the same bits with statistics and without
    correct_for_rounding(t.state, t.state.top);
    store_tile(p, batch, head, row, tile.rows, t.state.out, t.state.top);
  }
}

}  // namespace
}  // namespace clearhead
