// One tile of queries against all keys, on tile registers: 32 keys by 32 queries at a time. The exponentials take longer
// than both products, so tile instructions are issued between them: while those of one block of keys go on, the logits of
// the next are multiplied, and the output of the two blocks before.
#pragma once
#include "tiles/round.h"
#include "passes/forward.h"

namespace clearhead {
namespace {

// The offset is raised where the maximum has grown by more than 2^8, so that the output is seldom rescaled. Weights are
// up to 2^8 then, of which float32 sums and bfloat16 numbers lose nothing.
constexpr float kGrowth = 8;

constexpr int kSlots = kBlock / 2;  // pairs of keys in a block, between which tile instructions are issued
constexpr int kBlockNumbers = kBlock * kTile;

// Scratch of one tile of queries; 52 KiB at width 64, and what an iteration touches stays in the first cache.
struct TileSpace {
  TileState state;   // state.query: pairs [key_columns / 32][2][16][LANES]
  float* logits[2];  // [32][kTile], of this block of keys and the next
  uint32_t* weights; // pairs [2][2][2][16][LANES]: of this pair of blocks and the last; block; lanes
  float* space;      // [32][kTile]
  uint16_t* rows;    // [32][key_columns]
  Asked asked;
};

inline size_t tile_space_numbers(const Attention& p, const Statistics* s) {
  return (key_columns(p) + value_columns(p)) * kTile + 5 * kTile + 3 * kBlockNumbers + 4 * 2 * kTileNumbers +
         key_columns(p) * kTile / 2 + (s ? asked_numbers(s) + kTile : 0);
}

inline TileSpace tile_space(const Attention& p, const Statistics* s, float* at) {
  const auto take = [&at](int64_t n) { float* const here = at; at += n; return here; };
  TileSpace t;
  t.state.query = take(key_columns(p) * kTile / 2);
  t.rows = reinterpret_cast<uint16_t*>(take(key_columns(p) * kTile / 2));
  t.state.out = take(value_columns(p) * kTile);
  t.logits[0] = take(kBlockNumbers);
  t.logits[1] = take(kBlockNumbers);
  t.weights = reinterpret_cast<uint32_t*>(take(4 * 2 * kTileNumbers));
  t.space = take(kBlockNumbers);
  t.state.top = take(kTile);
  t.state.offset = take(kTile);
  t.state.sum = take(kTile);
  t.state.exact = take(kTile);
  t.state.rounded = take(kTile);
  t.asked = {};
  if (!s) return t;
  t.asked = asked_at(*s, at);
  t.asked.peak = at + asked_numbers(s);
  return t;
}

// The blocks of keys that a tile of queries may attend some of.
class KeyBlocks {
 public:
  KeyBlocks(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t rows)
      : p_(p), at_{batch, head, row, rows, 0, 0}, key_(span_of(p, row, rows).first / kBlock * kBlock),
        last_(span_of(p, row, rows).last) {}

  // The next block and what the mask says of it; false behind the last.
  bool next(Place* at, State* mask) {
    while (key_ < last_) {
      *at = at_;
      at->key = key_;
      at->keys = smaller(kBlock, last_ - key_);
      key_ += kBlock;
      *mask = trim(p_, at, kBlock);
      if (*mask != kEmpty) return true;
    }
    return false;
  }

 private:
  const Attention& p_;
  const Place at_;
  int64_t key_, last_;
};

// One tile of queries against all keys. KS and DB: blocks of 32 columns of keys and of values, where they are known. kMore:
// with statistics, or dropout.
template <int KS, int DB, bool kMore>
class TileRun {
 public:
  TileRun(const Attention& p, const Statistics* s, const TiledKeys& tiled, const TileSpace& t, const Place& tile)
      : p_(p), s_(s), tiled_(tiled), t_(t), m_(multiplier_of(p, tile.head)), blocks_(p, tile.batch, tile.head, tile.row, tile.rows) {
    const uint32_t word = dropout_word(p, tile.batch, tile.head) + uint32_t(p.first_query + tile.row);
    for (int v = 0; v < 2; v++) {
      offset_[v] = splat(kNothing * m_.slope);
      top_[v] = splat(-kInfinity);
      row_bits_[v] = mix((VecU)lane_numbers() + (word + uint32_t(v * LANES)));
    }
  }

  // Leaves the output [column][kTile], not yet divided by the sums, and the sums in the tile's state.
  void run() {
    if (!blocks_.next(&now_, &mask_)) {
      __builtin_memset(t_.state.out, 0, value_columns(p_) * kTile * sizeof(float));
      return leave();
    }
    zero_sums();
    for (int i = 0; i < key_steps(); i++) multiply_keys(now_.key, i);
    store_sums(t_.logits[0]);
    for (;;) {
      stage<0>();
      if (!more_) {
        multiply_values<1>(0, 2);
        finish_pair();
        pair_ ^= 1;
        multiply_all_values(1);
        break;
      }
      advance();
      stage<1>();
      finish_pair();
      pair_ ^= 1;
      if (!more_) {
        multiply_all_values(2);
        break;
      }
      advance();
    }
    leave();
  }

 private:
  int key_steps() const { return KS ? KS : int(key_columns(p_) / kBlock); }
  int value_steps() const { return DB ? DB : int(value_columns(p_) / kBlock); }
  int64_t key_row() const { return KS ? KS * kBlock : key_columns(p_); }

  void advance() {
    now_ = next_;
    mask_ = next_mask_;
  }

  inline __attribute__((always_inline)) void multiply_keys(int64_t key, int step) const {
    const uint16_t* const rows = tiled_.keys_at(key) + step * kBlock;
    add_products(rows, rows + kTileRows * key_row(), key_row() * 2,
                 reinterpret_cast<const uint32_t*>(t_.state.query) + step * 2 * kTileNumbers);
  }

  // Columns 32 * d and on of the last pair's output: its sums so far, the products of one of its blocks, and back.
  inline __attribute__((always_inline)) void load_output(int d) const {
    if (fresh_) zero_sums();
    else load_sums(t_.state.out + d * kBlockNumbers);
  }
  inline __attribute__((always_inline)) void multiply_values(int d, int block) const {
    const uint16_t* const rows = values_[pair_ ^ 1][block] + d * kBlock * kBlock;
    add_products(rows, rows + kTileRows * kBlock, 64, t_.weights + ((pair_ ^ 1) * 2 + block) * 2 * kTileNumbers);
  }
  inline __attribute__((always_inline)) void store_output(int d) const { store_sums(t_.state.out + d * kBlockNumbers); }

  // The last pair's output is multiplied in two halves, one in each stage: this half of its columns, all at once.
  template <int H>
  void multiply_values(int, int blocks) const {
    if (!pending_) return;
    for (int d = value_steps() * H / 2; d < value_steps() * (H + 1) / 2; d++) multiply_columns(d, blocks);
  }
  void multiply_columns(int d, int blocks) const {
    load_output(d);
    for (int block = 0; block < blocks; block++) multiply_values(d, block);
    store_output(d);
  }
  void multiply_all_values(int blocks) const {
    for (int d = 0; d < value_steps(); d++) multiply_columns(d, blocks);
  }

  // The tile instructions of one slot of a stage: a product's sums are stored some slots after its last step.
  template <int H>
  inline __attribute__((always_inline)) void issue(int slot) const {
    if constexpr (KS == 0) {
      if (more_ && slot == 0) {
        zero_sums();
        for (int i = 0; i < key_steps(); i++) multiply_keys(next_.key, i);
      }
      if (more_ && slot == 4) store_sums(t_.logits[1 - H]);
      if (slot == 7) multiply_values<H>(0, 2);
    } else {
      constexpr int apart = KS > 2 ? 1 : 2, stored = (KS - 1) * apart + (KS > 2 ? 2 : 3);
      if (more_) {
        if (slot == 0) zero_sums();
        if (slot % apart == 0 && slot / apart < KS) multiply_keys(next_.key, slot / apart);
        if (slot == stored) store_sums(t_.logits[1 - H]);
      }
      constexpr int first = DB * H / 2, columns = DB * (H + 1) / 2 - first, start = stored + (columns > 1 ? 1 : 2);
      if (!pending_) return;
      UNROLL for (int i = 0; i < columns; i++) {
        const int at = slot - start - 4 * i;
        if (at == 0) load_output(first + i);
        if (at == 0) multiply_values(first + i, 0);
        if (at == (columns > 1 ? 1 : 2)) multiply_values(first + i, 1);
        if (at == (columns > 1 ? 3 : 5)) store_output(first + i);
      }
    }
  }

  // Softmax of the present block's logits, which become pairs of weights.
  template <int H>
  inline __attribute__((always_inline)) void stage() {
    more_ = blocks_.next(&next_, &next_mask_);
    float* const x = t_.logits[H];
    if (has_change(p_) || mask_ == kMixed || !inside_band(p_, now_.row, kTile, now_.key, now_.keys))
      change_logits(p_, now_, m_, mask_, x, kTile, kTile, nullptr, t_.space);
    for (int64_t i = now_.keys * kTile; i < kBlockNumbers; i += LANES) store(x + i, splat(-kInfinity));
    if (kMore && s_ && s_->top) best_of_block(t_.asked.best, now_.key, now_.keys, x);
    raise(x, H);
    values_[pair_][H] = tiled_.values_at(now_.key);
    uint32_t* const pairs = t_.weights + (pair_ * 2 + H) * 2 * kTileNumbers;
    const char* const ahead = reinterpret_cast<const char*>(tiled_.keys_at(next_.key + kBlock));
    const char* const values = reinterpret_cast<const char*>(values_[pair_][H]);
    const auto act = [&](int slot) __attribute__((always_inline)) {
      issue<H>(slot);
      pair_weights(x + 2 * slot * kTile, now_.key + 2 * slot, pairs + slot * LANES);
      UNROLL for (int i = 0; i < 2 * KS; i++) __builtin_prefetch(ahead + (slot * 2 * KS + i) * 64);
      UNROLL for (int i = 0; i < 2 * DB; i++) __builtin_prefetch(values + (slot * 2 * DB + i) * 64);
    };
#ifndef TILE_MODEL  // compiled in half the time
    if constexpr (KS != 0) {
      UNROLL for (int slot = 0; slot < kSlots; slot++) act(slot);
      return;
    }
#endif
    for (int slot = 0; slot < kSlots; slot++) act(slot);
  }

  // The logits of two keys to pairs of weights, and into the sums.
  inline __attribute__((always_inline)) void pair_weights(const float* logits, int64_t key, uint32_t* pairs) {
    Vec x[4], power[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] = load(logits + i * LANES) * splat(m_.slope) - offset_[i & 1];
    if (kMore) UNROLL for (int i = 0; i < 4; i++) power[i] = maximum(splat(-kExponents), x[i]);
    exp2_by(x, kShortPower);
    UNROLL for (int v = 0; v < 2; v++) {
      exact_[v] += x[v] + x[v + 2];
      if (kMore) {
        surprise_[v] -= x[v] * power[v] + x[v + 2] * power[v + 2];
        squares_[v] += x[v] * x[v] + x[v + 2] * x[v + 2];
        if (p_.dropout_p != 0) {
          x[v] = kept(x[v], v, key);
          x[v + 2] = kept(x[v + 2], v, key + 1);
          kept_[v] += x[v] + x[v + 2];
        }
      }
      const VecU first = rounded(x[v]), second = rounded(x[v + 2]);
      rounded_[v] += (Vec)first + (Vec)second;
      store_pairs(pairs + v * kTileNumbers, first >> 16 | second);
    }
  }

  // Dropout, as drop() in logits.h.
  inline __attribute__((always_inline)) Vec kept(Vec x, int v, int64_t key) const {
    const VecU bits = mix(row_bits_[v] ^ mix(uint32_t(p_.first_key + key)));
    return bits < drop_below(p_) - VecU{} ? Vec{} : x * splat(keep_factor(p_));
  }

  // To the nearest bfloat16; a NaN's sum is NaN whatever becomes of it here.
  static inline __attribute__((always_inline)) VecU rounded(Vec x) { return ((VecU)x + 0x8000u) & 0xFFFF0000u; }

  inline __attribute__((always_inline)) void raise(const float* x, int h) {
    Vec even[2] = {load(x), load(x + LANES)}, odd[2] = {load(x + kTile), load(x + kTile + LANES)};
    UNROLL for (int j = 2; j < kBlock; j += 2)
      UNROLL for (int v = 0; v < 2; v++) {
        even[v] = maximum(load(x + j * kTile + v * LANES), even[v]);
        odd[v] = maximum(load(x + (j + 1) * kTile + v * LANES), odd[v]);
      }
    const Vec c = splat(m_.slope);
    Vec top[2];
    UNROLL for (int v = 0; v < 2; v++) {
      top[v] = maximum(odd[v], even[v]);
      if (kMore) top_[v] = maximum(top[v], top_[v]);
      top[v] = top[v] * c;
    }
    if (any((top[0] - offset_[0] > splat(kGrowth)) | (top[1] - offset_[1] > splat(kGrowth)))) raise_to(top, h);
  }

  // What is summed is taken to the new offset; the output, of which a product may be in progress, follows in finish_pair.
  __attribute__((noinline)) void raise_to(const Vec (&top)[2], int h) {
    Vec alpha[2];
    for (int v = 0; v < 2; v++) {
      const Vec now = maximum(top[v], offset_[v]), further = now - offset_[v];
      alpha[v] = exp2(-further);
      offset_[v] = now;
      if (kMore) {
        const Vec moved = alpha[v] * (surprise_[v] + further * exact_[v]);
        surprise_[v] = exact_[v] > Vec{} ? moved : Vec{};
        squares_[v] *= alpha[v] * alpha[v];
        kept_[v] *= alpha[v];
      }
      exact_[v] *= alpha[v];
      rounded_[v] *= alpha[v];
      alpha_[v] = changed_ ? alpha_[v] * alpha[v] : alpha[v];
    }
    changed_ = true;
    if (h == 0) return;
    for (int v = 0; v < 2; v++)  // the pair's first block
      for (int i = 0; i < kSlots; i++) {
        uint32_t* const at = t_.weights + pair_ * 4 * kTileNumbers + v * kTileNumbers + i * LANES;
        const VecU pairs = load_pairs(at);
        store_pairs(at, rounded(first_of(pairs) * alpha[v]) >> 16 | rounded(second_of(pairs) * alpha[v]));
      }
  }

  // The output of the former pairs is complete: take it to the present offset.
  inline __attribute__((always_inline)) void finish_pair() {
    if (pending_) fresh_ = false;
    if (changed_ && pending_)
      for (int64_t c = 0; c < value_steps() * kBlock; c++)
        for (int v = 0; v < 2; v++) {
          float* const at = t_.state.out + c * kTile + v * LANES;
          store(at, load(at) * alpha_[v]);
        }
    changed_ = false;
    pending_ = true;
  }

  void leave() const {
    for (int v = 0; v < 2; v++) {
      const auto keep = [v](float* to, Vec x) { store(to + v * LANES, x); };
      keep(t_.state.offset, offset_[v]);
      keep(t_.state.sum, exact_[v]);
      keep(t_.state.exact, kMore && p_.dropout_p != 0 ? kept_[v] : exact_[v]);
      keep(t_.state.rounded, rounded_[v]);
      if (!kMore || !s_) continue;
      keep(t_.state.top, top_[v]);
      keep(t_.asked.surprise, surprise_[v]);
      keep(t_.asked.squares, squares_[v]);
      keep(t_.asked.peak, exp2(top_[v] * splat(m_.slope) - offset_[v]));
    }
  }

  const Attention& p_;
  const Statistics* const s_;
  const TiledKeys& tiled_;
  const TileSpace& t_;
  const Multiplier m_;
  KeyBlocks blocks_;
  Place now_, next_ = {};
  State mask_, next_mask_;
  // Lane by lane: the offset, and sums of weights before and after rounding, and of those that dropout keeps.
  Vec offset_[2], exact_[2] = {}, rounded_[2] = {}, kept_[2] = {}, alpha_[2];
  Vec top_[2], surprise_[2] = {}, squares_[2] = {};
  VecU row_bits_[2];
  const uint16_t* values_[2][2];  // of this pair's blocks and the last's
  int pair_ = 0;
  bool more_ = false;
  bool pending_ = false;  // a pair of blocks is weighed, and its output is to be multiplied
  bool fresh_ = true;     // the output has no numbers yet
  bool changed_ = false;  // it is to be multiplied by alpha
};

}  // namespace
}  // namespace clearhead
