// Forward: online softmax over blocks of keys, with queries in the lanes (Milakov & Gimelshein 2018, alg. 3).
// It computes Sᵀ and Oᵀ, so the row maximum, the sum and the rescaling work lane by lane, without horizontal sums.
#pragma once
#include "vector/best.h"
#include "passes/logits.h"

namespace clearhead {
namespace {

constexpr int64_t kKeyBlock = 128;
constexpr int64_t kManyTiles = 4;  // from so many tiles per block of values on, a conflict-free copy of them pays off

// One tile of kTile queries, of which `rows` are used, and its scratch.
struct TileState {
  int64_t rows;
  Real* query;  // [width][kTile]
  Real* out;    // [value_width][kTile]
  Real* top;    // [kTile] row maximum of the logits, before the multiplication by `slope`
  Real* offset; // [kTile] the maximum in units of log2, rounded: what is subtracted
  Real* sum;    // [kTile]
  Real *exact, *rounded;  // [kTile] sums of the weights before and after rounding, where they are rounded
};

inline int64_t tile_numbers(const Attention& p) { return (p.width + p.value_width + 5) * kTile; }

inline TileState tile_at(const Attention& p, Real* scratch, int64_t tile, int64_t rows) {
  Real* at = scratch + tile * tile_numbers(p);
  TileState s;
  s.rows = rows;
  s.query = at;
  s.out = s.query + p.width * kTile;
  s.top = s.out + p.value_width * kTile;
  s.offset = s.top + kTile;
  s.sum = s.offset + kTile;
  s.exact = s.sum + kTile;
  s.rounded = s.exact + kTile;
  return s;
}

// What a tile also keeps where statistics are wanted: sums of weight * -log2(weight) and weight^2, the largest logits.
struct TileStatistics {
  Real *surprise, *squares;  // [kTile], both of weights relative to `offset`
  Best best;
  Real* peak = nullptr;  // [kTile] the weight of the largest logit relative to `offset`, where it is not 1
};

inline int64_t extra_numbers(const Statistics* s) { return s ? 2 * kTile + best_numbers(s->top) : 0; }

inline TileStatistics extra_at(const Statistics& s, Real* at) { return {at, at + kTile, best_at(at + 2 * kTile, s.top)}; }

inline void start_statistics(const TileStatistics& extra) {
  __builtin_memset(extra.surprise, 0, sizeof(Real) * 2 * kTile);
  start_best(extra.best);
}

inline size_t forward_scratch(const Attention& p, const Statistics* s, int64_t rows) {
  const int64_t tiles = (rows + kTile - 1) / kTile;
  return tiles * (tile_numbers(p) + extra_numbers(s)) +
         kKeyBlock * (2 * kTile + p.width + conflict_free_stride(p.value_width)) +
         transpose_scratch(larger(p.width, p.value_width));
}

constexpr int64_t kSummed = 16;  // keys whose weights are summed first

struct Sums {
  Vec weight[2] = {}, surprise[2] = {}, squares[2] = {};
};

// Replace N keys' logits, two vectors each, by exp2(logits * c - offset), and add these to the sums.
template <bool kStatistics, int N>
inline __attribute__((always_inline)) void weights_of(Real* logits, Vec c, const Vec (&offset)[2], Sums& sums) {
  Vec x[2 * N], power[2 * N];
  UNROLL for (int i = 0; i < 2 * N; i++) x[i] = load(logits + i * LANES) * c - offset[i & 1];
  if (kStatistics)  // finite, so that 0 times it is 0
    UNROLL for (int i = 0; i < 2 * N; i++) power[i] = maximum(splat(-kExponents), x[i]);
  exp2_all(x);
  UNROLL for (int i = 0; i < 2 * N; i++) {
    sums.weight[i & 1] += x[i];
    store(logits + i * LANES, x[i]);
    if (!kStatistics) continue;
    sums.surprise[i & 1] -= x[i] * power[i];
    sums.squares[i & 1] += x[i] * x[i];
  }
}

// Add a block of logits [keys][kTile] to the running softmax, and replace them by exp2(logits * slope - offset).
// Sets `alpha` to what the output so far is multiplied by.
template <bool kStatistics>
inline void softmax_block(const TileState& state, const TileStatistics& extra, Real slope, int64_t keys, Real* logits,
                          Vec (&alpha)[2]) {
  const Vec c = splat(slope);
  Vec top[2] = {load(state.top), load(state.top + LANES)}, offset[2], further[2];
  Sums sums;
  for (int64_t j = 0; j < keys; j++) {
    top[0] = maximum(load(logits + j * kTile), top[0]);
    top[1] = maximum(load(logits + j * kTile + LANES), top[1]);
  }
  UNROLL for (int v = 0; v < 2; v++) {
    store(state.top + v * LANES, top[v]);
    // An empty row keeps a finite offset, so that -inf - offset is -inf and not NaN.
    offset[v] = maximum(top[v], splat(kNothing)) * c;
    further[v] = offset[v] - load(state.offset + v * LANES);
    alpha[v] = exp2(-further[v]);
    store(state.offset + v * LANES, offset[v]);
  }
  // Sixteen keys have sums of their own: added one after the other, 128 weights lose three times as much to rounding.
  for (int64_t first = 0; first < keys; first += kSummed) {
    const int64_t last = smaller(first + kSummed, keys);
    Sums part;
    int64_t j = first;
    for (; j + 2 <= last; j += 2) weights_of<kStatistics, 2>(logits + j * kTile, c, offset, part);
    if (j < last) weights_of<kStatistics, 1>(logits + j * kTile, c, offset, part);
    UNROLL for (int v = 0; v < 2; v++) {
      sums.weight[v] += part.weight[v];
      if (!kStatistics) continue;
      sums.surprise[v] += part.surprise[v];
      sums.squares[v] += part.squares[v];
    }
  }
  UNROLL for (int v = 0; v < 2; v++) {
    const Vec before = load(state.sum + v * LANES);
    store(state.sum + v * LANES, before * alpha[v] + sums.weight[v]);
    if (!kStatistics) continue;
    Real *const surprise = extra.surprise + v * LANES, *const squares = extra.squares + v * LANES;
    const Vec moved = alpha[v] * (load(surprise) + further[v] * before);
    store(surprise, (before > splat(0.0f) ? moved : splat(0.0f)) + sums.surprise[v]);
    store(squares, load(squares) * (alpha[v] * alpha[v]) + sums.squares[v]);
  }
}

inline void start_tile(const Attention& p, const TileState& state, int64_t batch, int64_t head, int64_t first,
                       Multiplier m, Real* space) {
  pack_lanes(p.query, p.dtype, batch, head, first, state.rows, p.width, m.on_query, kTile, state.query, space);
  __builtin_memset(state.out, 0, sizeof(Real) * p.value_width * kTile);
  for (int i = 0; i < kTile; i++) {
    state.top[i] = -kInfinity;
    state.offset[i] = kNothing * m.slope;
    state.sum[i] = state.exact[i] = state.rounded[i] = 0;
  }
}

// `share` is the weight of a logit equal to the offset; `sum` is the keys' total weight in units of `share`.
inline void store_statistics(const Statistics& s, const TileStatistics& extra, int64_t lane, int64_t row, Real top,
                             double share, double log_share, double sum) {
  const bool empty = share == 0 || top == -kInfinity;
  if (s.entropy)
    s.entropy[row] = empty ? 0 : Real(kLn2 * share * extra.surprise[lane] - share * sum * log_share);
  if (s.maximum) s.maximum[row] = empty ? 0 : Real(extra.peak ? share * extra.peak[lane] : share);
  if (s.squares) s.squares[row] = empty ? 0 : Real(share * share * extra.squares[lane]);
  if (s.mass) s.mass[row] = empty ? 0 : Real(share * sum);
}

// Call act(how) with a way to multiply that is fast for so many rows of a tile.
template <template <int> class How, class Act>
inline void for_rows(int64_t rows, const Act& act) {
  rows > LANES ? act(How<2>{}) : act(How<1>{});
}

// A block of keys and values in Real, and a tile's products with them; forward_bf16.h has the same in pairs of bfloat16.
// Keys are counted from the block's first.
struct RealBlock {
  static constexpr int64_t kStep = 1;  // a tile may begin at any key of a block
  Rows keys, values;

  RealBlock(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n, int64_t tiles,
             Real* key_space, Real* value_space)
      : keys(rows_as_real(p.key, p.dtype, batch, kv_head, first, n, p.width, key_space)),
        values(conflict_free_rows(p.value, p.dtype, batch, kv_head, first, n, p.value_width, tiles >= kManyTiles,
                                  value_space)) {}

  static void start(const Attention&, const TileState&) {}  // called once a tile is packed

  void logits(const Attention& p, const TileState& state, int64_t from, int64_t n, Real* to) const {
    for_rows<InReals>(state.rows, [&](auto how) {
      product<kAlong, decltype(how)>(n, keys.data + from * keys.stride, keys.stride, state.query, kTile, p.width,
                                     Set{to, kTile});
    });
  }

  // Set the tile's output to itself times alpha, plus the weights times the values. May overwrite the weights.
  void add_to_output(const Attention& p, const TileState& state, int64_t from, int64_t n, Real* weights,
                     const Vec (&alpha)[2]) const {
    for_rows<InReals>(state.rows, [&](auto how) {
      product<kAcross, decltype(how)>(p.value_width, values.data + from * values.stride, values.stride, weights, kTile, n,
                                      Rescale{state.out, kTile, alpha[0], alpha[1]});
    });
  }

  static void correct(const TileState&, Real*) {}  // may change what the output is multiplied by
};

// Store the lse of a tile's queries and, if wanted, their statistics. Sets state.top to what the output is multiplied by.
template <bool kStatistics>
inline void shares_of_tile(const Attention& p, const Statistics* s, const TileState& state, const TileStatistics& extra,
                           Real slope, int64_t batch, int64_t head, int64_t first) {
  Real* const share = state.top;  // the maximum is no longer needed
  Real log2_lse[kTile];
  const bool needs_lse = p.lse.data || kStatistics;
  const int64_t row = (batch * p.heads + head) * p.length + first;
  for (int64_t i = state.rows; i < kTile; i++) {
    share[i] = 0;
    log2_lse[i] = kInfinity;
  }
  for (int64_t i = 0; i < state.rows; i++) {
    double offset = state.offset[i], total = state.sum[i], rescale = 1;
    if (p.sinks) {  // one more logit, with no value
      const double sink = double(number_at(p.sinks, head)) * kLog2EWide, top = sink > offset ? sink : offset;
      rescale = __builtin_exp2(offset - top);
      total = total * rescale + __builtin_exp2(sink - top);
      offset = top;
    }
    const double log_total = needs_lse ? __builtin_log(total) : 0;  // in scalars as long as the weights of two keys
    if (kStatistics)
      store_statistics(*s, extra, i, row + i, state.top[i], total == 0 ? 0 : rescale / total,
                       (p.sinks ? __builtin_log(rescale) : 0) - log_total, state.sum[i]);
    share[i] = total == 0 ? 0 : Real(rescale / total);  // NaN passes through
    if (!needs_lse) continue;
    const double lse = total == 0 ? -kInfinity : offset * kLn2 + log_total;
    store_lse(p, batch, head, first + i, lse);
    log2_lse[i] = total == 0 ? kInfinity : Real(lse) * kLog2E;
  }
  if (!kStatistics || !s->top) return;
  weigh_best(extra.best, slope, {load(log2_lse), load(log2_lse + LANES)});
  for (int64_t i = 0; i < state.rows; i++) store_best(*s, extra.best, i, row + i);
}

template <class Block>
inline void store_output(const Attention& p, const TileState& state, int64_t batch, int64_t head, int64_t first,
                         Real* space) {
  Block::correct(state, state.top);
  unpack_lanes(state.out, kTile, state.rows, p.value_width, state.top, p.out, p.dtype, batch, head, first, space);
}

template <bool kStatistics, class Block>
inline void finish_tile(const Attention& p, const Statistics* s, const TileState& state, const TileStatistics& extra,
                        Real slope, int64_t batch, int64_t head, int64_t first, Real* space) {
  shares_of_tile<kStatistics>(p, s, state, extra, slope, batch, head, first);
  store_output<Block>(p, state, batch, head, first, space);
}

template <bool kStatistics, class Block>
inline void forward_rows(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first,
                         int64_t rows, Real* scratch) {
  const int64_t kv_head = head / (p.heads / p.kv_heads), tiles = (rows + kTile - 1) / kTile;
  Real* const logits = scratch + tiles * tile_numbers(p);
  Real* const space = logits + kKeyBlock * kTile;
  Real* const key_space = space + kKeyBlock * kTile;
  Real* const value_space = key_space + kKeyBlock * p.width;
  Real* const row_space = value_space + kKeyBlock * conflict_free_stride(p.value_width);
  Real* const statistics_space = row_space + transpose_scratch(larger(p.width, p.value_width));
  const auto extra = [&](int64_t t) {
    return kStatistics ? extra_at(*s, statistics_space + t * extra_numbers(s)) : TileStatistics{};
  };
  const Multiplier m = multiplier_of(p, head);
  const auto tile = [&](int64_t t) { return tile_at(p, scratch, t, smaller(kTile, rows - t * kTile)); };

  for (int64_t t = 0; t < tiles; t++) {
    start_tile(p, tile(t), batch, head, first + t * kTile, m, row_space);
    Block::start(p, tile(t));
  }

  for (int64_t t = 0; kStatistics && t < tiles; t++) start_statistics(extra(t));

  const Span all = span_of(p, first, rows);
  for (int64_t start = all.first; start < all.last; start += kKeyBlock) {
    const int64_t stop = smaller(start + kKeyBlock, all.last);
    const Block block(p, batch, kv_head, start, stop - start, tiles, key_space, value_space);
    for (int64_t t = 0; t < tiles; t++) {
      const TileState state = tile(t);
      const int64_t row = first + t * kTile;
      const Span here = span_of(p, row, state.rows);
      const int64_t from = start + larger(0, here.first - start) / Block::kStep * Block::kStep;
      Place at = {batch, head, row, state.rows, from, smaller(stop, here.last) - from};
      if (at.keys <= 0) continue;
      const State mask = trim(p, &at, Block::kStep);
      if (mask == kEmpty) continue;
      block.logits(p, state, at.key - start, at.keys, logits);
      change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
      if (kStatistics && s->top) best_of_block(extra(t).best, at.key, at.keys, logits);
      Vec alpha[2];
      softmax_block<kStatistics>(state, extra(t), m.slope, at.keys, logits, alpha);
      drop(p, at, logits, kTile, kTile);
      block.add_to_output(p, state, at.key - start, at.keys, logits, alpha);
    }
  }
  for (int64_t t = 0; t < tiles; t++)
    finish_tile<kStatistics, Block>(p, s, tile(t), extra(t), m.slope, batch, head, first + t * kTile, row_space);
}

// Divide the output by the sum of the rounded weights it was computed from, so that it remains a mean of the values. A
// weight's error then counts by the distance of its value from that mean instead of from 0. The lse uses the exact sum.
inline void correct_for_rounding(const TileState& state, Real* share) {
  UNROLL for (int v = 0; v < 2; v++) {
    const Vec exact = load(state.exact + v * LANES), rounded = load(state.rounded + v * LANES);
    Real* const at = share + v * LANES;
    store(at, load(at) * (rounded > splat(0.0f) ? exact / rounded : splat(1.0f)));
  }
}

// For passes that read keys and values in place and need no packed copy.
inline size_t nothing_tiled(const Attention&) { return 0; }
inline void tile_nothing(const Attention&, int64_t, int64_t, int64_t, int64_t, Real*) {}

template <class Block>
inline void forward_in(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first,
                       int64_t rows, Real* scratch) {
  if (s) forward_rows<true, Block>(p, s, batch, head, first, rows, scratch);
  else forward_rows<false, Block>(p, nullptr, batch, head, first, rows, scratch);
}

}  // namespace
}  // namespace clearhead
