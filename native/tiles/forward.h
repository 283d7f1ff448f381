// Forward on tile registers, for bfloat16 or for numbers of several bfloat16 pieces: Sᵀ = K Qᵀ and Oᵀ = Vᵀ Pᵀ, with the
// queries in the lanes as in passes/forward.h.
#pragma once
#include "tiles/tile.h"

namespace clearhead {
namespace {

template <int N, int KS, int DB, Extra kExtra>
__attribute__((noinline)) void run_tile(const Attention& p, const Statistics* s, const TiledKeys& tiled,
                                        const TileSpace& t, const Place& tile) {
  TileRun<N, KS, DB, kExtra>(p, s, tiled, t, tile).run();
}

template <int N, Extra kExtra>
inline void run_tile_of(const Attention& p, const Statistics* s, const TiledKeys& tiled, const TileSpace& t,
                        const Place& tile) {
  const int64_t keys = key_columns(p) / kBlock;
  const bool same = keys == value_columns(p) / kBlock;
  // The others are rare, and each copy takes seconds to compile.
  if constexpr (kExtra == kNoStatistics || (N == 1 && kExtra == kUsualStatistics)) {
#ifndef TILE_MODEL                   // one is enough for tests
    if (same && keys == 1) return run_tile<N, 1, 1, kExtra>(p, s, tiled, t, tile);
    if (same && keys == 4) return run_tile<N, 4, 4, kExtra>(p, s, tiled, t, tile);
#endif
    if (same && keys == 2) return run_tile<N, 2, 2, kExtra>(p, s, tiled, t, tile);
  }
  run_tile<N, 0, 0, kExtra>(p, s, tiled, t, tile);
}

// ln x for x >= 0, with error up to 2e-7; infinity and NaN stay as they are.
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

// shares_of_tile() without sinks, in vectors: in scalars it takes as long as the weights of 60 keys.
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

// Store the first n of LANES floats.
inline void store_some(float* to, int64_t n, Vec x) {
  if (n > 0) __builtin_memcpy(to, &x, smaller(n, LANES) * sizeof(float));
}

// Statistics without sinks, as store_statistics() in passes/forward.h computes them; in vectors for the same reason.
inline void statistics_of_rows(const Attention& p, const Statistics& s, const TileState& state, const TileStatistics& extra,
                               float slope, int64_t batch, int64_t head, int64_t first, int64_t rows) {
  const int64_t row = (batch * p.heads + head) * p.length + first;
  Vec log2_lse[2];
  for (int v = 0; v < 2; v++) {
    const auto at = [v](const float* from) { return load(from + v * LANES); };
    const auto give = [&](float* to, Vec x) {
      if (to) store_some(to + row + v * LANES, rows - v * LANES, x);
    };
    const Vec sum = at(state.sum), log = natural_log(sum);
    const VecI empty = (sum == Vec{}) | (at(state.top) == splat(-kInfinity));
    const Vec share = empty ? Vec{} : splat(1.0f) / sum;
    give(s.entropy, empty ? Vec{} : at(extra.surprise) * share * splat(float(kLn2)) + log);
    give(s.maximum, at(extra.peak) * share);
    give(s.squares, at(extra.squares) * share * share);
    give(s.mass, sum * share);
    log2_lse[v] = sum == Vec{} ? splat(kInfinity) : at(state.offset) + log * splat(kLog2E);
  }
  if (!s.top) return;
  weigh_best(extra.best, slope, log2_lse);
  for (int64_t i = 0; i < rows; i++) store_best(s, extra.best, i, row + i);
}

inline size_t tiles_scratch(const Attention& p, const Statistics* s, int64_t rows) {
  return larger(tile_space_numbers(p, s), p.dtype == kBFloat16 ? 0 : forward_scratch(p, s, smaller(rows, kTile)));
}

// Pack one tile of queries. Returns whether each number is the sum of its pieces.
template <int N>
inline bool pair_queries(const Attention& p, const TileSpace& t, const Place& tile, Multiplier m) {
  const uint32_t flip = m.on_query < 0 ? 0x80008000u : 0, keep = m.on_query == 0 ? 0 : ~0u;
  const int64_t columns = key_columns(p);
  uint32_t* const to = reinterpret_cast<uint32_t*>(t.state.query);
  if (p.dtype == kBFloat16) {
    pair_block(block_rows(p.query, tile.batch, tile.head, tile.row, tile.rows, p.width, columns, t.rows), columns, flip,
               keep, to);
    return true;
  }
  const bool regular =
      copy_pieces<N>(p.query, p.dtype, tile.batch, tile.head, tile.row, tile.rows, p.width, columns, t.rows);
  for (int k = 0; k < N; k++)
    pair_block({t.rows + k * kBlock * columns, columns}, columns, flip, keep, to + k * kTileRows * columns);
  return regular;
}

// Attend one tile of queries. Returns false, and stores nothing, if a number is not the sum of its pieces.
template <int N>
inline bool forward_tile(const Attention& p, const Statistics* s, const TiledKeys& tiled, const TileSpace& t,
                         const Place& tile) {
  const Multiplier m = multiplier_of(p, tile.head);
  if (!pair_queries<N>(p, t, tile, m)) return false;
  const TileUse in_use;
  if (s) start_best(t.extra.best);
  switch (extra_of(p, s)) {
    case kNoStatistics: run_tile_of<N, kNoStatistics>(p, s, tiled, t, tile); break;
    case kUsualStatistics: run_tile_of<N, kUsualStatistics>(p, s, tiled, t, tile); break;
    case kEverything: run_tile_of<N, kEverything>(p, s, tiled, t, tile);
  }
  const auto [batch, head, row, rows, key, keys] = tile;
  if (s && p.sinks) shares_of_tile<true>(p, s, t.state, t.extra, m.slope, batch, head, row);
  else if (p.sinks) shares_of_tile<false>(p, s, t.state, t.extra, m.slope, batch, head, row);
  else if (s) statistics_of_rows(p, *s, t.state, t.extra, m.slope, batch, head, row, rows);
  if (!p.sinks) shares_of_rows(p, t.state, batch, head, row, rows);  // the same bits with statistics and without
  correct_for_rounding(t.state, t.state.top);
  store_tile(p, batch, head, row, rows, t.state.out, t.state.top);
  return true;
}

void forward_on_tiles(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first, int64_t rows,
                      const float* tiled_keys, float* scratch) {
  const TiledKeys tiled(p, batch, head / (p.heads / p.kv_heads), tiled_keys);
  TileSpace t = tile_space(p, s, scratch);
  const bool regular = tiled.are_regular();
  for (int64_t row = first; row < first + rows; row += kTile) {
    const Place tile = {batch, head, row, smaller(kTile, first + rows - row), 0, 0};
    t.state.rows = tile.rows;
    bool done = false;
    if (regular) with_pieces(p, [&](auto n) { done = forward_tile<decltype(n)::kCount>(p, s, tiled, t, tile); });
    if (!done) forward_in<RealBlock>(p, s, batch, head, row, tile.rows, scratch);
  }
}

}  // namespace
}  // namespace clearhead
