// A block of keys in the second pass over the weights, and its products with a tile of queries: in float32, or for
// bfloat16 in pairs or on tile registers.
#pragma once
#include "passes/logits.h"

#ifdef TILES
#include "tiles/round.h"
#elif defined(PAIRS)
#include "vector/pairs.h"
#endif

namespace clearhead {
namespace {

constexpr int64_t kSweepKeys = 128 / ROWS * ROWS;

struct SweepReals {
  static constexpr int64_t kStep = 1;  // a tile may begin at any key of a block
  struct Use {
    Use() {}
  };
  Rows keys;

  SweepReals(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n, float* space)
      : keys(rows_as_real(p.key, p.dtype, batch, kv_head, first, n, p.width, space)) {}

  static void pack(const Attention& p, const Place& at, float on_query, float* query, float* space) {
    pack_lanes(p.query, p.dtype, at.batch, at.head, at.row, at.rows, p.width, on_query, kTile, query, space);
  }

  // The logits of keys from .. from + n - 1, counted from the block's first.
  void logits(const Attention& p, const float* query, int64_t from, int64_t n, float* to) const {
    product<kAlong>(n, keys.data + from * keys.stride, keys.stride, query, kTile, p.width, Set{to, kTile});
  }

  // The same, then each(first, n) for the keys whose logits are stored, n keys at a time.
  template <class Each>
  void logits_by_block(const Attention& p, const float* query, int64_t from, int64_t n, float* to, const Each& each) const {
    logits(p, query, from, n, to);
    each(0, n);
  }

  template <int N>
  static inline __attribute__((always_inline)) void exp2(Vec (&x)[N]) { exp2_all(x); }
  static void between() {}  // called now and then between two products
};

#if defined(PAIRS) && !defined(TILES)
struct SweepPairs {
  static constexpr int64_t kStep = 1;
  typedef SweepReals::Use Use;
  PairRows keys;

  SweepPairs(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n, float* space)
      : keys(p.key, batch, kv_head, first, n, p.width, space) {}

  static void pack(const Attention& p, const Place& at, float on_query, float* query, float* space) {
    SweepReals::pack(p, at, on_query, query, space);
    pair_lanes(p.width, kTile, query);  // exact: bfloat16 numbers times 1, -1 or 0
  }

  void logits(const Attention& p, const float* query, int64_t from, int64_t n, float* to) const {
    product<kAlong, InPairs<>>(n, keys.data + from * keys.stride, keys.stride, as_pairs(query), kTile, p.width,
                               Set{to, kTile});
  }

  template <class Each>
  void logits_by_block(const Attention& p, const float* query, int64_t from, int64_t n, float* to, const Each& each) const {
    logits(p, query, from, n, to);
    each(0, n);
  }

  template <int N>
  static inline __attribute__((always_inline)) void exp2(Vec (&x)[N]) { exp2_all(x); }
  static void between() {}
};
#endif

#ifdef TILES
static_assert(kSweepKeys % kBlock == 0, "a block of keys is whole tiles");

struct SweepTiles {
  static constexpr int64_t kStep = kBlock;
  typedef TileUse Use;
  BlockRows rows[kSweepKeys / kBlock];

  SweepTiles(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t n, float* space) {
    uint16_t* const at = reinterpret_cast<uint16_t*>(space);
    for (int64_t i = 0; i * kBlock < n; i++)
      rows[i] = block_rows(p.key, batch, kv_head, first + i * kBlock, smaller(kBlock, n - i * kBlock), p.width,
                           key_columns(p), at + i * kBlock * key_columns(p));
  }

  static void pack(const Attention& p, const Place& at, float on_query, float* query, float* space) {
    const uint32_t flip = on_query < 0 ? 0x80008000u : 0, keep = on_query == 0 ? 0 : ~0u;
    const int64_t columns = key_columns(p);
    pair_block(block_rows(p.query, at.batch, at.head, at.row, at.rows, p.width, columns,
                          reinterpret_cast<uint16_t*>(space)),
               columns, flip, keep, reinterpret_cast<uint32_t*>(query));
  }

  void logits(const Attention& p, const float* query, int64_t from, int64_t n, float* to) const {
    for (int64_t i = from / kBlock; i * kBlock < from + n; i++, to += kBlock * kTile) {
      multiply(p, query, i);
      store_sums(to);
    }
  }

  // The products of the next block are issued before each(), so that both run at once.
  template <class Each>
  void logits_by_block(const Attention& p, const float* query, int64_t from, int64_t n, float* to, const Each& each) const {
    multiply(p, query, from / kBlock);
    store_sums(to);
    for (int64_t j = 0; j < n; j += kBlock) {
      const bool more = j + kBlock < n;
      if (more) multiply(p, query, (from + j) / kBlock + 1);
      each(j, smaller(kBlock, n - j));
      if (more) store_sums(to + (j + kBlock) * kTile);
    }
  }

  inline __attribute__((always_inline)) void multiply(const Attention& p, const float* query, int64_t block) const {
    const BlockRows& keys = rows[block];
    zero_sums();
    for (int64_t c = 0; c < key_columns(p); c += kBlock)
      add_products(keys.data + c, keys.data + kTileRows * keys.stride + c, keys.stride * 2,
                   reinterpret_cast<const uint32_t*>(query) + c * LANES);
  }

  template <int N>
  static inline __attribute__((always_inline)) void exp2(Vec (&x)[N]) { short_exp2(x); }
  static void between() { keep_multiplying(); }
};

inline bool sweeps_on_tiles(const Attention& p) { return p.dtype == kBFloat16; }

// Space for a tile's queries and for a block of keys.
inline int64_t query_floats(const Attention& p) { return larger(p.width, key_columns(p) / 2) * kTile; }
inline int64_t key_floats(const Attention& p) { return kSweepKeys * larger(p.width, key_columns(p) / 2); }
#else
inline int64_t query_floats(const Attention& p) { return p.width * kTile; }
inline int64_t key_floats(const Attention& p) { return kSweepKeys * p.width; }
#endif

}  // namespace
}  // namespace clearhead
