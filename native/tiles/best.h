// The largest logits of each row, as in vector/best.h, a window of keys at a time. The maxima of the window's groups of
// keys give a threshold that few logits reach. Key by key, most logits would pass the threshold found so far.
#pragma once
#include "tiles/registers.h"
#include "vector/best.h"

namespace clearhead {
namespace {

constexpr int64_t kGroupKeys = 8;
constexpr int64_t kWindowBlocks = 8;  // of 64 keys: 64 KiB of logits
constexpr int kKept = 8;              // largest logits of a row, in registers

typedef Vec Ranks[kKept];  // lane by lane, largest first

inline __attribute__((always_inline)) void order(Vec& high, Vec& low) {
  const Vec larger = maximum(high, low);
  low = minimum(high, low);
  high = larger;
}

inline __attribute__((always_inline)) void sort(Ranks& x) {
  constexpr int kPairs[][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 1}, {2, 3},
                               {4, 5}, {6, 7}, {2, 4}, {3, 5}, {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
  UNROLL for (int i = 0; i < 19; i++) order(x[kPairs[i][0]], x[kPairs[i][1]]);
}

// Keep the largest of x and y, both sorted, in x.
inline __attribute__((always_inline)) void merge(Ranks& x, const Ranks& y) {
  UNROLL for (int r = 0; r < kKept; r++) x[r] = maximum(x[r], y[kKept - 1 - r]);
  UNROLL for (int stride = kKept / 2; stride > 0; stride /= 2)
    UNROLL for (int r = 0; r < kKept; r++)
      if ((r & stride) == 0) order(x[r], x[r + stride]);
}

// Insert x where it is larger. Of equal logits the first one found comes first.
inline __attribute__((always_inline)) void insert(Ranks& values, VecI (&keys)[kKept], Vec x, VecI key) {
  VecI here = x > values[kKept - 1];
  UNROLL for (int r = kKept - 1; r > 0; r--) {
    const VecI before = x > values[r - 1];
    keys[r] = here ? (before ? keys[r - 1] : key) : keys[r];
    values[r] = maximum(values[r], minimum(values[r - 1], x));
    here = before;
  }
  keys[0] = here ? key : keys[0];
  values[0] = maximum(values[0], x);
}

// The logits of the last blocks of keys.
class Window {
 public:
  static int64_t numbers() { return (kWindowBlocks * kBlockKeys * (1 + kGroupKeys)) / kGroupKeys * kTile + best_numbers(kKept); }

  // `at` has space for numbers() floats; up to kKept largest are kept.
  explicit Window(float* at) : logits_(at), highest_(at + kWindowBlocks * kBlockKeys * kTile) {}

  Best best() const { return best_at(highest_ + kWindowBlocks * kBlockGroups * kTile, kKept); }
  float* next_block() const { return logits_ + blocks_ * kBlockKeys * kTile; }
  bool closes() const { return blocks_ + 1 == kWindowBlocks; }  // whether the next block completes the window

  // The maximum of each group of keys, and of all.
  void take_highest(int64_t keys, Vec (&top)[2]) const {
    float* const to = highest_ + blocks_ * kBlockGroups * kTile;
    const float* const x = next_block();
    UNROLL for (int v = 0; v < 2; v++) top[v] = splat(-kInfinity);
    for (int64_t g = 0; g < kBlockGroups; g++)
      UNROLL for (int v = 0; v < 2; v++) {
        Vec high = splat(-kInfinity);
        if (g * kGroupKeys < keys)
          UNROLL for (int i = 0; i < kGroupKeys; i++) high = maximum(load(x + (g * kGroupKeys + i) * kTile + v * LANES), high);
        store(to + g * kTile + v * LANES, high);
        top[v] = maximum(high, top[v]);
      }
  }

  // End the block that begins with `key`.
  void close_block(int64_t key) {
    keys_[blocks_++] = key;
    if (blocks_ == kWindowBlocks) flush();
  }

  void flush() {
    for (int v = 0; blocks_ > 0 && v < 2; v++) flush_lanes(v);
    blocks_ = 0;
  }

 private:
  static constexpr int64_t kBlockKeys = 64, kBlockGroups = kBlockKeys / kGroupKeys;
  static_assert(kBlockGroups == kKept, "a block's groups are sorted together");

  __attribute__((noinline)) void flush_lanes(int v) const {
    const Best list = best();
    const auto highest = [&](int64_t block, int64_t g) {
      return load(highest_ + (block * kBlockGroups + g) * kTile + v * LANES);
    };
    float* const places = reinterpret_cast<float*>(list.keys);
    Ranks values, ranks;
    VecI keys[kKept];
    UNROLL for (int r = 0; r < kKept; r++) {
      values[r] = ranks[r] = load(list.logits + r * kTile + v * LANES);
      keys[r] = (VecI)load(places + r * kTile + v * LANES);
    }
    for (int64_t block = 0; block < blocks_; block++) {
      Ranks high;
      UNROLL for (int g = 0; g < kKept; g++) high[g] = highest(block, g);
      sort(high);
      if (any(high[0] > ranks[kKept - 1])) merge(ranks, high);
      keep_multiplying();
    }
    const Vec least = ranks[kKept - 1];  // kKept groups, and so at least kKept logits, reach it
    for (int64_t block = 0; block < blocks_; block++)
      for (int64_t g = 0; g < kBlockGroups; g++) {
        const auto enters = [&](Vec x) { return any((x >= least) & (x > values[kKept - 1])); };
        if (!enters(highest(block, g))) continue;
        const float* const x = logits_ + (block * kBlockKeys + g * kGroupKeys) * kTile + v * LANES;
        for (int64_t i = 0; i < kGroupKeys; i++) {
          const Vec here = load(x + i * kTile);
          if (enters(here))
            insert(values, keys, maximum(here, splat(-kInfinity)), splat_int(Int(keys_[block] + g * kGroupKeys + i)));
        }
        keep_multiplying();
      }
    UNROLL for (int r = 0; r < kKept; r++) {
      store(list.logits + r * kTile + v * LANES, values[r]);
      store(places + r * kTile + v * LANES, (Vec)keys[r]);
    }
  }

  float *logits_, *highest_;  // [kWindowBlocks][kBlockKeys][kTile], [kWindowBlocks][kBlockGroups][kTile]
  int64_t keys_[kWindowBlocks] = {}, blocks_ = 0;
};

}  // namespace
}  // namespace clearhead
