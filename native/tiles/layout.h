// How tensors are packed for the tile registers, keys in rows of whole tiles, values transposed, queries in pairs; and
// how the output is unpacked. Everything past the last row or column is 0 and never read from the caller's tensors.
#pragma once
#include "tiles/pieces.h"
#include "vector/transpose.h"

namespace clearhead {
namespace {

// The columns of keys and queries, and of values and output, rounded up to whole blocks.
inline int64_t key_columns(const Attention& p) { return round_up(p.width, kBlock); }
inline int64_t value_columns(const Attention& p) { return round_up(p.value_width, kBlock); }

// A block of kBlock rows of a bfloat16 tensor in whole vectors, with 0 past the last row and column.
struct BlockRows {
  const uint16_t* data;
  int64_t stride;
};

// Rows first .. first + n - 1 of a bfloat16 tensor: in place if they fill a block, else copied to space[kBlock][columns].
inline BlockRows block_rows(const Tensor& t, int64_t batch, int64_t head, int64_t first, int64_t n, int64_t width,
                            int64_t columns, uint16_t* space) {
  if (t.column == 1 && n == kBlock && width == columns)
    return {static_cast<const uint16_t*>(row_of(t, kBFloat16, batch, head, first)), t.row};
  copy_pieces<1>(t, kBFloat16, batch, head, first, n, width, columns, space);
  return {space, columns};
}

inline __attribute__((always_inline)) void transpose_pairs(VecU (&v)[LANES]) {
  Vec x[LANES];
  UNROLL for (int i = 0; i < LANES; i++) x[i] = (Vec)v[i];
  transpose(x);
  UNROLL for (int i = 0; i < LANES; i++) v[i] = (VecU)x[i];
}

// Store a block's columns as rows, to[columns][kBlock], of which 16 fill a tile register.
inline void transpose_block(BlockRows from, int64_t columns, uint16_t* to) {
  for (int64_t c = 0; c < columns; c += LANES) {
    VecU v[LANES];
    UNROLL for (int i = 0; i < LANES; i++) {
      const uint16_t* const pair = from.data + 2 * i * from.stride + c;
      v[i] = __builtin_convertvector(load_halves(pair), VecU) |
             __builtin_convertvector(load_halves(pair + from.stride), VecU) << 16;
    }
    transpose_pairs(v);
    UNROLL for (int i = 0; i < LANES; i++) store_pairs(to + (c + i) * kBlock, v[i]);
  }
}

// Store a block in pairs of columns with its rows in the lanes, to[columns / 32][2][16][LANES]: the first 16 rows before
// the others. The bits are xored with `flip` and masked with `keep`.
inline void pair_block(BlockRows from, int64_t columns, uint32_t flip, uint32_t keep, uint32_t* to) {
  for (int64_t c = 0; c < columns; c += kBlock)
    for (int g = 0; g < 2; g++, to += kTileNumbers) {
      VecU v[LANES];
      UNROLL for (int i = 0; i < LANES; i++)
        v[i] = load_pairs(reinterpret_cast<const uint32_t*>(from.data + (g * LANES + i) * from.stride + c));
      transpose_pairs(v);
      UNROLL for (int i = 0; i < LANES; i++) store_pairs(to + i * LANES, (v[i] ^ flip) & keep);
    }
}

// Whether keys are read in place: bfloat16 in contiguous rows of whole blocks of columns. Then only a last block of
// fewer than kBlock keys is packed.
inline bool keys_in_place(const Attention& p) {
  return p.dtype == kBFloat16 && p.key.column == 1 && p.key.row == p.width && p.width == key_columns(p);
}

// The space for one key head, in numbers: its keys, [block][piece][kBlock][key_columns]; its values transposed,
// [block][piece][value_columns][kBlock]; and a byte per block: whether it has a number that is not a sum of pieces.
inline int64_t key_blocks(const Attention& p) { return (p.keys + kBlock - 1) / kBlock; }
inline int64_t key_room(const Attention& p) {
  return (keys_in_place(p) ? 1 : key_blocks(p)) * kBlock * key_columns(p) * pieces_of(p);
}
inline int64_t value_room(const Attention& p) { return key_blocks(p) * kBlock * value_columns(p) * pieces_of(p); }
inline size_t tiled_numbers(const Attention& p) { return (key_room(p) + value_room(p)) / 2 + (key_blocks(p) + 3) / 4; }

struct TiledKeys {
  const uint16_t *keys, *last, *values;  // last: the last block of keys
  const uint8_t* irregular;
  int64_t blocks, last_key, key_row, value_block;  // key_row, value_block: numbers from key to key, and from block to block

  TiledKeys(const Attention& p, int64_t batch, int64_t kv_head, const float* at)
      : keys(reinterpret_cast<const uint16_t*>(at)),
        values(keys + key_room(p)),
        irregular(reinterpret_cast<const uint8_t*>(values + value_room(p))),
        blocks(key_blocks(p)),
        last_key((blocks - 1) * kBlock),
        key_row(key_columns(p) * pieces_of(p)),
        value_block(kBlock * value_columns(p) * pieces_of(p)) {
    last = keys;
    if (keys_in_place(p)) {
      keys = static_cast<const uint16_t*>(row_of(p.key, kBFloat16, batch, kv_head, 0));
      if (p.keys % kBlock == 0) last = keys + last_key * key_row;
    } else {
      last += last_key * key_row;
    }
  }
  // `key` is the first of a block.
  const uint16_t* keys_at(int64_t key) const { return key == last_key ? last : keys + key * key_row; }
  const uint16_t* values_at(int64_t key) const { return values + key / kBlock * value_block; }

  // Whether every key and value is the sum of its pieces.
  bool are_regular() const {
    int sum = 0;
    for (int64_t block = 0; block < blocks; block++) sum += irregular[block];
    return sum == 0;
  }
};

// Pack blocks first .. last - 1 of one key head.
template <int N>
inline void lay_out_pieces(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t last, float* to) {
  constexpr int64_t kColumns = 128;  // transposed together
  const TiledKeys tiled(p, batch, kv_head, to);
  const int64_t columns = value_columns(p);
  uint16_t space[N * kBlock * kColumns];
  for (int64_t block = first; block < last; block++) {
    const int64_t key = block * kBlock, n = smaller(kBlock, p.keys - key);
    bool regular = true;
    if (n < kBlock || !keys_in_place(p))
      regular = copy_pieces<N>(p.key, p.dtype, batch, kv_head, key, n, p.width, key_columns(p),
                               const_cast<uint16_t*>(tiled.keys_at(key)));
    for (int64_t c = 0; c < p.value_width; c += kColumns) {
      const int64_t width = smaller(kColumns, p.value_width - c), across = round_up(width, kBlock);
      Tensor some = p.value;
      some.data = const_cast<void*>(element(p.value.data, p.dtype, c * p.value.column));
      uint16_t* const values = const_cast<uint16_t*>(tiled.values_at(key)) + c * kBlock;
      if (p.dtype == kBFloat16) {
        transpose_block(block_rows(some, batch, kv_head, key, n, width, across, space), across, values);
        continue;
      }
      regular &= copy_pieces<N>(some, p.dtype, batch, kv_head, key, n, width, across, space);
      for (int k = 0; k < N; k++)
        transpose_block({space + k * kBlock * across, across}, across, values + k * kBlock * columns);
    }
    const_cast<uint8_t*>(tiled.irregular)[block] = !regular;
  }
}

// Call call(N) with the number of this problem's pieces as a constant.
template <int N>
struct Pieces {
  static constexpr int kCount = N;
};

template <class Call>
inline void with_pieces(const Attention& p, const Call& call) {
  switch (pieces_of(p)) {
    case 1: return call(Pieces<1>{});
    case 2: return call(Pieces<2>{});
    default: return call(Pieces<3>{});
  }
}

inline void lay_out_keys(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t last, float* to) {
  with_pieces(p, [&](auto n) { lay_out_pieces<decltype(n)::kCount>(p, batch, kv_head, first, last, to); });
}

// Store the output rows [row][column] = from[column][kTile] * factors[row], rounded, for the first n lanes.
inline void store_tile(const Attention& p, int64_t batch, int64_t head, int64_t first, int64_t n, const float* from,
                       const float* factors) {
  for (int64_t i = 0; i < n; i += LANES) {
    const Vec factor = load(factors + i);
    for (int64_t c = 0; c < p.value_width; c += LANES) {
      Vec v[LANES];
      UNROLL for (int k = 0; k < LANES; k++) v[k] = load(from + (c + k) * kTile + i) * factor;
      transpose(v);
      const int64_t width = smaller(LANES, p.value_width - c);
      UNROLL for (int k = 0; k < LANES; k++)
        if (i + k < n)
          store_numbers(v[k], width, p.dtype, const_cast<void*>(element(row_of(p.out, p.dtype, batch, head, first + i + k), p.dtype, c)));
    }
  }
}

}  // namespace
}  // namespace clearhead
