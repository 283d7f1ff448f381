// Output and weights together, for callers who want the L×S matrix: for each head, or averaged over heads.
// A tile keeps its logits for all keys, so they are computed once. If only the average is wanted, no head's own matrix
// is stored.
#pragma once
#include "passes/forward.h"
#include "passes/masked_values.h"

namespace clearhead {
namespace {

inline int64_t weights_transpose_scratch(const Attention& p) {
  return transpose_scratch(larger(p.keys, larger(p.width, p.value_width)));
}

size_t weights_scratch(const Attention& p, int64_t rows) {
  const int64_t a_key = kTile + p.width + conflict_free_stride(p.value_width) + round_up(rows, kTile);
  return tile_numbers(p) + kKeyBlock * kTile + p.keys * a_key + weights_transpose_scratch(p);
}

// Call act(place) for each block of the keys that a tile may attend.
template <class Act>
inline void for_blocks(Place at, Span keys, const Act& act) {
  for (at.key = keys.first; at.key < keys.last; at.key += kKeyBlock) {
    at.keys = smaller(kKeyBlock, keys.last - at.key);
    act(at);
  }
}

// Store the output and lse of one tile. weights[key][lane] times state.top are then the weights of the keys in its span.
inline void attend_tile(const Attention& p, const TileState& state, const RealBlock& block, const Place& tile,
                        Span keys, float* weights, float* space, float* row_space) {
  const Multiplier m = multiplier_of(p, tile.head);
  const Vec once[2] = {splat(1.0f), splat(1.0f)};  // all keys at once: no earlier output to rescale
  Vec alpha[2];
  start_tile(p, state, tile.batch, tile.head, tile.row, m, row_space);
  for_blocks(tile, keys, [&](Place at) {
    const Place all = at;
    const State mask = trim(p, &at, 1);
    if (mask == kEmpty || at.keys < all.keys)
      for (int64_t i = 0; i < all.keys * kTile; i += LANES) store(weights + all.key * kTile + i, splat(-kInfinity));
    if (mask == kEmpty) return;
    float* const logits = weights + at.key * kTile;
    block.logits(p, state, at.key, at.keys, logits);
    change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
  });
  softmax_block<false>(state, {}, m.slope, keys.last - keys.first, weights + keys.first * kTile, alpha);
  for_blocks(tile, keys, [&](Place at) {
    if (trim(p, &at, 1) != kEmpty)
      block.add_to_output(p, state, at.key, at.keys, weights + at.key * kTile, once);
  });
  finish_tile<false, RealBlock>(p, nullptr, state, {}, m.slope, tile.batch, tile.head, tile.row, row_space);
  leave_out_masked_values(p, tile.batch, tile.head, tile.row, tile.rows);
}

// sum[key][lane] += weights[key][lane] * share[lane]
inline void add_weights(const float* weights, const float* share, int64_t keys, float* sum) {
  const Vec c[2] = {load(share), load(share + LANES)};
  for (int64_t j = 0; j < keys; j++)
    UNROLL for (int v = 0; v < 2; v++) {
      float* const at = sum + j * kTile + v * LANES;
      store(at, load(at) + load(weights + j * kTile + v * LANES) * c[v]);
    }
}

// Output, lse and weights of queries first .. first + rows - 1 of one head; or, if the weights' head stride is 0, output
// and lse of all heads and the mean of their weights.
void weights(const Attention& p, const Tensor& to, int64_t batch, int64_t head, int64_t first, int64_t rows,
             float* scratch) {
  const bool average = to.head == 0;
  const int64_t tiles = (rows + kTile - 1) / kTile, a_tile = p.keys * kTile;
  TileState state = tile_at(p, scratch, 0, kTile);  // one tile at a time
  float* const space = scratch + tile_numbers(p);
  float* const here = space + kKeyBlock * kTile;
  float* const key_space = here + a_tile;
  float* const value_space = key_space + p.keys * p.width;
  float* const row_space = value_space + p.keys * conflict_free_stride(p.value_width);
  float* const sums = row_space + weights_transpose_scratch(p);
  const auto place = [&](int64_t h, int64_t t) {
    return Place{batch, h, first + t * kTile, smaller(kTile, rows - t * kTile), 0, 0};
  };
  const auto give = [&](const float* from, const Place& at) {
    unpack_lanes(from, kTile, at.rows, p.keys, state.top, to, p.dtype, batch, at.head, at.row, row_space);
  };

  if (average) __builtin_memset(sums, 0, sizeof(float) * tiles * a_tile);
  for (int64_t h = average ? 0 : head; h < (average ? p.heads : head + 1); h++) {
    const RealBlock block(p, batch, h / (p.heads / p.kv_heads), 0, p.keys, tiles, key_space, value_space);
    for (int64_t t = 0; t < tiles; t++) {
      const Place at = place(h, t);
      const Span all = span_of(p, at.row, at.rows);
      const Span keys = {smaller(all.first, p.keys), larger(all.last, smaller(all.first, p.keys))};
      state.rows = at.rows;
      attend_tile(p, state, block, at, keys, here, space, row_space);
      if (average) {
        add_weights(here + keys.first * kTile, state.top, keys.last - keys.first, sums + t * a_tile + keys.first * kTile);
      } else {
        __builtin_memset(here, 0, sizeof(float) * keys.first * kTile);
        __builtin_memset(here + keys.last * kTile, 0, sizeof(float) * (p.keys - keys.last) * kTile);
        give(here, at);
      }
    }
  }
  for (int i = 0; i < kTile; i++) state.top[i] = 1.0f / p.heads;
  for (int64_t t = 0; average && t < tiles; t++) give(sums + t * a_tile, place(0, t));
}

}  // namespace
}  // namespace clearhead
