// Forward: online softmax over blocks of keys, with queries in the lanes (Milakov & Gimelshein 2018, alg. 3).
// Sᵀ and Oᵀ are computed, so the row maximum, the sum and the rescaling are lane by lane, with nothing horizontal.
#pragma once
#include "logits.h"
#include "product.h"

namespace clearhead {
namespace {

constexpr int64_t kKeyBlock = 128;

// Scratch of one tile of kTile queries.
struct TileState {
  float* query;  // [width][kTile]
  float* out;    // [value_width][kTile]
  float* top;    // [kTile] row maximum of the logits, before the multiplication by `slope`
  float* offset; // [kTile] the maximum in units of log2, rounded: what is subtracted
  float* sum;    // [kTile]
};

inline int64_t tile_floats(const Attention& p) { return (p.width + p.value_width + 3) * kTile; }

inline TileState tile_at(const Attention& p, float* scratch, int64_t tile) {
  float* at = scratch + tile * tile_floats(p);
  TileState s;
  s.query = at;
  s.out = s.query + p.width * kTile;
  s.top = s.out + p.value_width * kTile;
  s.offset = s.top + kTile;
  s.sum = s.offset + kTile;
  return s;
}

inline size_t forward_scratch(const Attention& p, int64_t rows) {
  const int64_t tiles = (rows + kTile - 1) / kTile;
  return tiles * tile_floats(p) + kKeyBlock * (2 * kTile + p.width + p.value_width) + turn_space(larger(p.width, p.value_width));
}

// N keys' logits, two vectors each, become exp2(logits * c - offset), and are added to the sums.
template <int N>
inline __attribute__((always_inline)) void weights_of(float* logits, Vec c, const Vec (&offset)[2], Vec (&sum)[2]) {
  Vec x[2 * N];
  UNROLL for (int i = 0; i < 2 * N; i++) x[i] = load(logits + i * LANES) * c - offset[i & 1];
  exp2_all(x);
  UNROLL for (int i = 0; i < 2 * N; i++) {
    sum[i & 1] += x[i];
    store(logits + i * LANES, x[i]);
  }
}

// Take a block of logits [keys][kTile] into the running softmax; leave exp2(logits * slope - offset) in their place.
// Returns through `alpha` what the former output is multiplied by.
inline void softmax_block(const TileState& state, float slope, int64_t keys, float* logits, Vec (&alpha)[2]) {
  const Vec c = splat(slope);
  Vec top[2] = {load(state.top), load(state.top + LANES)}, offset[2], sum[2] = {};
  for (int64_t j = 0; j < keys; j++) {
    top[0] = maximum(load(logits + j * kTile), top[0]);
    top[1] = maximum(load(logits + j * kTile + LANES), top[1]);
  }
  UNROLL for (int v = 0; v < 2; v++) {
    store(state.top + v * LANES, top[v]);
    // An empty row keeps a finite offset, so that -inf - offset is -inf and not NaN.
    offset[v] = maximum(top[v], splat(-1e37f)) * c;
    alpha[v] = exp2(load(state.offset + v * LANES) - offset[v]);
    store(state.offset + v * LANES, offset[v]);
  }
  int64_t j = 0;
  for (; j + 2 <= keys; j += 2) weights_of<2>(logits + j * kTile, c, offset, sum);
  if (j < keys) weights_of<1>(logits + j * kTile, c, offset, sum);
  UNROLL for (int v = 0; v < 2; v++) store(state.sum + v * LANES, load(state.sum + v * LANES) * alpha[v] + sum[v]);
}

inline void start_tile(const Attention& p, const TileState& state, int64_t batch, int64_t head, int64_t first,
                       int64_t rows, Multiplier m, float* space) {
  pack_lanes(p.query, p.dtype, batch, head, first, rows, p.width, m.on_query, kTile, state.query, space);
  __builtin_memset(state.out, 0, sizeof(float) * p.value_width * kTile);
  for (int i = 0; i < kTile; i++) {
    state.top[i] = -kInfinity;
    state.offset[i] = -1e37f * m.slope;
    state.sum[i] = 0;
  }
}

inline void finish_tile(const Attention& p, const TileState& state, int64_t batch, int64_t head, int64_t first,
                        int64_t rows, float* space) {
  float* lse = static_cast<float*>(p.lse.data) + batch * p.lse.batch + head * p.lse.head;
  float* const share = state.top;  // not needed any more
  for (int64_t i = 0; i < kTile; i++) {
    double offset = state.offset[i], total = state.sum[i], rescale = 1;
    if (p.sinks) {  // one more logit, with no value
      const double sink = double(p.sinks[head]) * kLog2EWide, top = sink > offset ? sink : offset;
      rescale = __builtin_exp2(offset - top);
      total = total * rescale + __builtin_exp2(sink - top);
      offset = top;
    }
    share[i] = total == 0 ? 0 : float(rescale / total);  // NaN passes through
    if (i < rows) lse[(first + i) * p.lse.row] = total == 0 ? -kInfinity : float(offset * kLn2 + __builtin_log(total));
  }
  unpack_lanes(state.out, kTile, rows, p.value_width, share, p.out, p.dtype, batch, head, first, space);
}

void forward(const Attention& p, int64_t batch, int64_t head, int64_t first, int64_t rows, float* scratch) {
  const int64_t kv_head = head / (p.heads / p.kv_heads), tiles = (rows + kTile - 1) / kTile;
  float* const logits = scratch + tiles * tile_floats(p);
  float* const space = logits + kKeyBlock * kTile;
  float* const key_space = space + kKeyBlock * kTile;
  float* const value_space = key_space + kKeyBlock * p.width;
  float* const row_space = value_space + kKeyBlock * p.value_width;
  const Multiplier m = multiplier_of(p);

  for (int64_t t = 0; t < tiles; t++)
    start_tile(p, tile_at(p, scratch, t), batch, head, first + t * kTile, smaller(kTile, rows - t * kTile), m,
               row_space);

  const Span all = span_of(p, first, rows);
  for (int64_t start = all.first; start < all.last; start += kKeyBlock) {
    const int64_t stop = smaller(start + kKeyBlock, all.last);
    const Rows keys =
        rows_as_float(p.key, p.dtype, batch, kv_head, start, stop - start, p.width, key_space);
    const Rows values =
        rows_as_float(p.value, p.dtype, batch, kv_head, start, stop - start, p.value_width, value_space);
    for (int64_t t = 0; t < tiles; t++) {
      const int64_t row = first + t * kTile;
      const Span here = span_of(p, row, smaller(kTile, rows - t * kTile));
      const int64_t from = larger(start, here.first), n = smaller(stop, here.last) - from;
      if (n <= 0) continue;
      const Place at = {batch, head, row, smaller(kTile, rows - t * kTile), from, n};
      const State mask = mask_state(p, at);
      if (mask == kEmpty) continue;
      const TileState state = tile_at(p, scratch, t);
      const float* const k = keys.data + (from - start) * keys.stride;
      const float* const v = values.data + (from - start) * values.stride;
      product<kAlong>(n, k, keys.stride, state.query, kTile, p.width, Set{logits, kTile});
      change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
      Vec alpha[2];
      softmax_block(state, m.slope, n, logits, alpha);
      drop(p, at, logits, kTile, kTile);
      product<kAcross>(p.value_width, v, values.stride, logits, kTile, n,
                       Rescale{state.out, kTile, alpha[0], alpha[1]});
    }
  }
  for (int64_t t = 0; t < tiles; t++)
    finish_tile(p, tile_at(p, scratch, t), batch, head, first + t * kTile, smaller(kTile, rows - t * kTile),
                row_space);
}

}  // namespace
}  // namespace clearhead
