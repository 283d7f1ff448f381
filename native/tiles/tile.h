// One tile of queries against all keys, on tile registers, block by block of 64 keys: logits, softmax, output. Where
// logits are plain products, the tile instructions of one half of a block are issued before the exponentials of the
// other half, so that both run at once: 10 to 15 % faster at width 64, no gain at 128 (bench/LOG.md). Sums are added in
// the same order, so the bits are the same.
#pragma once
#include "tiles/round.h"
#include "tiles/space.h"

namespace clearhead {
namespace {

// The offset is raised only where a weight would exceed 2^8, so that the output is rarely rescaled. Weights of up to 2^8
// lose no precision in float32 sums or bfloat16 numbers.
constexpr float kGrowth = 8;

// What a tile computes besides its output: nothing; entropy, maximum, mass and the largest weights; or also all other
// statistics, and dropout.
enum Extra { kNoStatistics, kUsualStatistics, kEverything };

inline Extra extra_of(const Attention& p, const Statistics* s) {
  return p.dropout_p != 0 || (s && s->squares) ? kEverything : s ? kUsualStatistics : kNoStatistics;
}

// One tile of queries against all keys, for numbers of N pieces. KS and DB: how many blocks of 32 columns keys and values
// have, or 0 where that is not known at compile time.
template <int N, int KS, int DB, Extra kExtra>
class TileRun {
 public:
  TileRun(const Attention& p, const Statistics* s, const TiledKeys& tiled, const TileSpace& t, const Place& tile)
      : p_(p), s_(s), tiled_(tiled), t_(t), m_(multiplier_of(p, tile.head)), tile_(tile),
        wants_entropy_(s && s->entropy), wants_squares_(s && s->squares), drop_below_(drop_below(p) - VecU{}),
        products_alone_(!has_change(p) && !p.allow.data && (t.window || !(s && s->top))), keep_factor_(splat(keep_factor(p))),
        window_(t.window), logits_(t.logits) {
    const uint32_t word = dropout_word(p, tile.batch, tile.head) + uint32_t(p.first_query + tile.row);
    for (int v = 0; v < 2; v++) {
      now_.offset[v] = splat(kNothing * m_.slope);
      now_.top[v] = splat(-kInfinity);
      row_bits_[v] = mix((VecU)lane_numbers() + (word + uint32_t(v * LANES)));
    }
  }

  // Store in the tile's state the output [column][kTile], not yet divided by the sums, and the sums.
  void run() {
    KeyBlocks blocks(p_, tile_.batch, tile_.head, tile_.row, tile_.rows);
    Place at;
    State mask;
    AllowedKeys allowed;
    while (blocks.next(&at, &mask, &allowed)) {
      if constexpr (kOverlaps) {
        if (products_alone_ && is_whole(at.key, at.keys)) {
          const bool more = blocks.whole_left() && is_whole(at.key + kRunKeys, kRunKeys) && !window_.closes();
          if (kExtra != kNoStatistics && wants_entropy_) overlapped_block<true>(at.key, more);
          else overlapped_block<false>(at.key, more);
          continue;
        }
        finish_values();
      }
      if (at.keys > kBlock) block<2>(at, mask, allowed);
      else block<1>(at, mask, allowed);
      fresh_ = false;
    }
    if constexpr (kOverlaps) finish_values();
    if (kExtra != kNoStatistics && t_.window) window_.flush();
    if (fresh_) __builtin_memset(t_.state.out, 0, value_columns(p_) * kTile * sizeof(float));
    leave();
  }

 private:
  // Lane by lane: the offset, and the sums of weights before and after rounding, and of those that dropout keeps.
  struct Running {
    Vec offset[2], exact[2] = {}, rounded[2] = {}, kept[2] = {};
    Vec top[2], surprise[2] = {}, squares[2] = {};
  };

  int key_steps() const { return KS ? KS : int(key_columns(p_) / kBlock); }
  int value_steps() const { return DB ? DB : int(value_columns(p_) / kBlock); }
  int64_t key_row() const { return KS ? KS * kBlock : key_columns(p_); }
  int64_t value_row() const { return DB ? DB * kBlock : value_columns(p_); }

  template <int steps>  // of kBlock keys
  inline __attribute__((always_inline)) void block(const Place& at, State mask, const AllowedKeys& allowed) {
    if (kExtra != kNoStatistics && t_.window) logits_ = window_.next_block();
    UNROLL for (int i = 0; i < steps; i++) multiply_keys(at.key, i);
    change(at, mask, allowed, steps);
    raise<steps>();
    if (kExtra != kNoStatistics && wants_entropy_) weigh<steps, true>(at.key);
    else weigh<steps, false>(at.key);
    for (int d = 0; d < value_steps(); d++) multiply_values<steps>(at.key, d);
    if (kExtra != kNoStatistics && t_.window) window_.close_block(at.key);
  }

  inline __attribute__((always_inline)) void multiply_keys(int64_t key, int i) const {
    const uint16_t* const keys = tiled_.keys_at(key + i * kBlock);
    const uint32_t* const queries = reinterpret_cast<const uint32_t*>(t_.state.query);
    zero_sums();
    each_product<N>([&](int a, int b) __attribute__((always_inline)) {
      const uint16_t* const rows = keys + a * kBlock * key_row();
      const uint32_t* const lanes = queries + b * kTileRows * key_row();
      for (int c = 0; c < key_steps(); c++)
        add_products(rows + c * kBlock, rows + c * kBlock + kTileRows * key_row(), key_row() * 2,
                     lanes + c * 2 * kTileNumbers);
    });
    store_sums(logits_ + i * kBlockNumbers);
  }

  // Add to the output's columns from 32 d on. With three pieces the products are summed separately, small ones first,
  // and then added: added directly to a large sum they would lose more than float32 does.
  template <int steps>
  inline __attribute__((always_inline)) void multiply_values(int64_t key, int d) const {
    float* const out = t_.state.out + d * kBlockNumbers;
    const bool separate = N == kMostPieces && !fresh_;
    if (fresh_ || separate) zero_sums();
    else load_sums(out);
    each_product<N>([&](int a, int b) __attribute__((always_inline)) {
      UNROLL for (int i = 0; i < steps; i++) {
        const uint16_t* const rows = tiled_.values_at(key + i * kBlock) + (a * value_row() + d * kBlock) * kBlock;
        const uint32_t* const lanes = t_.weights + (i * kTileRows * N + b) * kTile;
        add_products(rows, rows + kTileRows * kBlock, 64, lanes, lanes + LANES, N * kTile * 4);
      }
    });
    store_sums(separate ? t_.space : out);
    if (separate)
      for (int i = 0; i < kBlockNumbers; i += LANES) store(out + i, load(out + i) + load(t_.space + i));
  }

  // Apply bias, cap, mask and band to the logits; rows without a key become -inf.
  void change(const Place& at, State mask, const AllowedKeys& allowed, int steps) const {
    float* const x = logits_;
    const bool adds_bias = adds_rows_of_bias(p_);
    if (adds_bias) scale_and_add(p_, at, m_.on_logits, x, keep_multiplying);
    else if (has_change(p_)) change_logits(p_, at, m_, kFull, x, kTile, kTile, nullptr, t_.space);
    if (mask == kMixed) allowed.close(at, x);
    if ((adds_bias || !has_change(p_)) && !inside_band(p_, at.row, kTile, at.key, at.keys))
      cut_to_band(p_, at.row, at.key, at.keys, x, kTile, kTile);
    if (mask == kMixed || has_change(p_)) keep_multiplying();
    for (int64_t i = at.keys * kTile; i < steps * kBlockNumbers; i += LANES) store(x + i, splat(-kInfinity));
    if (kExtra != kNoStatistics && s_ && s_->top && !t_.window) best_of_block(t_.extra.best, at.key, at.keys, x);
  }

  template <int steps>
  inline __attribute__((always_inline)) void highest(const float* x, Vec (&top)[2]) const {
    Vec even[2] = {load(x), load(x + LANES)}, odd[2] = {load(x + kTile), load(x + kTile + LANES)};
    for (int64_t j = 2; j < steps * kBlock; j += 2)
      UNROLL for (int v = 0; v < 2; v++) {
        even[v] = maximum(load(x + j * kTile + v * LANES), even[v]);
        odd[v] = maximum(load(x + (j + 1) * kTile + v * LANES), odd[v]);
      }
    UNROLL for (int v = 0; v < 2; v++) top[v] = maximum(odd[v], even[v]);
  }

  // Raise the offset to the maximum, if kGrowth is exceeded.
  template <int steps>
  inline __attribute__((always_inline)) void raise() {
    Vec top[2];
    if (kExtra != kNoStatistics && t_.window) window_.take_highest(steps * kBlock, top);
    else highest<steps>(logits_, top);
    raise_above(top);
  }

  inline __attribute__((always_inline)) void raise_above(Vec (&top)[2]) {
    UNROLL for (int v = 0; v < 2; v++) {
      if (kExtra != kNoStatistics) now_.top[v] = maximum(top[v], now_.top[v]);
      top[v] = top[v] * splat(m_.slope);
    }
    if (any((top[0] - now_.offset[0] > splat(kGrowth)) | (top[1] - now_.offset[1] > splat(kGrowth)))) raise_to(top);
  }

  __attribute__((noinline)) void raise_to(const Vec (&top)[2]) {
    if constexpr (kOverlaps) finish_values();  // their weights are relative to the old offset
    Vec alpha[2];
    for (int v = 0; v < 2; v++) {
      const Vec now = maximum(top[v], now_.offset[v]), further = now - now_.offset[v];
      alpha[v] = exp2(-further);
      now_.offset[v] = now;
      if (kExtra != kNoStatistics) {
        const Vec moved = alpha[v] * (now_.surprise[v] + further * now_.exact[v]);
        now_.surprise[v] = now_.exact[v] > Vec{} ? moved : Vec{};
        now_.squares[v] *= alpha[v] * alpha[v];
        now_.kept[v] *= alpha[v];
      }
      now_.exact[v] *= alpha[v];
      now_.rounded[v] *= alpha[v];
    }
    for (int64_t c = 0; !fresh_ && c < value_steps() * kBlock; c++)
      for (int v = 0; v < 2; v++) {
        float* const at = t_.state.out + c * kTile + v * LANES;
        store(at, load(at) * alpha[v]);
      }
  }

  static constexpr bool kOverlaps = N == 1 && KS == 2 && DB == 2 && kExtra != kEverything;

  bool is_whole(int64_t key, int64_t keys) const {
    return keys == kRunKeys && inside_band(p_, tile_.row, kTile, key, keys);
  }

  // Start the logits of half a block. They are stored some exponentials later, when the products are done.
  inline __attribute__((always_inline)) void start_logits(int64_t key, int half) const {
    const uint16_t* const rows = tiled_.keys_at(key + half * kBlock);
    const uint32_t* const lanes = reinterpret_cast<const uint32_t*>(t_.state.query);
    zero_sums();
    UNROLL for (int c = 0; c < KS; c++)
      add_products(rows + c * kBlock, rows + c * kBlock + kTileRows * key_row(), key_row() * 2,
                   lanes + c * 2 * kTileNumbers);
  }

  // Start adding half a block to the output's columns from 32 d on.
  inline __attribute__((always_inline)) void start_output(int64_t key, int half, int d) const {
    if (fresh_) zero_sums();
    else load_sums(t_.state.out + d * kBlockNumbers);
    const uint16_t* const rows = tiled_.values_at(key + half * kBlock) + d * kBlock * kBlock;
    const uint32_t* const lanes = t_.weights + half * kTileRows * kTile;
    add_products(rows, rows + kTileRows * kBlock, 64, lanes, lanes + LANES, kTile * 4);
  }
  inline __attribute__((always_inline)) void store_output(int d) const {
    store_sums(t_.state.out + d * kBlockNumbers);
  }

  // Finish the previous block's values, which the next block otherwise multiplies while it computes its weights.
  __attribute__((noinline)) void finish_values() {
    for (int d = 0; waiting_ >= 0 && d < DB; d++) {
      start_output(waiting_, 1, d);
      store_output(d);
    }
    waiting_ = -1;
  }

  // `more`: whether the next kRunKeys keys are a whole block too.
  template <bool kEntropy>
  inline __attribute__((always_inline)) void overlapped_block(int64_t key, bool more) {
    const bool in_window = kExtra != kNoStatistics && t_.window;
    if (in_window) logits_ = window_.next_block();
    if (!has_first_half_) {
      start_logits(key, 0);
      store_sums(logits_);
    }
    Vec first[2], top[2];
    start_logits(key, 1);
    if (!in_window) highest<1>(logits_, first);
    store_sums(logits_ + kBlockNumbers);
    if (in_window) {
      window_.take_highest(kRunKeys, top);
    } else {
      highest<1>(logits_ + kBlockNumbers, top);
      UNROLL for (int v = 0; v < 2; v++) top[v] = maximum(top[v], first[v]);
    }
    raise_above(top);
    const char* const keys = reinterpret_cast<const char*>(tiled_.keys_at(key + kRunKeys));
    const char* const values = reinterpret_cast<const char*>(tiled_.values_at(key));
    Running now = now_;  // in registers
    const auto weigh_pairs = [&](int from, int to) __attribute__((always_inline)) {
      for (int slot = from; slot < to; slot++) {
        weigh_pair<kEntropy>(now, logits_ + 2 * slot * kTile, key + 2 * slot, t_.weights + slot * N * kTile);
        prefetch(keys, values, slot);
      }
    };
    for (int d = 0; d < DB; d++) {
      if (waiting_ >= 0) start_output(waiting_, 1, d);
      weigh_pairs(d * 8, d * 8 + 7);
      if (waiting_ >= 0) store_output(d);
      weigh_pairs(d * 8 + 7, d * 8 + 8);
    }
    for (int d = 0; d < DB; d++) {
      start_output(key, 0, d);
      weigh_pairs(16 + d * 4, 20 + d * 4);
      store_output(d);
    }
    if (more) start_logits(key + kRunKeys, 0);
    weigh_pairs(24, 32);
    if (more) store_sums(in_window ? logits_ + 2 * kBlockNumbers : logits_);  // the first half has its weights
    if (in_window) window_.close_block(key);
    now_ = now;
    waiting_ = key;
    has_first_half_ = more;
    fresh_ = false;
  }

  // Turn logits into pairs of weights, and add them to the sums.
  template <int steps, bool kEntropy>
  inline __attribute__((always_inline)) void weigh(int64_t key) {
    const char* const keys = reinterpret_cast<const char*>(tiled_.keys_at(key + kRunKeys));
    const char* const values = reinterpret_cast<const char*>(tiled_.values_at(key));
    Running now = now_;  // in registers
    for (int slot = 0; slot < steps * kTileRows; slot++) {
      if (kEntropy && slot == kTileRows) keep_multiplying();
      weigh_pair<kEntropy>(now, logits_ + 2 * slot * kTile, key + 2 * slot, t_.weights + slot * N * kTile);
      if (N == 1 && KS <= 2) prefetch(keys, values, slot);  // wider rows would evict data in use
    }
    now_ = now;
  }

  // Prefetch the next block's keys and this block's values, a part for each pair of keys.
  static inline __attribute__((always_inline)) void prefetch(const char* keys, const char* values, int slot) {
    UNROLL for (int i = 0; i < 2 * KS; i++) __builtin_prefetch(keys + (slot * 2 * KS + i) * 64);
    UNROLL for (int i = 0; i < 2 * DB; i++) __builtin_prefetch(values + (slot * 2 * DB + i) * 64);
  }

  template <bool kEntropy>
  inline __attribute__((always_inline)) void weigh_pair(Running& now, const float* logits, int64_t key,
                                                        uint32_t* pairs) const {
    Vec x[4], power[4];
    UNROLL for (int i = 0; i < 4; i++) {
      x[i] = load(logits + i * LANES) * splat(m_.slope) - now.offset[i & 1];
      if (kEntropy) power[i] = x[i] = maximum(splat(-kExponents), x[i]);  // finite, so that 0 times it is 0
    }
    exp2_for_pieces<N>(x);
    UNROLL for (int v = 0; v < 2; v++) {
      now.exact[v] += x[v] + x[v + 2];
      if (kEntropy) {
        now.surprise[v] -= x[v] * power[v];
        now.surprise[v] -= x[v + 2] * power[v + 2];
      }
      if (kExtra == kEverything) {
        if (wants_squares_) now.squares[v] += x[v] * x[v] + x[v + 2] * x[v + 2];
        if (p_.dropout_p != 0) {
          x[v] = kept(x[v], v, key);
          x[v + 2] = kept(x[v + 2], v, key + 1);
          now.kept[v] += x[v] + x[v + 2];
        }
      }
      UNROLL for (int k = 0; k < N; k++) {  // if a weight is NaN its row's sum is NaN in any case
        const VecU first = take_piece(x[v]), second = take_piece(x[v + 2]);
        if (N == 1) now.rounded[v] += (Vec)first + (Vec)second;
        store_pairs(pairs + k * kTile + v * LANES, first >> 16 | second);
      }
    }
  }

  // Dropout, as drop() in logits.h.
  inline __attribute__((always_inline)) Vec kept(Vec x, int v, int64_t key) const {
    const VecU bits = mix(row_bits_[v] ^ mix(uint32_t(p_.first_key + key)));
    return bits < drop_below_ ? Vec{} : x * keep_factor_;
  }

  void leave() const {
    for (int v = 0; v < 2; v++) {
      const auto keep = [v](float* to, Vec x) { store(to + v * LANES, x); };
      keep(t_.state.offset, now_.offset[v]);
      keep(t_.state.sum, now_.exact[v]);
      const Vec exact = kExtra == kEverything && p_.dropout_p != 0 ? now_.kept[v] : now_.exact[v];
      keep(t_.state.exact, exact);
      keep(t_.state.rounded, N == 1 ? now_.rounded[v] : exact);
      if (kExtra == kNoStatistics || !s_) continue;
      keep(t_.state.top, now_.top[v]);
      keep(t_.extra.surprise, now_.surprise[v]);
      keep(t_.extra.squares, now_.squares[v]);
      keep(t_.extra.peak, exp2(now_.top[v] * splat(m_.slope) - now_.offset[v]));
    }
  }

  const Attention& p_;
  const Statistics* const s_;
  const TiledKeys& tiled_;
  const TileSpace& t_;
  const Multiplier m_;
  const Place tile_;
  const bool wants_entropy_, wants_squares_;
  const VecU drop_below_;
  const bool products_alone_;  // the logits are plain products
  const Vec keep_factor_;
  Running now_;
  VecU row_bits_[2];
  Window window_;
  float* logits_;  // of the current block
  int64_t waiting_ = -1;         // the block whose second half has weights but is not yet added to the output
  bool has_first_half_ = false;  // the first half of the next block's logits is stored
  bool fresh_ = true;  // the output has no numbers yet
};

}  // namespace
}  // namespace clearhead
