// Forward: online softmax over blocks of keys, with queries in the lanes (Milakov & Gimelshein 2018, alg. 3).
// Sᵀ and Oᵀ are computed, so the row maximum, the sum and the rescaling are lane by lane, with nothing horizontal.
#pragma once
#include "vector/best.h"
#include "passes/logits.h"

namespace clearhead {
namespace {

constexpr int64_t kKeyBlock = 128;
constexpr int64_t kOften = 4;  // tiles that read a block of values: from here on a copy of badly lying ones pays

// Scratch of one tile of kTile queries.
struct TileState {
  Real* query;  // [width][kTile]
  Real* out;    // [value_width][kTile]
  Real* top;    // [kTile] row maximum of the logits, before the multiplication by `slope`
  Real* offset; // [kTile] the maximum in units of log2, rounded: what is subtracted
  Real* sum;    // [kTile]
  Real *exact, *rounded;  // [kTile] sums of the weights before and after rounding, where they are rounded
};

inline int64_t tile_numbers(const Attention& p) { return (p.width + p.value_width + 5) * kTile; }

inline TileState tile_at(const Attention& p, Real* scratch, int64_t tile) {
  Real* at = scratch + tile * tile_numbers(p);
  TileState s;
  s.query = at;
  s.out = s.query + p.width * kTile;
  s.top = s.out + p.value_width * kTile;
  s.offset = s.top + kTile;
  s.sum = s.offset + kTile;
  s.exact = s.sum + kTile;
  s.rounded = s.exact + kTile;
  return s;
}

// What a tile keeps besides, where statistics are asked for: sums of weight * -log2 and of weight^2, and the best.
struct Asked {
  Real *surprise, *squares;  // [kTile], both of weights relative to `offset`
  Best best;
  Real* peak = nullptr;  // [kTile] the weight of the largest logit relative to `offset`, where it is not 1
};

inline int64_t asked_numbers(const Statistics* s) { return s ? 2 * kTile + best_numbers(s->top) : 0; }

inline Asked asked_at(const Statistics& s, Real* at) { return {at, at + kTile, best_at(at + 2 * kTile, s.top)}; }

inline size_t forward_scratch(const Attention& p, const Statistics* s, int64_t rows) {
  const int64_t tiles = (rows + kTile - 1) / kTile;
  return tiles * (tile_numbers(p) + asked_numbers(s)) + kKeyBlock * (2 * kTile + p.width + width_apart(p.value_width)) +
         transpose_scratch(larger(p.width, p.value_width));
}

struct Sums {
  Vec weight[2] = {}, surprise[2] = {}, squares[2] = {};
};

// N keys' logits, two vectors each, become exp2(logits * c - offset), and are added to the sums.
template <bool kAsked, int N>
inline __attribute__((always_inline)) void weights_of(Real* logits, Vec c, const Vec (&offset)[2], Sums& sums) {
  Vec x[2 * N], power[2 * N];
  UNROLL for (int i = 0; i < 2 * N; i++) x[i] = load(logits + i * LANES) * c - offset[i & 1];
  if (kAsked) UNROLL for (int i = 0; i < 2 * N; i++) power[i] = maximum(splat(-kExponents), x[i]);  // finite: 0 times it is 0
  exp2_all(x);
  UNROLL for (int i = 0; i < 2 * N; i++) {
    sums.weight[i & 1] += x[i];
    store(logits + i * LANES, x[i]);
    if (!kAsked) continue;
    sums.surprise[i & 1] -= x[i] * power[i];
    sums.squares[i & 1] += x[i] * x[i];
  }
}

// Take a block of logits [keys][kTile] into the running softmax; leave exp2(logits * slope - offset) in their place.
// Returns through `alpha` what the former output is multiplied by.
template <bool kAsked>
inline void softmax_block(const TileState& state, const Asked& asked, Real slope, int64_t keys, Real* logits,
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
  int64_t j = 0;
  for (; j + 2 <= keys; j += 2) weights_of<kAsked, 2>(logits + j * kTile, c, offset, sums);
  if (j < keys) weights_of<kAsked, 1>(logits + j * kTile, c, offset, sums);
  UNROLL for (int v = 0; v < 2; v++) {
    const Vec before = load(state.sum + v * LANES);
    store(state.sum + v * LANES, before * alpha[v] + sums.weight[v]);
    if (!kAsked) continue;
    Real *const surprise = asked.surprise + v * LANES, *const squares = asked.squares + v * LANES;
    const Vec moved = alpha[v] * (load(surprise) + further[v] * before);
    store(surprise, (before > splat(0.0f) ? moved : splat(0.0f)) + sums.surprise[v]);
    store(squares, load(squares) * (alpha[v] * alpha[v]) + sums.squares[v]);
  }
}

inline void start_tile(const Attention& p, const TileState& state, int64_t batch, int64_t head, int64_t first,
                       int64_t rows, Multiplier m, Real* space) {
  pack_lanes(p.query, p.dtype, batch, head, first, rows, p.width, m.on_query, kTile, state.query, space);
  __builtin_memset(state.out, 0, sizeof(Real) * p.value_width * kTile);
  for (int i = 0; i < kTile; i++) {
    state.top[i] = -kInfinity;
    state.offset[i] = kNothing * m.slope;
    state.sum[i] = state.exact[i] = state.rounded[i] = 0;
  }
}

// `share` is the weight of a logit as large as the offset, `sum` what the keys got in those units.
inline void store_asked(const Statistics& s, const Asked& asked, int64_t lane, int64_t row, Real top,
                        double share, double sum) {
  const bool empty = share == 0 || top == -kInfinity;
  if (s.entropy)
    s.entropy[row] = empty ? 0 : Real(kLn2 * share * asked.surprise[lane] - share * sum * __builtin_log(share));
  if (s.maximum) s.maximum[row] = empty ? 0 : Real(asked.peak ? share * asked.peak[lane] : share);
  if (s.squares) s.squares[row] = empty ? 0 : Real(share * share * asked.squares[lane]);
  if (s.mass) s.mass[row] = empty ? 0 : Real(share * sum);
}

// A block of keys and values in Real, and the products of a tile with them; forward_bf16.h has it in pairs of bf16.
// Keys are counted from the block's first.
struct RealBlock {
  static constexpr int64_t kStep = 1;  // a tile may begin at any key of a block
  Rows keys, values;

  RealBlock(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n, int64_t tiles,
             Real* key_space, Real* value_space)
      : keys(rows_as_real(p.key, p.dtype, batch, kv_head, first, n, p.width, key_space)),
        values(rows_apart(p.value, p.dtype, batch, kv_head, first, n, p.value_width, tiles >= kOften, value_space)) {}

  static void start(const Attention&, const TileState&) {}  // what is done to a tile once it is packed

  void logits(const Attention& p, const TileState& state, int64_t from, int64_t n, Real* to) const {
    product<kAlong>(n, keys.data + from * keys.stride, keys.stride, state.query, kTile, p.width, Set{to, kTile});
  }

  // The tile's output times alpha, plus the weights times the values; the weights are spent.
  void add_to_output(const Attention& p, const TileState& state, int64_t from, int64_t n, Real* weights,
                     const Vec (&alpha)[2]) const {
    product<kAcross>(p.value_width, values.data + from * values.stride, values.stride, weights, kTile, n,
                     Rescale{state.out, kTile, alpha[0], alpha[1]});
  }

  static void correct(const TileState&, Real*) {}  // what the output is multiplied by
};

// The lse of a tile's queries and, where asked for, their statistics; leaves in state.top what the output is multiplied by.
template <bool kAsked>
inline void shares_of_tile(const Attention& p, const Statistics* s, const TileState& state, const Asked& asked,
                           Real slope, int64_t batch, int64_t head, int64_t first, int64_t rows) {
  Real* const share = state.top;  // not needed any more
  Real log2_lse[kTile];
  const int64_t row = (batch * p.heads + head) * p.length + first;
  for (int64_t i = 0; i < kTile; i++) {
    double offset = state.offset[i], total = state.sum[i], rescale = 1;
    if (p.sinks) {  // one more logit, with no value
      const double sink = double(number_at(p.sinks, head)) * kLog2EWide, top = sink > offset ? sink : offset;
      rescale = __builtin_exp2(offset - top);
      total = total * rescale + __builtin_exp2(sink - top);
      offset = top;
    }
    const double lse = total == 0 ? -kInfinity : offset * kLn2 + __builtin_log(total);
    if (i < rows) store_lse(p, batch, head, first + i, lse);
    if (kAsked && i < rows)
      store_asked(*s, asked, i, row + i, state.top[i], total == 0 ? 0 : rescale / total, state.sum[i]);
    log2_lse[i] = total == 0 ? kInfinity : Real(lse) * kLog2E;
    share[i] = total == 0 ? 0 : Real(rescale / total);  // NaN passes through
  }
  if (!kAsked || !s->top) return;
  weigh_best(asked.best, slope, {load(log2_lse), load(log2_lse + LANES)});
  for (int64_t i = 0; i < rows; i++) store_best(*s, asked.best, i, row + i);
}

template <bool kAsked, class Block>
inline void finish_tile(const Attention& p, const Statistics* s, const TileState& state, const Asked& asked,
                        Real slope, int64_t batch, int64_t head, int64_t first, int64_t rows, Real* space) {
  shares_of_tile<kAsked>(p, s, state, asked, slope, batch, head, first, rows);
  Block::correct(state, state.top);
  unpack_lanes(state.out, kTile, rows, p.value_width, state.top, p.out, p.dtype, batch, head, first, space);
}

template <bool kAsked, class Block>
inline void forward_rows(const Attention& p, const Statistics* s, int64_t batch, int64_t head, int64_t first,
                         int64_t rows, Real* scratch) {
  const int64_t kv_head = head / (p.heads / p.kv_heads), tiles = (rows + kTile - 1) / kTile;
  Real* const logits = scratch + tiles * tile_numbers(p);
  Real* const space = logits + kKeyBlock * kTile;
  Real* const key_space = space + kKeyBlock * kTile;
  Real* const value_space = key_space + kKeyBlock * p.width;
  Real* const row_space = value_space + kKeyBlock * width_apart(p.value_width);
  Real* const asked_space = row_space + transpose_scratch(larger(p.width, p.value_width));
  const auto asked = [&](int64_t t) { return kAsked ? asked_at(*s, asked_space + t * asked_numbers(s)) : Asked{}; };
  const Multiplier m = multiplier_of(p, head);

  for (int64_t t = 0; t < tiles; t++) {
    const TileState state = tile_at(p, scratch, t);
    start_tile(p, state, batch, head, first + t * kTile, smaller(kTile, rows - t * kTile), m, row_space);
    Block::start(p, state);
  }

  for (int64_t t = 0; kAsked && t < tiles; t++) {
    __builtin_memset(asked(t).surprise, 0, sizeof(Real) * 2 * kTile);
    start_best(asked(t).best);
  }

  const Span all = span_of(p, first, rows);
  for (int64_t start = all.first; start < all.last; start += kKeyBlock) {
    const int64_t stop = smaller(start + kKeyBlock, all.last);
    const Block block(p, batch, kv_head, start, stop - start, tiles, key_space, value_space);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t row = first + t * kTile;
      const Span here = span_of(p, row, smaller(kTile, rows - t * kTile));
      const int64_t from = start + larger(0, here.first - start) / Block::kStep * Block::kStep;
      Place at = {batch, head, row, smaller(kTile, rows - t * kTile), from, smaller(stop, here.last) - from};
      if (at.keys <= 0) continue;
      const State mask = trim(p, &at, Block::kStep);
      if (mask == kEmpty) continue;
      const TileState state = tile_at(p, scratch, t);
      block.logits(p, state, at.key - start, at.keys, logits);
      change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
      if (kAsked && s->top) best_of_block(asked(t).best, at.key, at.keys, logits);
      Vec alpha[2];
      softmax_block<kAsked>(state, asked(t), m.slope, at.keys, logits, alpha);
      drop(p, at, logits, kTile, kTile);
      block.add_to_output(p, state, at.key - start, at.keys, logits, alpha);
    }
  }
  for (int64_t t = 0; t < tiles; t++)
    finish_tile<kAsked, Block>(p, s, tile_at(p, scratch, t), asked(t), m.slope, batch, head, first + t * kTile,
                               smaller(kTile, rows - t * kTile), row_space);
}

// The output is divided by the sum of the weights it was made of, the rounded ones, and so stays a mean of the values: an
// error of a weight counts by how far its value is from that mean, not from 0. The lse keeps the exact sum.
inline void correct_for_rounding(const TileState& state, Real* share) {
  UNROLL for (int v = 0; v < 2; v++) {
    const Vec exact = load(state.exact + v * LANES), rounded = load(state.rounded + v * LANES);
    Real* const at = share + v * LANES;
    store(at, load(at) * (rounded > splat(0.0f) ? exact / rounded : splat(1.0f)));
  }
}

// Keys and values are read where they lie: nothing is laid out before.
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
