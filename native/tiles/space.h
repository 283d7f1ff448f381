// The scratch of one tile of queries on tile registers, and the blocks of keys that it visits.
#pragma once
#include "tiles/best.h"
#include "tiles/masks.h"
#include "passes/forward.h"

namespace clearhead {
namespace {

// Keys of a block. At width 64 a block reads and writes 40 KiB, which fits into a first-level cache of 48 KiB. Blocks of
// 32 and 128 keys are slower; at width 128 blocks of 32 are slower too.
constexpr int64_t kRunKeys = 2 * kBlock;
constexpr int kBlockNumbers = kBlock * kTile;

// Scratch of one tile of queries.
struct TileSpace {
  TileState state;   // state.query: pairs [piece][key_columns / 32][2][16][LANES]
  float* logits;     // [kRunKeys][kTile]
  uint32_t* weights; // pairs of keys [kRunKeys / 2][piece][kTile]
  float* space;      // [kRunKeys][kTile]
  uint16_t* rows;    // [piece][32][key_columns]
  TileStatistics extra;
  float* window;     // Window::numbers(), or null; for more than kKept largest weights vector/best.h keeps lists
};

inline bool has_window(const Statistics* s) { return s && s->top > 0 && s->top <= kKept; }

inline size_t tile_space_numbers(const Attention& p, const Statistics* s) {
  return value_columns(p) * kTile + 5 * kTile + 2 * kRunKeys * kTile +
         (key_columns(p) + kRunKeys / 2) * kTile * pieces_of(p) + (s ? extra_numbers(s) + kTile : 0) +
         (has_window(s) ? Window::numbers() : 0);
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
  t.extra = {};
  t.window = has_window(s) ? take(Window::numbers()) : nullptr;
  if (!s) return t;
  t.extra = extra_at(*s, at);
  t.extra.peak = at + extra_numbers(s);
  if (t.window) t.extra.best = Window(t.window).best();
  return t;
}

// The blocks of keys of which a tile of queries may attend any.
class KeyBlocks {
 public:
  KeyBlocks(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t rows)
      : p_(p), at_{batch, head, row, rows, 0, 0}, key_(span_of(p, row, rows).first / kBlock * kBlock),
        last_(span_of(p, row, rows).last) {}

  bool whole_left() const { return key_ + kRunKeys <= last_; }  // whether kRunKeys more keys are left, before any mask

  // Get the next block, the mask's state on it, and the allowed keys where that is kMixed; false after the last.
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

}  // namespace
}  // namespace clearhead
