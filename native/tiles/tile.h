// One tile of queries against all keys, on tile registers, a block of 64 keys after another: logits, softmax, output. Phase
// after phase takes 12 cycles for 16 weights at width 64; with the tile instructions issued between the exponentials, to
// overlap the two, it was 20, for the unrolled code is long (bench/LOG.md).
#pragma once
#include "tiles/best.h"
#include "tiles/masks.h"
#include "tiles/round.h"
#include "passes/forward.h"

namespace clearhead {
namespace {

// The offset is raised where the maximum has grown by more than 2^8, so that the output is seldom rescaled. Weights are
// up to 2^8 then, of which float32 sums and bfloat16 numbers lose nothing.
constexpr float kGrowth = 8;

// Keys of a block: at width 64 what a block touches, 40 KiB, fits into a first cache of 48. 32 and 128 are slower, and at
// width 128 32 are too.
constexpr int64_t kRunKeys = 2 * kBlock;
constexpr int kBlockNumbers = kBlock * kTile;

// Scratch of one tile of queries.
struct TileSpace {
  TileState state;   // state.query: pairs [piece][key_columns / 32][2][16][LANES]
  float* logits;     // [kRunKeys][kTile]
  uint32_t* weights; // pairs of keys [kRunKeys / 2][piece][kTile]
  float* space;      // [kRunKeys][kTile]
  uint16_t* rows;    // [piece][32][key_columns]
  Asked asked;
  float* window;     // Window::numbers(), or null: of more than kKept largest weights vector/best.h keeps lists
};

inline bool has_window(const Statistics* s) { return s && s->top > 0 && s->top <= kKept; }

inline size_t tile_space_numbers(const Attention& p, const Statistics* s) {
  return value_columns(p) * kTile + 5 * kTile + 2 * kRunKeys * kTile +
         (key_columns(p) + kRunKeys / 2) * kTile * pieces_of(p) + (s ? asked_numbers(s) + kTile : 0) + (has_window(s) ? Window::numbers() : 0);
}

inline TileSpace tile_space(const Attention& p, const Statistics* s, float* at) {
  const auto take = [&at](int64_t n) { float* const here = at; at += n; return here; };
  const int64_t pieces = pieces_of(p);
  TileSpace t;
  t.state.query = take(key_columns(p) * kTile / 2 * pieces);
  t.rows = reinterpret_cast<uint16_t*>(take(key_columns(p) * kTile / 2 * pieces));
  t.state.out = take(value_columns(p) * kTile);
  t.logits = take(kRunKeys * kTile);
  t.weights = reinterpret_cast<uint32_t*>(take(kRunKeys * kTile / 2 * pieces));
  t.space = take(kRunKeys * kTile);
  t.state.top = take(kTile);
  t.state.offset = take(kTile);
  t.state.sum = take(kTile);
  t.state.exact = take(kTile);
  t.state.rounded = take(kTile);
  t.asked = {};
  t.window = has_window(s) ? take(Window::numbers()) : nullptr;
  if (!s) return t;
  t.asked = asked_at(*s, at);
  t.asked.peak = at + asked_numbers(s);
  if (t.window) t.asked.best = Window(t.window).best();
  return t;
}

// The blocks of keys that a tile of queries may attend some of.
class KeyBlocks {
 public:
  KeyBlocks(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t rows)
      : p_(p), at_{batch, head, row, rows, 0, 0}, key_(span_of(p, row, rows).first / kBlock * kBlock),
        last_(span_of(p, row, rows).last) {}

  // The next block, what the mask says of it, and, where that is kMixed, of each key; false behind the last.
  bool next(Place* at, State* mask, AllowedKeys* allowed) {
    while (key_ < last_) {
      *at = at_;
      at->key = key_;
      at->keys = smaller(kRunKeys, last_ - key_);
      key_ += kRunKeys;
      *mask = p_.allow.data ? allowed->trim(p_, at) : kFull;
      if (*mask != kEmpty && trim_to_bias(p_, at, kBlock)) return true;
    }
    return false;
  }

 private:
  const Attention& p_;
  const Place at_;
  int64_t key_, last_;
};

// What a tile computes besides its output: nothing; entropy, maximum, mass and the largest weights; all else, and dropout.
enum Extra { kBare, kWatched, kAnything };

inline Extra extra_of(const Attention& p, const Statistics* s) {
  return p.dropout_p != 0 || (s && s->squares) ? kAnything : s ? kWatched : kBare;
}

// One tile of queries against all keys, in numbers of N pieces. KS and DB: blocks of 32 columns of keys and of values, where
// they are known.
template <int N, int KS, int DB, Extra kExtra>
class TileRun {
 public:
  TileRun(const Attention& p, const Statistics* s, const TiledKeys& tiled, const TileSpace& t, const Place& tile)
      : p_(p), s_(s), tiled_(tiled), t_(t), m_(multiplier_of(p, tile.head)), tile_(tile),
        wants_entropy_(s && s->entropy), wants_squares_(s && s->squares), drop_below_(drop_below(p) - VecU{}),
        keep_factor_(splat(keep_factor(p))), window_(t.window), logits_(t.logits) {
    const uint32_t word = dropout_word(p, tile.batch, tile.head) + uint32_t(p.first_query + tile.row);
    for (int v = 0; v < 2; v++) {
      now_.offset[v] = splat(kNothing * m_.slope);
      now_.top[v] = splat(-kInfinity);
      row_bits_[v] = mix((VecU)lane_numbers() + (word + uint32_t(v * LANES)));
    }
  }

  // Leaves the output [column][kTile], not yet divided by the sums, and the sums in the tile's state.
  void run() {
    KeyBlocks blocks(p_, tile_.batch, tile_.head, tile_.row, tile_.rows);
    Place at;
    State mask;
    AllowedKeys allowed;
    while (blocks.next(&at, &mask, &allowed)) {
      if (at.keys > kBlock) block<2>(at, mask, allowed);
      else block<1>(at, mask, allowed);
      fresh_ = false;
    }
    if (kExtra != kBare && t_.window) window_.flush();
    if (fresh_) __builtin_memset(t_.state.out, 0, value_columns(p_) * kTile * sizeof(float));
    leave();
  }

 private:
  // Lane by lane: the offset, and sums of weights before and after rounding, and of those that dropout keeps.
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
    if (kExtra != kBare && t_.window) logits_ = window_.next_block();
    UNROLL for (int i = 0; i < steps; i++) multiply_keys(at.key, i);
    change(at, mask, allowed, steps);
    raise<steps>();
    if (kExtra != kBare && wants_entropy_) weigh<steps, true>(at.key);
    else weigh<steps, false>(at.key);
    for (int d = 0; d < value_steps(); d++) multiply_values<steps>(at.key, d);
    if (kExtra != kBare && t_.window) window_.close_block(at.key);
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

  // Columns 32 d and on of the output. Three pieces are summed by themselves, small products first, then added: what a
  // large sum would lose of them is more than float32 loses.
  template <int steps>
  inline __attribute__((always_inline)) void multiply_values(int64_t key, int d) const {
    float* const out = t_.state.out + d * kBlockNumbers;
    const bool apart = N == kMostPieces && !fresh_;
    if (fresh_ || apart) zero_sums();
    else load_sums(out);
    each_product<N>([&](int a, int b) __attribute__((always_inline)) {
      UNROLL for (int i = 0; i < steps; i++) {
        const uint16_t* const rows = tiled_.values_at(key + i * kBlock) + (a * value_row() + d * kBlock) * kBlock;
        const uint32_t* const lanes = t_.weights + (i * kTileRows * N + b) * kTile;
        add_products(rows, rows + kTileRows * kBlock, 64, lanes, lanes + LANES, N * kTile * 4);
      }
    });
    store_sums(apart ? t_.space : out);
    if (apart)
      for (int i = 0; i < kBlockNumbers; i += LANES) store(out + i, load(out + i) + load(t_.space + i));
  }

  // Rules on the logits; -inf in the rows without a key.
  void change(const Place& at, State mask, const AllowedKeys& allowed, int steps) const {
    float* const x = logits_;
    const bool quickly = adds_rows_of_bias(p_);
    if (quickly) scale_and_add(p_, at, m_.on_logits, x, keep_multiplying);
    else if (has_change(p_)) change_logits(p_, at, m_, kFull, x, kTile, kTile, nullptr, t_.space);
    if (mask == kMixed) allowed.close(at, x);
    if ((quickly || !has_change(p_)) && !inside_band(p_, at.row, kTile, at.key, at.keys))
      cut_to_band(p_, at.row, at.key, at.keys, x, kTile, kTile);
    if (mask == kMixed || has_change(p_)) keep_multiplying();
    for (int64_t i = at.keys * kTile; i < steps * kBlockNumbers; i += LANES) store(x + i, splat(-kInfinity));
    if (kExtra != kBare && s_ && s_->top && !t_.window) best_of_block(t_.asked.best, at.key, at.keys, x);
  }

  template <int steps>
  inline __attribute__((always_inline)) void highest(Vec (&top)[2]) const {
    const float* const x = logits_;
    Vec even[2] = {load(x), load(x + LANES)}, odd[2] = {load(x + kTile), load(x + kTile + LANES)};
    for (int64_t j = 2; j < steps * kBlock; j += 2)
      UNROLL for (int v = 0; v < 2; v++) {
        even[v] = maximum(load(x + j * kTile + v * LANES), even[v]);
        odd[v] = maximum(load(x + (j + 1) * kTile + v * LANES), odd[v]);
      }
    UNROLL for (int v = 0; v < 2; v++) top[v] = maximum(odd[v], even[v]);
  }

  // The offset follows the maximum.
  template <int steps>
  inline __attribute__((always_inline)) void raise() {
    Vec top[2];
    if (kExtra != kBare && t_.window) window_.take_highest(steps * kBlock, top);
    else highest<steps>(top);
    const Vec c = splat(m_.slope);
    UNROLL for (int v = 0; v < 2; v++) {
      if (kExtra != kBare) now_.top[v] = maximum(top[v], now_.top[v]);
      top[v] = top[v] * c;
    }
    if (any((top[0] - now_.offset[0] > splat(kGrowth)) | (top[1] - now_.offset[1] > splat(kGrowth)))) raise_to(top);
  }

  __attribute__((noinline)) void raise_to(const Vec (&top)[2]) {
    Vec alpha[2];
    for (int v = 0; v < 2; v++) {
      const Vec now = maximum(top[v], now_.offset[v]), further = now - now_.offset[v];
      alpha[v] = exp2(-further);
      now_.offset[v] = now;
      if (kExtra != kBare) {
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

  // Logits to pairs of weights, and into the sums.
  template <int steps, bool kEntropy>
  inline __attribute__((always_inline)) void weigh(int64_t key) {
    const char* const keys = reinterpret_cast<const char*>(tiled_.keys_at(key + kRunKeys));
    const char* const values = reinterpret_cast<const char*>(tiled_.values_at(key));
    Running now = now_;  // in registers
    for (int slot = 0; slot < steps * kTileRows; slot++) {
      if (kEntropy && slot == kTileRows) keep_multiplying();
      weigh_pair<kEntropy>(now, logits_ + 2 * slot * kTile, key + 2 * slot, t_.weights + slot * N * kTile);
      if (N == 1 && KS <= 2) {  // the values of this block and the keys of the next; wider ones would push out what is in use
        UNROLL for (int i = 0; i < 2 * KS; i++) __builtin_prefetch(keys + (slot * 2 * KS + i) * 64);
        UNROLL for (int i = 0; i < 2 * DB; i++) __builtin_prefetch(values + (slot * 2 * DB + i) * 64);
      }
    }
    now_ = now;
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
      if (kExtra == kAnything) {
        if (wants_squares_) now.squares[v] += x[v] * x[v] + x[v + 2] * x[v + 2];
        if (p_.dropout_p != 0) {
          x[v] = kept(x[v], v, key);
          x[v + 2] = kept(x[v + 2], v, key + 1);
          now.kept[v] += x[v] + x[v + 2];
        }
      }
      UNROLL for (int k = 0; k < N; k++) {  // a NaN's sum is NaN whatever becomes of it here
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
      const Vec exact = kExtra == kAnything && p_.dropout_p != 0 ? now_.kept[v] : now_.exact[v];
      keep(t_.state.exact, exact);
      keep(t_.state.rounded, N == 1 ? now_.rounded[v] : exact);
      if (kExtra == kBare || !s_) continue;
      keep(t_.state.top, now_.top[v]);
      keep(t_.asked.surprise, now_.surprise[v]);
      keep(t_.asked.squares, now_.squares[v]);
      keep(t_.asked.peak, exp2(now_.top[v] * splat(m_.slope) - now_.offset[v]));
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
  const Vec keep_factor_;
  Running now_;
  VecU row_bits_[2];
  Window window_;
  float* logits_;  // of the block in work
  bool fresh_ = true;  // the output has no numbers yet
};

}  // namespace
}  // namespace clearhead
