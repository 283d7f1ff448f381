// Second pass, over rows whose log-sum-exp is known: statistics of the rows and columns of the weights, which are not
// stored. Queries are in the lanes, so row statistics work lane by lane. Column sums are added lane by lane over the
// tiles of a run of queries, and across the lanes once per block of keys.
#pragma once
#include "vector/best.h"
#include "passes/sweep_keys.h"

namespace clearhead {
namespace {

constexpr int64_t kSweepRows = 128;  // queries that use a block of keys while it is in cache
static_assert(kSweepRows % kTile == 0, "a run of queries is whole tiles");
constexpr int64_t kColumnFloats = (kSweepKeys + LANES - 1) / LANES * LANES * LANES;  // [key][LANES]

// What one tile of queries keeps from block to block; every array except the query is [kTile].
struct SweepTile {
  float* query;     // packed as SweepReals or SweepTiles packs it
  float* lse;       // in units of log2; +inf in an empty row and in a lane past the end, whose weights are then 0
  float *entropy, *highest, *squares, *mass;  // highest: of the logits, before the multiplication by `slope`
  float *reached, *mean, *moment;             // distance: mass so far, its mean, its second moment around the mean
  Best best;
};

inline int64_t sweep_tile_floats(const Attention& p, const Statistics& s) {
  return query_floats(p) + 8 * kTile + best_numbers(s.top);
}

inline SweepTile sweep_tile(const Attention& p, const Statistics& s, float* scratch, int64_t tile) {
  float* at = scratch + tile * sweep_tile_floats(p, s);
  SweepTile t;
  t.query = at;
  at += query_floats(p);
  const auto take = [&at](int64_t n) { float* here = at; at += n * kTile; return here; };
  t.lse = take(1);
  t.entropy = take(1);
  t.highest = take(1);
  t.squares = take(1);
  t.mass = take(1);
  t.reached = take(1);
  t.mean = take(1);
  t.moment = take(1);
  t.best = best_at(at, s.top);
  return t;
}

size_t statistics_scratch(const Attention& p, const Statistics& s) {
  return kSweepRows / kTile * sweep_tile_floats(p, s) + 2 * kSweepKeys * kTile + kColumnFloats + key_floats(p) +
         transpose_scratch(round_up(p.width, kTile));
}

// What one head and run of queries sums separately: [keys] column sums, then the cells of the map.
size_t statistics_sums(const Attention& p, const Statistics& s) {
  return (s.received ? p.keys : 0) + (s.map ? s.cells_down * s.cells_across : 0);
}

inline void add_to(float* sum, Vec x) { store(sum, load(sum) + x); }

// Replace logits by weights, and nothing else.
inline void weights_of_block(const SweepTile& t, float slope, int64_t keys, float* logits) {
  const Vec c = splat(slope), lse[2] = {load(t.lse), load(t.lse + LANES)};
  for (int64_t j = 0; j < keys; j++)
    UNROLL for (int v = 0; v < 2; v++) {
      float* const at = logits + j * kTile + v * LANES;
      store(at, exp2(load(at) * c - lse[v]));
    }
}

// Replace logits by weights, and update the sums over each row.
inline void weigh_block(const SweepTile& t, float slope, int64_t keys, float* logits) {
  const Vec c = splat(slope);
  for (int v = 0; v < 2; v++) {
    float* const x = logits + v * LANES;
    const Vec lse = load(t.lse + v * LANES);
    Vec highest = load(t.highest + v * LANES), entropy = {}, squares = {}, mass = {};
    for (int64_t j = 0; j < keys; j++) {
      const Vec logit = load(x + j * kTile);
      highest = maximum(logit, highest);
      const Vec surprise = maximum(splat(-127.0f), logit * c - lse);  // finite, so that 0 times it is 0
      const Vec weight = exp2(surprise);
      entropy -= weight * surprise;
      squares += weight * weight;
      mass += weight;
      store(x + j * kTile, weight);
    }
    store(t.highest + v * LANES, highest);
    add_to(t.entropy + v * LANES, entropy);
    add_to(t.squares + v * LANES, squares);
    add_to(t.mass + v * LANES, mass);
  }
}

// Mean and second moment of the distance |query + offset - key|, combined block by block (Chan, Golub & LeVeque 1983).
// Within a block distances are counted from its middle: small integers, which lose no digit.
inline void distance_of_block(const SweepTile& t, int64_t difference, int64_t keys, const float* weights) {
  const Vec nothing = {};
  const auto size = [&nothing](Vec x) { return x < nothing ? -x : x; };
  for (int v = 0; v < 2; v++) {
    const float* const x = weights + v * LANES;
    const Vec from = __builtin_convertvector(lane_numbers() + splat_int(int32_t(difference + v * LANES)), Vec);
    const Vec middle = size(from - splat(float(keys / 2)));
    Vec mass = {}, sum = {}, moment = {};
    for (int64_t j = 0; j < keys; j++) {
      const Vec weight = load(x + j * kTile);
      mass += weight;
      sum += weight * (size(from - splat(float(j))) - middle);
    }
    const Vec mean = mass > nothing ? sum / mass : nothing;
    for (int64_t j = 0; j < keys; j++) {
      const Vec around = size(from - splat(float(j))) - middle - mean;
      moment += load(x + j * kTile) * (around * around);
    }
    const Vec before = load(t.reached + v * LANES), all = before + mass;
    const Vec share = mass > nothing ? mass / all : nothing;
    const Vec step = middle + mean - load(t.mean + v * LANES);
    store(t.reached + v * LANES, all);
    add_to(t.mean + v * LANES, step * share);
    add_to(t.moment + v * LANES, moment + step * step * (before * share));
  }
}

// Add the weights of key j to column[j][LANES], lane by lane.
inline void add_columns(int64_t keys, const float* weights, float* column) {
  for (int64_t j = 0; j < keys; j++)
    add_to(column + j * LANES, load(weights + j * kTile) + load(weights + j * kTile + LANES));
}

// The same from logits, without storing the weights.
template <class Keys>
inline void weigh_columns(const SweepTile& t, float slope, int64_t keys, const float* logits, float* column) {
  const Vec c = splat(slope), lse[2] = {load(t.lse), load(t.lse + LANES)};
  int64_t j = 0;
  for (; j + 2 <= keys; j += 2) {
    Vec x[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] = load(logits + j * kTile + i * LANES) * c - lse[i & 1];
    Keys::exp2(x);
    add_to(column + j * LANES, x[0] + x[1]);
    add_to(column + (j + 1) * LANES, x[2] + x[3]);
    if (j == kSweepKeys / 2) Keys::between();
  }
  if (j == keys) return;
  Vec x[2];
  UNROLL for (int v = 0; v < 2; v++) x[v] = load(logits + j * kTile + v * LANES) * c - lse[v];
  Keys::exp2(x);
  add_to(column + j * LANES, x[0] + x[1]);
}

// Add the lanes of column[j][LANES] to sums[j]. Up to LANES keys past the last are read and ignored.
inline void add_lanes(int64_t keys, const float* column, float* sums) {
  for (int64_t j = 0; j < keys; j += LANES) {
    Vec v[LANES], total = {};
    UNROLL for (int i = 0; i < LANES; i++) v[i] = load(column + (j + i) * LANES);
    transpose(v);
    UNROLL for (int i = 0; i < LANES; i++) total += v[i];
    for (int64_t i = 0; i < LANES && j + i < keys; i++) sums[j + i] += total[i];
  }
}

// The first cell that ends after `place`; cells are in order.
inline int64_t cell_behind(const int64_t* edges, int64_t cells, int64_t place) {
  int64_t low = 0, high = cells;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (edges[2 * middle + 1] > place) high = middle;
    else low = middle + 1;
  }
  return low;
}

// Add a block of weights to the cells of the map that it overlaps.
inline void pool_block(const Statistics& s, const Place& at, const float* weights, float* map) {
  const int64_t down = cell_behind(s.row_edges, s.cells_down, at.row);
  const int64_t stop = at.key + at.keys, below = at.row + at.rows;
  for (int64_t c = cell_behind(s.key_edges, s.cells_across, at.key); c < s.cells_across; c++) {
    const int64_t first = larger(s.key_edges[2 * c], at.key) - at.key;
    const int64_t last = smaller(s.key_edges[2 * c + 1], stop) - at.key;
    if (s.key_edges[2 * c] >= stop) break;
    Vec cell[2] = {};
    UNROLL for (int v = 0; v < 2; v++)
      for (int64_t j = first; j < last; j++) {
        const Vec weight = load(weights + j * kTile + v * LANES);
        cell[v] = s.by_maximum ? maximum(weight, cell[v]) : cell[v] + weight;
      }
    float lanes[kTile];
    UNROLL for (int v = 0; v < 2; v++) store(lanes + v * LANES, cell[v]);
    for (int64_t r = down; r < s.cells_down && s.row_edges[2 * r] < below; r++) {
      const int64_t from = larger(s.row_edges[2 * r], at.row) - at.row;
      const int64_t to = smaller(s.row_edges[2 * r + 1], below) - at.row;
      float& here = map[r * s.cells_across + c];
      float all = 0;
      if (s.by_maximum) for (int64_t i = from; i < to; i++) all = lanes[i] > all ? lanes[i] : all;
      else for (int64_t i = from; i < to; i++) all += lanes[i];
      here = !s.by_maximum ? here + all : all > here ? all : here;
    }
  }
}

template <class Keys>
inline void start_sweep(const Attention& p, const SweepTile& t, const Place& at, float on_query, float* space) {
  Keys::pack(p, at, on_query, t.query, space);
  __builtin_memset(t.entropy, 0, sizeof(float) * 7 * kTile);  // up to and including `moment`
  for (int64_t i = 0; i < kTile; i++) {
    const float here = i < at.rows ? float(lse_at(p, at.batch, at.head, at.row + i)) : -kInfinity;
    t.lse[i] = here == -kInfinity ? kInfinity : here * kLog2E;
    t.highest[i] = -kInfinity;
  }
  start_best(t.best);
}

inline void finish_sweep(const Attention& p, const Statistics& s, const SweepTile& t, const Place& at, float slope) {
  if (s.top) weigh_best(t.best, slope, {load(t.lse), load(t.lse + LANES)});
  for (int64_t i = 0; i < at.rows; i++) {
    const int64_t row = (at.batch * p.heads + at.head) * p.length + at.row + i;
    if (s.entropy) s.entropy[row] = t.entropy[i] * float(kLn2);
    if (s.maximum) s.maximum[row] = weight_of(t.highest[i], slope, t.lse[i]);
    if (s.squares) s.squares[row] = t.squares[i];
    if (s.mass) s.mass[row] = t.mass[i];
    if (s.distance) s.distance[row] = t.mean[i] * t.reached[i];
    if (s.spread) s.spread[row] = t.reached[i] > 0 ? __builtin_sqrtf(t.moment[i] / t.reached[i]) : 0;
    if (s.top) store_best(s, t.best, i, row);
  }
}

// Store the statistics of queries first .. last - 1 of one head; add column sums and cells to `sums`, statistics_sums()
// floats.
template <class Keys>
inline void statistics_in(const Attention& p, const Statistics& s, int64_t batch, int64_t head, int64_t first,
                          int64_t last, float* sums, float* scratch) {
  float* const logits = scratch + kSweepRows / kTile * sweep_tile_floats(p, s);
  float* const space = logits + kSweepKeys * kTile;
  float* const column = space + kSweepKeys * kTile;
  float* const key_space = column + kColumnFloats;
  float* const row_space = key_space + key_floats(p);
  float* const map = sums + (s.received ? p.keys : 0);
  const Multiplier m = multiplier_of(p, head);
  const int64_t kv_head = head / (p.heads / p.kv_heads);
  const bool summed = s.entropy || s.maximum || s.squares || s.mass;
  const bool weighed = s.distance || s.spread || s.received || s.map;
  const bool only_columns = s.received && !(summed || s.distance || s.spread || s.map);
  const typename Keys::Use in_use;

  for (int64_t start = first; start < last; start += kSweepRows) {
    const int64_t rows = smaller(kSweepRows, last - start), tiles = (rows + kTile - 1) / kTile;
    const auto place = [&](int64_t t) {
      return Place{batch, head, start + t * kTile, smaller(kTile, rows - t * kTile), 0, 0};
    };
    for (int64_t t = 0; t < tiles; t++)
      start_sweep<Keys>(p, sweep_tile(p, s, scratch, t), place(t), m.on_query, row_space);
    const Span all = span_of(p, start, rows);
    const int64_t first_key = larger(all.first, s.first_key), last_key = smaller(all.last, s.last_key);
    for (int64_t key = first_key; key < last_key; key += kSweepKeys) {
      const int64_t n = smaller(kSweepKeys, last_key - key);
      const Keys keys(p, batch, kv_head, key, n, key_space);
      if (s.received) __builtin_memset(column, 0, sizeof(float) * kSweepKeys * LANES);
      for (int64_t t = 0; t < tiles; t++) {
        const SweepTile tile = sweep_tile(p, s, scratch, t);
        Place at = place(t);
        const Span here = span_of(p, at.row, at.rows);
        at.key = key + larger(0, here.first - key) / Keys::kStep * Keys::kStep;
        at.keys = smaller(key + n, here.last) - at.key;
        if (at.keys <= 0) continue;
        const State mask = trim(p, &at, Keys::kStep);
        if (mask == kEmpty) continue;
        const auto add_weights = [&](int64_t j, int64_t keys_here) {
          weigh_columns<Keys>(tile, m.slope, keys_here, logits + j * kTile, column + (at.key - key + j) * LANES);
        };
        if (only_columns && mask == kFull && !has_change(p) && inside_band(p, at.row, kTile, at.key, at.keys)) {
          keys.logits_by_block(p, tile.query, at.key - key, at.keys, logits, add_weights);
          continue;
        }
        keys.logits(p, tile.query, at.key - key, at.keys, logits);
        change_logits(p, at, m, mask, logits, kTile, kTile, nullptr, space);
        if (s.top) best_of_block(tile.best, at.key, at.keys, logits);
        if (only_columns) {
          add_weights(0, at.keys);
          continue;
        }
        if (summed) weigh_block(tile, m.slope, at.keys, logits);
        else if (weighed) weights_of_block(tile, m.slope, at.keys, logits);
        if (s.distance || s.spread) distance_of_block(tile, at.row + s.offset - at.key, at.keys, logits);
        if (s.received) add_columns(at.keys, logits, column + (at.key - key) * LANES);
        if (s.map) pool_block(s, at, logits, map);
      }
      if (s.received) add_lanes(n, column, sums + key);
    }
    for (int64_t t = 0; t < tiles; t++) finish_sweep(p, s, sweep_tile(p, s, scratch, t), place(t), m.slope);
  }
}

void statistics(const Attention& p, const Statistics& s, int64_t batch, int64_t head, int64_t first, int64_t last,
                float* sums, float* scratch) {
#ifdef TILES
  if (sweeps_on_tiles(p)) return statistics_in<SweepTiles>(p, s, batch, head, first, last, sums, scratch);
#elif defined(PAIRS)
  if (p.dtype == kBFloat16) return statistics_in<SweepPairs>(p, s, batch, head, first, last, sums, scratch);
#endif
  statistics_in<SweepReals>(p, s, batch, head, first, last, sums, scratch);
}

}  // namespace
}  // namespace clearhead
