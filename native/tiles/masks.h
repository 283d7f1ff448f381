// A dense mask or bias on a block of logits. A mask is read as one bit per query and key; the rows of a bias are
// transposed into lanes as they are loaded. apply_mask() and add_bias() of passes/logits.h took two to three times as
// long as the rest of the pass (a Xeon with AMX, width 64).
#pragma once
#include "passes/logits.h"
#include "tiles/layout.h"

namespace clearhead {
namespace {

// Which of the keys from `key` on a mask lets each query of a tile attend.
struct AllowedKeys {
  int64_t key = 0;
  uint32_t bits[2][kTile];  // for the first 32 keys, for the others

  // Trim a block of at most 64 keys to those that any query may attend; at the front by whole blocks of 32 only.
  State trim(const Attention& p, Place* at) {
    const Tensor& m = p.allow;
    const uint8_t* const bytes = static_cast<const uint8_t*>(m.data) + at->batch * m.batch + at->head * m.head +
                                 at->row * m.row + at->key * m.column;
    uint64_t any = 0, all = ~uint64_t(0);
    key = at->key;
    for (int64_t i = 0; i < kTile; i++) {
      __builtin_prefetch(bytes + i * m.row + 64);
      const uint64_t here = i == 0 || (m.row != 0 && i < at->rows) ? of_row(bytes + i * m.row, m.column, at->keys) : all;
      if (i < at->rows) any |= here, all &= here;
      bits[0][i] = uint32_t(here);
      bits[1][i] = uint32_t(here >> 32);
    }
    if (any == 0) return kEmpty;
    const int64_t front = uint32_t(any) == 0 ? kBlock : 0, past = 64 - __builtin_clzll(any);
    at->key += front;
    at->keys = past - front;
    return all >> front == ~uint64_t(0) >> (64 - at->keys) ? kFull : kMixed;
  }

  // Set logits to -inf where a query may not attend a key.
  void close(const Place& at, float* x) const {
    for (int64_t j = 0; j < at.keys;) {
      const int64_t from = at.key - key + j, stop = smaller(at.keys, j + kBlock - from % kBlock);
      const uint32_t* const half = bits[from / kBlock];
      const VecU first = load_pairs(half), second = load_pairs(half + LANES);
      VecU bit = (1u << from % kBlock) - VecU{};
      for (; j < stop; j++, bit += bit) {
        close_lanes(first, bit, x + j * kTile);
        close_lanes(second, bit, x + j * kTile + LANES);
      }
    }
  }

 private:
  static uint64_t of_row(const uint8_t* bytes, int64_t column, int64_t keys) {
#ifdef __AVX512BW__
    if (column == 1) {
      const __m512i row = _mm512_maskz_loadu_epi8(~uint64_t(0) >> (64 - keys), bytes);
      return _mm512_test_epi8_mask(row, row);
    }
#endif
    uint64_t bits = 0;
    for (int64_t j = 0; j < keys; j++) bits |= uint64_t(bytes[j * column] != 0) << j;
    return bits;
  }

  static inline __attribute__((always_inline)) void close_lanes(VecU open, VecU bit, float* x) {
    const Vec nothing = splat(-kInfinity);
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(x, _mm512_testn_epi32_mask((__m512i)open, (__m512i)bit), (__m512)nothing);
#else
    store(x, (open & bit) == 0u ? nothing : load(x));
#endif
  }
};

// Whether scale_and_add() can add the bias of a problem, and its logits need nothing else but masks.
inline bool adds_rows_of_bias(const Attention& p) {
  return p.bias.data && p.bias.row != 0 && p.bias.column == 1 && p.bias_dtype != kFloat64 && p.softcap == 0 && !p.alibi;
}

// Load 16 rows of 16 numbers of 32 bits and transpose them: v[i] is number i of every row.
inline __attribute__((always_inline)) void load_transposed(const uint32_t (&row)[LANES][LANES], VecU (&v)[LANES]) {
#ifdef __AVX512F__
  // Each quarter of a row is loaded to its final place, which needs no shuffle.
  UNROLL for (int c = 0; c < 4; c++) {
    Vec quarter[4];
    UNROLL for (int r = 0; r < 4; r++) {
      const auto from = [&](int i) { return _mm_loadu_ps(reinterpret_cast<const float*>(row[r + 4 * i] + 4 * c)); };
      __m512 x = _mm512_zextps128_ps512(from(0));
      x = _mm512_maskz_insertf32x4(0xFFFF, x, from(1), 1);
      x = _mm512_maskz_insertf32x4(0xFFFF, x, from(2), 2);
      quarter[r] = (Vec)_mm512_maskz_insertf32x4(0xFFFF, x, from(3), 3);
    }
    UNROLL for (int h = 0; h < 2; h++) {
      const Vec a = h ? shuffle<QuartersHigh>(quarter[0], quarter[1]) : shuffle<QuartersLow>(quarter[0], quarter[1]);
      const Vec b = h ? shuffle<QuartersHigh>(quarter[2], quarter[3]) : shuffle<QuartersLow>(quarter[2], quarter[3]);
      v[4 * c + 2 * h] = (VecU)shuffle<QuarterFronts>(a, b);
      v[4 * c + 2 * h + 1] = (VecU)shuffle<QuarterBacks>(a, b);
    }
  }
#else
  UNROLL for (int i = 0; i < LANES; i++) v[i] = load_pairs(row[i]);
  transpose_pairs(v);
#endif
}

// x = x * multiplier + bias, both in units of log2. Overwrites x past the last key, up to a whole `step`. Calls
// between() now and then.
template <class Between>
inline void scale_and_add(const Attention& p, const Place& at, float multiplier, float* x, const Between& between) {
  const Tensor& b = p.bias;
  const int64_t origin = at.batch * b.batch + at.head * b.head + at.row * b.row + at.key * b.column;
  const bool in_pairs = p.bias_dtype == kBFloat16;
  const int64_t step = in_pairs ? kBlock : LANES, ahead = 64 * (in_pairs ? 2 : 4);  // in bytes: prefetches the next block's
  const Vec scale = splat(multiplier), unit = splat(kLog2E);
  alignas(64) uint32_t space[LANES][LANES] = {};
  for (int64_t v = 0; v < kTile; v += LANES)
    for (int64_t j = 0; j < at.keys; j += step) {
      const int64_t n = smaller(step, at.keys - j);
      for (int64_t i = 0; i < LANES; i++) {
        const int64_t index = origin + smaller(v + i, at.rows - 1) * b.row + j;
        const void* const row = element(b.data, p.bias_dtype, index);
        __builtin_prefetch(static_cast<const char*>(row) + ahead);
        if (n == step && p.bias_dtype != kFloat16) store_pairs(space[i], load_pairs(static_cast<const uint32_t*>(row)));
        else if (in_pairs) __builtin_memcpy(space[i], row, n * sizeof(uint16_t));
        else load_row(row, p.bias_dtype, 1, n, reinterpret_cast<float*>(space[i]));
      }
      between();
      VecU transposed[LANES];
      load_transposed(space, transposed);
      const auto add = [&](int64_t k, Vec bias) __attribute__((always_inline)) {
        float* const to = x + (j + k) * kTile + v;
        store(to, load(to) * scale + bias * unit);
      };
      if (in_pairs)
        UNROLL for (int k = 0; k < LANES; k++) {
          add(2 * k, (Vec)(transposed[k] << 16));
          add(2 * k + 1, (Vec)(transposed[k] & 0xFFFF0000u));
        }
      else
        UNROLL for (int k = 0; k < LANES; k++) add(k, (Vec)transposed[k]);
    }
}

}  // namespace
}  // namespace clearhead
