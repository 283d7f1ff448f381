// Backward for bfloat16 on tile registers, by the formulas of backward/backward.h: Sᵀ, dPᵀ and dQᵀ have the queries in the
// lanes, dK and dV the columns. P and dS are rounded to bfloat16 for their products, as torch rounds them.
#pragma once
#include "backward/backward.h"
#include "tiles/round.h"

namespace clearhead {
namespace {

constexpr int64_t kBackBlock = 2 * kBlock;  // queries, and keys, of one block
static_assert(kBackBlock == kRows && kBackBlock <= kWholeKeys, "the scratch of backward/backward.h holds a block");

// What the tile registers read, in addition to BackwardScratch.
struct BackwardTiles {
  uint16_t *keys, *values;  // rows of all keys, [key][columns], in whole blocks
  uint16_t* key_columns;    // the keys transposed, a block of kBlock after another, [columns][kBlock]
  uint32_t *query_pairs, *grad_pairs;    // Q and dO of each tile in pairs of columns, as pair_block() packs them
  uint32_t *query_rows, *grad_rows;      // and in pairs of rows, [tile][kTileRows][columns]
  uint16_t *weights, *slopes;            // P and dS, [key][kBackBlock queries]
  uint32_t* slope_pairs;                 // dS in pairs of keys, [kBackBlock / 2][kBackBlock], lanes as lower_pairs() leaves them
  uint16_t* rows;                        // [kBlock][columns]
};

inline BackwardTiles carve_tiles(const Attention& p, float* at, size_t* total) {
  float* const begin = at;
  const auto take = [&at](int64_t halves) { float* const here = at; at += halves / 2; return here; };
  const int64_t keys = key_blocks(p) * kBlock, wide = key_columns(p), value_wide = value_columns(p);
  const auto halves = [&](int64_t n) { return reinterpret_cast<uint16_t*>(take(n)); };
  const auto pairs = [&](int64_t n) { return reinterpret_cast<uint32_t*>(take(n)); };
  BackwardTiles t;
  t.query_pairs = pairs(kBackBlock * wide);
  t.grad_pairs = pairs(kBackBlock * value_wide);
  t.query_rows = pairs(kBackBlock * wide);
  t.grad_rows = pairs(kBackBlock * value_wide);
  t.weights = halves(kBackBlock * kBackBlock);
  t.slopes = halves(kBackBlock * kBackBlock);
  t.slope_pairs = pairs(kBackBlock * kBackBlock);
  t.rows = halves(kBlock * larger(wide, value_wide));
  t.keys = halves(keys * wide);
  t.values = halves(keys * value_wide);
  t.key_columns = halves(keys * wide);
  *total = at - begin;
  return t;
}

inline size_t backward_tiles_scratch(const Attention& p) {
  size_t total;
  float nothing;
  carve_tiles(p, &nothing, &total);
  return round_up(backward_scratch(p), 16) + total;
}

// Pack the keys and values that queries first .. last - 1 may attend.
inline void lay_out_for_backward(const Attention& p, const BackwardTiles& t, int64_t batch, int64_t kv_head,
                                 int64_t first, int64_t last) {
  const Span all = span_of(p, first, last - first);
  const int64_t wide = key_columns(p), value_wide = value_columns(p);
  for (int64_t key = all.first / kBlock * kBlock; key < all.last; key += kBlock) {
    const int64_t n = smaller(kBlock, p.keys - key);
    copy_pieces<1>(p.key, kBFloat16, batch, kv_head, key, n, p.width, wide, t.keys + key * wide);
    copy_pieces<1>(p.value, kBFloat16, batch, kv_head, key, n, p.value_width, value_wide, t.values + key * value_wide);
    transpose_block({t.keys + key * wide, wide}, wide, t.key_columns + key * wide);
  }
}

// Pack a block's rows in pairs, to[kTileRows][columns]: row 2 i with row 2 i + 1.
inline void pair_rows_of(BlockRows from, int64_t columns, uint32_t* to) {
  for (int64_t i = 0; i < kTileRows; i++)
    for (int64_t c = 0; c < columns; c += LANES) {
      const uint16_t* const first = from.data + 2 * i * from.stride + c;
      store_pairs(to + i * columns + c, __builtin_convertvector(load_halves(first), VecU) |
                                            __builtin_convertvector(load_halves(first + from.stride), VecU) << 16);
    }
}

inline float dot_halves(const uint16_t* a, const uint16_t* b, int64_t n) {
  Vec sum = {};
  int64_t i = 0;
  const auto wide = [](const uint16_t* x) { return (Vec)(__builtin_convertvector(load_halves(x), VecU) << 16); };
  for (; i + LANES <= n; i += LANES) sum += wide(a + i) * wide(b + i);
  float total = total_of(sum);
  for (; i < n; i++) total += from_bfloat16(a[i]) * from_bfloat16(b[i]);
  return total;
}

// start_block() of backward/backward.h, for tiles.
inline void start_tiled_block(const Attention& p, const Gradients& g, const BackwardScratch& s, const BackwardTiles& t,
                              int64_t batch, int64_t head, int64_t first, int64_t n, Multiplier m) {
  const uint32_t flip = m.on_query < 0 ? 0x80008000u : 0, keep = m.on_query == 0 ? 0 : ~0u;
  const int64_t wide = key_columns(p), value_wide = value_columns(p);
  for (int64_t i = 0; i < s.lanes; i += kTile) {
    const int64_t rows = smaller(kTile, n - i), pairs = i / 2;
    const BlockRows query = block_rows(p.query, batch, head, first + i, rows, p.width, wide, t.rows);
    pair_block(query, wide, flip, keep, t.query_pairs + pairs * wide);
    pair_rows_of(query, wide, t.query_rows + pairs * wide);
    const BlockRows grad = block_rows(g.grad_out, batch, head, first + i, rows, p.value_width, value_wide, t.rows);
    pair_block(grad, value_wide, 0, ~0u, t.grad_pairs + pairs * value_wide);
    pair_rows_of(grad, value_wide, t.grad_rows + pairs * value_wide);
  }
  __builtin_memset(s.grad_query, 0, sizeof(float) * wide * s.lanes);
  __builtin_memset(s.distance_sums, 0, sizeof(float) * s.lanes);
  start_sums(p, g, s, batch, head, first, n, [&](int64_t i) {
    const auto row = [&](const Tensor& x) {
      return static_cast<const uint16_t*>(row_of(x, kBFloat16, batch, head, first + i));
    };
    return dot_halves(row(g.grad_out), row(p.out), p.value_width);
  });
}

// The squares of kBlock keys and kTile queries in a block, and whether the band allows any part of each.
struct Squares {
  int64_t down, across;  // keys, queries
  bool open[2][2];

  Squares(const Attention& p, const Place& at, int64_t lanes)
      : down((at.keys + kBlock - 1) / kBlock), across(lanes / kTile) {
    for (int64_t i = 0; i < down; i++)
      for (int64_t j = 0; j < across; j++) {
        const Span span = span_of(p, at.row + j * kTile, kTile);
        open[i][j] = span.first < at.key + (i + 1) * kBlock && at.key + i * kBlock < span.last;
      }
  }
};

inline void fill_square(float* to, int64_t stride, float x) {
  for (int64_t i = 0; i < kBlock; i++)
    for (int v = 0; v < kTile; v += LANES) store(to + i * stride + v, splat(x));
}

// x[key][lane] = rows · lanes for one square. rows: [kBlock][columns]; pairs: as pair_block() packs them.
inline void square_products(const uint16_t* rows, int64_t columns, const uint32_t* pairs, float* x, int64_t lanes) {
  zero_sums();
  for (int64_t c = 0; c < columns; c += kBlock)
    add_products(rows + c, rows + kTileRows * columns + c, columns * 2, pairs + c * LANES);
  store_sums(x, lanes);
}

// Logits, in s.weights, and dP, in s.slopes.
inline void tiled_products(const Attention& p, const BackwardScratch& s, const BackwardTiles& t, const Place& at,
                           const Squares& squares) {
  const int64_t wide = key_columns(p), value_wide = value_columns(p);
  for (int64_t i = 0; i < squares.down; i++)
    for (int64_t j = 0; j < squares.across; j++) {
      const int64_t key = at.key + i * kBlock, place = i * kBlock * s.lanes + j * kTile;
      if (!squares.open[i][j]) {
        fill_square(s.weights + place, s.lanes, -kInfinity);
        fill_square(s.slopes + place, s.lanes, 0);
        continue;
      }
      square_products(t.keys + key * wide, wide, t.query_pairs + j * kTileRows * wide, s.weights + place, s.lanes);
      square_products(t.values + key * value_wide, value_wide, t.grad_pairs + j * kTileRows * value_wide,
                      s.slopes + place, s.lanes);
    }
}

// Round P and dS of two keys for one tile of queries: as rows, and dS also in pairs of keys. The lanes of the pairs are
// in the order of lower_pairs(), which restore_lanes() undoes.
inline __attribute__((always_inline)) void round_keys(const BackwardTiles& t, int64_t key, int64_t lane,
                                                      const Vec (&weights)[4], const Vec (&slopes)[4], Vec factor) {
  uint16_t* const at = t.weights + key * kBackBlock + lane;
  store_row32(at, round_row(weights[0], weights[1]));
  store_row32(at + kBackBlock, round_row(weights[2], weights[3]));
  const Row32 first = round_row(slopes[0], slopes[1]), second = round_row(slopes[2], slopes[3]);
  uint16_t* const slope = t.slopes + key * kBackBlock + lane;
  store_row32(slope, round_row(slopes[0] * factor, slopes[1] * factor));
  store_row32(slope + kBackBlock, round_row(slopes[2] * factor, slopes[3] * factor));
  uint16_t* const pairs = reinterpret_cast<uint16_t*>(t.slope_pairs + key / 2 * kBackBlock + lane);
  store_row32(pairs, lower_pairs(first, second));
  store_row32(pairs + kTile, upper_pairs(first, second));
}

// The same for s.weights and s.slopes, which hold P and dS, or logits and dP if `kLogits`.
template <bool kLogits>
inline void round_block(const BackwardScratch& s, const BackwardTiles& t, float slope, Vec factor, int64_t keys) {
  const Vec c = splat(slope);
  for (int64_t lane = 0; lane < s.lanes; lane += kTile) {
    const Vec lse[2] = {load(s.lse + lane), load(s.lse + lane + LANES)};
    const Vec delta[2] = {load(s.delta + lane), load(s.delta + lane + LANES)};
    for (int64_t j = 0; j < keys; j += 2) {
      Vec x[4], d[4];
      UNROLL for (int i = 0; i < 4; i++) {
        const int64_t place = (j + i / 2) * s.lanes + lane + i % 2 * LANES;
        x[i] = load(s.weights + place);
        d[i] = load(s.slopes + place);
        if (kLogits) x[i] = x[i] * c - lse[i % 2];
      }
      if (kLogits) {
        short_exp2(x);
        UNROLL for (int i = 0; i < 4; i++) d[i] = x[i] * (d[i] - delta[i % 2]);
      }
      round_keys(t, j, lane, x, d, factor);
    }
  }
}

// Clear the lanes without a query: weight 0, and slope 0 even where a key or value is not finite.
inline void clear_lanes(const BackwardScratch& s, int64_t rows, int64_t keys) {
  const VecI lane = lane_numbers();
  for (int64_t v = rows / LANES * LANES; v < s.lanes; v += LANES) {
    const VecI empty = lane >= splat_int(Int(rows - v));
    for (int64_t j = 0; j < keys; j++) {
      float *const weight = s.weights + j * s.lanes + v, *const slope = s.slopes + j * s.lanes + v;
      store(weight, empty ? splat(-kInfinity) : load(weight));
      store(slope, empty ? Vec{} : load(slope));
    }
  }
}

// Clear the rows without a key, up to a whole kBlock; `nothing` is the number whose weight is 0. Returns all rows.
inline int64_t clear_keys(const BackwardScratch& s, int64_t keys, float nothing) {
  const int64_t all = round_up(keys, kBlock);
  for (int64_t i = keys * s.lanes; i < all * s.lanes; i += LANES) {
    store(s.weights + i, splat(nothing));
    store(s.slopes + i, Vec{});
  }
  return all;
}

// sums[key][column] += x[key][query] * rows[query][column], for kBlock keys.
inline void add_to_tiled_keys(const Squares& squares, int64_t down, const uint16_t* x, const uint32_t* rows,
                              int64_t columns, float* sums) {
  for (int64_t c = 0; c < columns; c += kBlock) {
    load_sums(sums + c, columns);
    for (int64_t j = 0; j < squares.across; j++)
      if (squares.open[down][j])
        add_products(x + j * kTile, x + kTileRows * kBackBlock + j * kTile, kBackBlock * 2,
                     rows + j * kTileRows * columns + c, rows + j * kTileRows * columns + c + LANES, columns * 4);
    store_sums(sums + c, columns);
  }
}

// dQᵀ += Kᵀ dSᵀ
inline void add_to_tiled_queries(const BackwardScratch& s, const BackwardTiles& t, const Place& at,
                                 const Squares& squares, int64_t columns) {
  for (int64_t j = 0; j < squares.across; j++)
    for (int64_t c = 0; c < columns; c += kBlock) {
      float* const to = s.grad_query + c * s.lanes + j * kTile;
      load_sums(to, s.lanes);
      for (int64_t i = 0; i < squares.down; i++)
        if (squares.open[i][j]) {
          const uint16_t* const rows = t.key_columns + (at.key + i * kBlock) * columns + c * kBlock;
          const uint32_t* const pairs = t.slope_pairs + i * kTileRows * kBackBlock + j * kTile;
          add_products(rows, rows + kTileRows * kBlock, kBlock * 2, pairs, pairs + LANES, kBackBlock * 4);
        }
      store_sums(to, s.lanes);
    }
}

// Compute all gradients of a block of queries and keys.
inline void tiled_gradients(const Attention& p, const Gradients& g, const BackwardScratch& s, const BackwardTiles& t,
                            const Place& at, State mask, const Multiplier& m, float* sums) {
  const Squares squares(p, at, s.lanes);
  const int64_t wide = key_columns(p), value_wide = value_columns(p);
  const Vec factor = splat(p.head_scale ? number_at(p.head_scale, at.head) : 1);
  tiled_products(p, s, t, at, squares);
  if (has_change(p) || mask == kMixed || !inside_band(p, at.row, s.lanes, at.key, at.keys))
    change_logits(p, at, m, mask, s.weights, s.lanes, s.lanes, s.cap_slopes, s.space);
  if (at.rows < s.lanes) clear_lanes(s, at.rows, at.keys);
  if (p.softcap != 0 || p.dropout_p != 0 || g.alibi_rows || g.grad_bias.data) {
    drop(p, at, s.slopes, s.lanes, s.lanes);
    weights_from_logits(s, m.slope, at.keys);
    slopes_of_block(p, g, s, at, sums);
    round_block<false>(s, t, m.slope, factor, clear_keys(s, at.keys, 0));
  } else {
    round_block<true>(s, t, m.slope, factor, clear_keys(s, at.keys, -kInfinity));
  }
  for (int64_t i = 0; i < squares.down; i++) {
    const int64_t key = at.key + i * kBlock, row = i * kBlock * kBackBlock;
    add_to_tiled_keys(squares, i, t.weights + row, t.grad_rows, value_wide,
                      sums + key_rows(p) * wide + key * value_wide);
    add_to_tiled_keys(squares, i, t.slopes + row, t.query_rows, wide, sums + key * wide);
  }
  add_to_tiled_queries(s, t, at, squares, wide);
}

// Put the lanes of dQᵀ back in order.
inline void restore_lanes(float* x, int64_t columns, int64_t lanes) {
  for (int64_t i = 0; i < columns * lanes; i += kTile) {
    const Vec first = load(x + i), second = load(x + i + LANES);
    store(x + i, restored_lower(first, second));
    store(x + i + LANES, restored_upper(first, second));
  }
}

inline void backward_on_tiles(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first,
                              int64_t last, float* sums, float* scratch) {
  const TileUse in_use;
  size_t total;
  BackwardScratch s = carve(p, scratch, &total);
  const BackwardTiles t = carve_tiles(p, scratch + round_up(total, 16), &total);
  lay_out_for_backward(p, t, batch, kv_head, first, last);
  const int64_t group = p.heads / p.kv_heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
    const Multiplier m = multiplier_of(p, head);
    for (int64_t row = first; row < last; row += kBackBlock) {
      const int64_t rows = smaller(kBackBlock, last - row);
      s.lanes = lanes_of(rows);
      start_tiled_block(p, g, s, t, batch, head, row, rows, m);
      const Span all = span_of(p, row, rows);
      for (int64_t key = all.first / kBlock * kBlock; key < all.last; key += kBackBlock) {
        Place at = {batch, head, row, rows, key, smaller(kBackBlock, all.last - key)};
        const State mask = trim(p, &at, kBlock);
        if (mask != kEmpty) tiled_gradients(p, g, s, t, at, mask, m, sums);
      }
      restore_lanes(s.grad_query, key_columns(p), s.lanes);
      finish_block(p, g, s, batch, head, row, rows);
    }
  }
}

}  // namespace
}  // namespace clearhead
