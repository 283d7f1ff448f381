// Output and weights together, for callers who want the L×S matrix: for each head, or averaged over heads.
// A tile keeps its logits for all keys, so they are computed once. If only the average is wanted, no head's own matrix
// is stored.
#pragma once
#include "passes/forward_bf16.h"

namespace clearhead {
namespace {

inline int64_t weights_transpose_scratch(const Attention& p) {
  return transpose_scratch(larger(p.keys, larger(p.width, p.value_width)));
}

size_t weights_scratch(const Attention& p, const Statistics* s, int64_t rows) {
  const int64_t a_key = kTile + p.width + conflict_free_stride(p.value_width) + round_up(rows, kTile);
  return tile_numbers(p) + extra_numbers(s) + kKeyBlock * kTile + p.keys * a_key + weights_transpose_scratch(p);
}

// Call act(place) for each block of the keys that a tile may attend.
template <class Act>
inline void for_blocks(Place at, Span keys, const Act& act) {
  for (at.key = keys.first; at.key < keys.last; at.key += kKeyBlock) {
    at.keys = smaller(kKeyBlock, keys.last - at.key);
    act(at);
  }
}

// Store the output and lse of one tile and, if wanted, its statistics. use() is called when weights[key][lane] times
// state.top are the weights of the keys in its span.
template <bool kStatistics, class Block, class Use>
inline void attend_tile(const Attention& p, const Statistics* s, const TileState& state, const TileStatistics& extra,
                        const Block& block, const Place& tile, Span keys, float* weights, float* space, float* row_space,
                        const Use& use) {
  const Multiplier m = multiplier_of(p, tile.head);
  const Vec once[2] = {splat(1.0f), splat(1.0f)};  // all keys at once: no earlier output to rescale
  Vec alpha[2];
  start_tile(p, state, tile.batch, tile.head, tile.row, m, row_space);
  Block::start(p, state);
  if (kStatistics) start_statistics(extra);
  for_blocks(tile, keys, [&](Place at) {
    const Place all = at;
    const State mask = trim(p, &at, Block::kStep);
    if (mask == kEmpty || at.keys < all.keys)
      for (int64_t i = 0; i < all.keys * kTile; i += LANES) store(weights + all.key * kTile + i, splat(-kInfinity));
    if (mask == kEmpty) return;
    float* const logits = weights + at.key * kTile;
    block.logits(p, state, at.key, at.keys, logits);
    change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
    if (kStatistics && s->top) best_of_block(extra.best, at.key, at.keys, logits);
  });
  softmax_block<kStatistics>(state, extra, m.slope, keys.last - keys.first, weights + keys.first * kTile, alpha);
  shares_of_tile<kStatistics>(p, s, state, extra, m.slope, tile.batch, tile.head, tile.row);
  use();
  for_blocks(tile, keys, [&](Place at) {
    if (trim(p, &at, Block::kStep) != kEmpty)
      block.add_to_output(p, state, at.key, at.keys, weights + at.key * kTile, once);
  });
  store_output<Block>(p, state, tile.batch, tile.head, tile.row, row_space);
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

template <bool kStatistics, class Block>
inline void weights_of_rows(const Attention& p, const Statistics* s, const Tensor& to, int64_t batch, int64_t head,
                            int64_t first, int64_t rows, float* scratch) {
  const bool average = to.head == 0;
  const int64_t tiles = (rows + kTile - 1) / kTile, a_tile = p.keys * kTile;
  TileState state = tile_at(p, scratch, 0, kTile);  // one tile at a time
  float* const statistics_space = scratch + tile_numbers(p);
  const TileStatistics extra = kStatistics ? extra_at(*s, statistics_space) : TileStatistics{};
  float* const space = statistics_space + extra_numbers(s);
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
    const Block block(p, batch, h / (p.heads / p.kv_heads), 0, p.keys, tiles, key_space, value_space);
    for (int64_t t = 0; t < tiles; t++) {
      const Place at = place(h, t);
      const Span all = span_of(p, at.row, at.rows);
      const int64_t start = smaller(all.first, p.keys) / Block::kStep * Block::kStep;
      const Span keys = {start, larger(all.last, start)};
      state.rows = at.rows;
      attend_tile<kStatistics>(p, s, state, extra, block, at, keys, here, space, row_space, [&] {
        if (average) {
          add_weights(here + start * kTile, state.top, keys.last - start, sums + t * a_tile + start * kTile);
        } else {
          __builtin_memset(here, 0, sizeof(float) * start * kTile);
          __builtin_memset(here + keys.last * kTile, 0, sizeof(float) * (p.keys - keys.last) * kTile);
          give(here, at);
        }
      });
    }
  }
  for (int i = 0; i < kTile; i++) state.top[i] = 1.0f / p.heads;
  for (int64_t t = 0; average && t < tiles; t++) give(sums + t * a_tile, place(0, t));
}

template <class Block>
inline void weights_in(const Attention& p, const Statistics* s, const Tensor& to, int64_t batch, int64_t head,
                       int64_t first, int64_t rows, float* scratch) {
  if (s) weights_of_rows<true, Block>(p, s, to, batch, head, first, rows, scratch);
  else weights_of_rows<false, Block>(p, nullptr, to, batch, head, first, rows, scratch);
}

// Output, lse and weights of queries first .. first + rows - 1 of one head; or, if the weights' head stride is 0, output
// and lse of all heads and the mean of their weights. `s` as in forward().
void weights(const Attention& p, const Statistics* s, const Tensor& to, int64_t batch, int64_t head, int64_t first,
             int64_t rows, float* scratch) {
#ifdef PAIRS
  if (p.dtype == kBFloat16) return weights_in<PairBlock>(p, s, to, batch, head, first, rows, scratch);
#endif
  weights_in<RealBlock>(p, s, to, batch, head, first, rows, scratch);
}

}  // namespace
}  // namespace clearhead
