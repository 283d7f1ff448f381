// Few queries against many keys. Lanes would stand empty if queries sat in them, so here keys (for the logits) and
// value columns (for the output) do. All query rows that share a key head go over each block of keys together; the
// keys are split into parts of a fixed length, whose results are merged by their lse, in order.
#pragma once
#include "logits.h"
#include "product.h"

namespace clearhead {
namespace {

constexpr int64_t kDecodeKeys = 128;

inline int64_t decode_rows(const Attention& p) { return p.heads / p.kv_heads * p.length; }
inline int64_t decode_width(const Attention& p) { return round_up(p.width, kTile); }
inline int64_t decode_value_width(const Attention& p) { return round_up(p.value_width, kTile); }

// What one part leaves behind: [rows] offsets, [rows] sums, [rows][decode_value_width] outputs not yet divided.
size_t decode_partial(const Attention& p) { return decode_rows(p) * (2 + decode_value_width(p)); }

size_t decode_scratch(const Attention& p) {
  return decode_rows(p) * (decode_width(p) + kDecodeKeys + 1) +
         kDecodeKeys * (decode_width(p) + decode_value_width(p));
}

inline float total_of(Vec x) {
  float sum = 0;
  UNROLL for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

// Halve the vectors until one is left, whose lane i is the total of v[i]: the way down Eklundh's transposition.
template <int H>
inline __attribute__((always_inline)) void totals(Vec (&v)[LANES]) {
  VecI upper = {}, lower = {};
  UNROLL for (int l = 0; l < LANES; l++) {
    upper[l] = l & H ? LANES + l - H : l;
    lower[l] = l & H ? LANES + l : l + H;
  }
  UNROLL for (int i = 0; i < H; i++)
    v[i] = __builtin_shuffle(v[i], v[i + H], upper) + __builtin_shuffle(v[i], v[i + H], lower);
  if constexpr (H > 1) totals<H / 2>(v);
}

// kTile columns as two vectors, in the order that costs least: bfloat16 gives the even columns, then the odd ones.
inline void load_two(const float* from, Vec (&x)[2]) {
  x[0] = load(from);
  x[1] = load(from + LANES);
}

inline void load_two(const uint16_t* from, Vec (&x)[2]) {
  const VecU pairs = (VecU)load(reinterpret_cast<const float*>(from));
  x[0] = (Vec)(pairs << 16);
  x[1] = (Vec)(pairs & 0xFFFF0000u);
}

// Floats brought from their own order into that of bfloat16's load_two, and back into it from T's.
inline void from_order_of(const float*, Vec (&)[2]) {}

inline void to_bfloat16_order(Vec (&x)[2]) {
  VecI even = {}, odd = {};
  UNROLL for (int i = 0; i < LANES; i++) even[i] = 2 * i, odd[i] = 2 * i + 1;
  const Vec first = __builtin_shuffle(x[0], x[1], even);
  x[1] = __builtin_shuffle(x[0], x[1], odd);
  x[0] = first;
}

inline void from_order_of(const uint16_t*, Vec (&x)[2]) {
  VecI low = {}, high = {};
  UNROLL for (int i = 0; i < LANES; i++) low[i] = i / 2 + i % 2 * LANES, high[i] = low[i] + LANES / 2;
  const Vec first = __builtin_shuffle(x[0], x[1], low);
  x[1] = __builtin_shuffle(x[0], x[1], high);
  x[0] = first;
}

// Rows of one element type with contiguous columns.
template <class T>
struct RowsOf {
  const T* data;
  int64_t stride;
};

// R queries times n keys: x[r * kDecodeKeys + j]. `query` is in T's order.
template <int R, class T>
inline void dots(const float* query, int64_t width, const RowsOf<T>& keys, int64_t n, float* x) {
  // LANES sums are made total together. One query takes key after key, as the memory's prefetcher likes them; two
  // take two keys at once, for fewer loads of themselves.
  constexpr int K = LANES / R, G = R == 2 ? 2 : 1;
  static_assert(K % G == 0, "whole groups of keys");
  int64_t j = 0;
  for (; j + K <= n; j += K) {
    Vec sum[LANES];
    UNROLL for (int k = 0; k < K; k += G) {
      const T* key = keys.data + (j + k) * keys.stride;
      Vec part[G][R][2] = {};
      for (int64_t c = 0; c < width; c += kTile) {
        UNROLL for (int g = 0; g < G; g++) {
          Vec here[2];
          load_two(key + g * keys.stride + c, here);
          UNROLL for (int r = 0; r < R; r++) {
            part[g][r][0] += here[0] * load(query + r * width + c);
            part[g][r][1] += here[1] * load(query + r * width + c + LANES);
          }
        }
      }
      UNROLL for (int g = 0; g < G; g++)
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k + g] = part[g][r][0] + part[g][r][1];
    }
    totals<LANES / 2>(sum);
    UNROLL for (int r = 0; r < R; r++)
      UNROLL for (int k = 0; k < K; k++) x[r * kDecodeKeys + j + k] = sum[0][r * K + k];
  }
  for (; j < n; j++)
    for (int r = 0; r < R; r++) {
      Vec sum = {};
      for (int64_t c = 0; c < width; c += kTile) {
        Vec here[2];
        load_two(keys.data + j * keys.stride + c, here);
        sum += here[0] * load(query + r * width + c) + here[1] * load(query + r * width + c + LANES);
      }
      x[r * kDecodeKeys + j] = total_of(sum);
    }
}

template <class T>
inline void all_dots(const float* query, int64_t rows, int64_t width, const RowsOf<T>& keys, int64_t n, float* x) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dots<4>(query + r * width, width, keys, n, x + r * kDecodeKeys);
  for (; r + 2 <= rows; r += 2) dots<2>(query + r * width, width, keys, n, x + r * kDecodeKeys);
  for (; r < rows; r++) dots<1>(query + r * width, width, keys, n, x + r * kDecodeKeys);
}

// out[r][c] = out[r][c] * alpha[r] + sum over j of x[r][j] * values[j][c], for R rows and C pairs of vectors.
template <int R, int C, class T>
inline void mix_strip(const float* x, const RowsOf<T>& values, int64_t n, const float* alpha, float* out,
                      int64_t stride) {
  Vec sum[R][C][2] = {};
#pragma GCC unroll 4  // a quarter faster from memory
  for (int64_t j = 0; j < n; j++) {
    const T* value = values.data + j * values.stride;
    UNROLL for (int c = 0; c < C; c++) {
      Vec here[2];
      load_two(value + c * kTile, here);
      UNROLL for (int r = 0; r < R; r++) {
        const Vec weight = splat(x[r * kDecodeKeys + j]);
        sum[r][c][0] += here[0] * weight;
        sum[r][c][1] += here[1] * weight;
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int c = 0; c < C; c++) {
      float* const at = out + r * stride + c * kTile;
      from_order_of(values.data, sum[r][c]);
      store(at, load(at) * splat(alpha[r]) + sum[r][c][0]);
      store(at + LANES, load(at + LANES) * splat(alpha[r]) + sum[r][c][1]);
    }
}

template <int R, class T>
inline void mix_rows(const float* x, const RowsOf<T>& values, int64_t n, const float* alpha, float* out,
                     int64_t width) {
  constexpr int C = 4 / R;  // eight sums: as many as hide a multiply-add's latency
  int64_t c = 0;
  for (; c + C * kTile <= width; c += C * kTile)
    mix_strip<R, C>(x, RowsOf<T>{values.data + c, values.stride}, n, alpha, out + c, width);
  for (; c < width; c += kTile)
    mix_strip<R, 1>(x, RowsOf<T>{values.data + c, values.stride}, n, alpha, out + c, width);
}

template <class T>
inline void mix_all(const float* x, int64_t rows, const RowsOf<T>& values, int64_t n, const float* alpha, float* out,
                    int64_t width) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) mix_rows<4>(x + r * kDecodeKeys, values, n, alpha + r, out + r * width, width);
  for (; r + 2 <= rows; r += 2) mix_rows<2>(x + r * kDecodeKeys, values, n, alpha + r, out + r * width, width);
  for (; r < rows; r++) mix_rows<1>(x + r * kDecodeKeys, values, n, alpha + r, out + r * width, width);
}

// Whether a tensor's rows are read where they lie, in T: no column is missing to whole vectors, none is strided.
template <class T>
inline bool lies_ready(const Tensor& t, Dtype dtype, int64_t width, int64_t wide) {
  return width == wide && t.column == 1 && dtype == (sizeof(T) == 4 ? kFloat32 : kBFloat16);
}

// Keys or values first .. first + n - 1 where they lie, or else as float32 in `space` with columns of 0 up to `wide`.
template <class Use>
inline void with_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                      int64_t width, int64_t wide, float* space, const Use& use) {
  const void* const data = row_of(t, dtype, batch, head, first);
  if (lies_ready<float>(t, dtype, width, wide)) {
    use(RowsOf<float>{static_cast<const float*>(data), t.row});
  } else if (lies_ready<uint16_t>(t, dtype, width, wide)) {
    use(RowsOf<uint16_t>{static_cast<const uint16_t*>(data), t.row});
  } else {
    for (int64_t i = 0; i < n; i++) {
      float* to = space + i * wide;
      load_row(row_of(t, dtype, batch, head, first + i), dtype, t.column, width, to);
      for (int64_t c = width; c < wide; c++) to[c] = 0;
    }
    use(RowsOf<float>{space, wide});
  }
}

// One row's cap, bias, mask and band, key by key: the memory of keys and values is what decoding waits for.
inline void change_row(const Attention& p, const Multiplier& m, int64_t batch, int64_t head, int64_t row, int64_t key,
                       int64_t n, float* x) {
  if (p.softcap != 0)
    for (int64_t j = 0; j < n; j++)
      x[j] = p.softcap * kLog2E * __builtin_tanhf(x[j] * (m.on_logits / kLog2E / p.softcap));
  else if (has_change(p))
    for (int64_t j = 0; j < n; j++) x[j] *= m.on_logits;
  if (p.bias.data) {
    const int64_t at = batch * p.bias.batch + head * p.bias.head + row * p.bias.row + key * p.bias.column;
    for (int64_t j = 0; j < n; j++) x[j] += load_one(p.bias.data, p.bias_dtype, at + j * p.bias.column) * kLog2E;
  }
  if (p.allow.data) {
    const uint8_t* allow = static_cast<const uint8_t*>(p.allow.data) + batch * p.allow.batch + head * p.allow.head +
                           row * p.allow.row + key * p.allow.column;
    for (int64_t j = 0; j < n; j++) x[j] = allow[j * p.allow.column] ? x[j] : -kInfinity;
  }
  if (inside_band(p, row, 1, key, n)) return;
  for (int64_t j = 0; j < n; j++) {
    const int64_t apart = key + j - row;
    if (apart < p.reach_low || apart > p.reach_high) x[j] = -kInfinity;
  }
}

inline void drop_row(const Attention& p, int64_t batch, int64_t head, int64_t row, int64_t key, int64_t n, float* x) {
  if (p.drop_below == 0) return;
  const uint32_t seed = mix(mix(uint32_t(batch * p.heads + head) ^ p.seed_low) ^ p.seed_high);
  const uint32_t own = mix(seed + uint32_t(row));
  for (int64_t j = 0; j < n; j++)
    x[j] = mix(own ^ mix(uint32_t(key + j))) < p.drop_below ? 0 : x[j] * p.keep_factor;
}

// Logits to weights in place, n of them; moves the row's offset and sum on, returns what its output is multiplied by.
inline float softmax_row(float slope, int64_t n, float* x, float* offset, float* sum) {
  for (int64_t j = n; j < round_up(n, LANES); j++) x[j] = -kInfinity;
  Vec tops = splat(-1e37f);
  for (int64_t j = 0; j < n; j += LANES) tops = maximum(load(x + j), tops);
  float top = tops[0];
  for (int i = 1; i < LANES; i++) top = tops[i] > top ? tops[i] : top;
  const float now = top * slope > *offset ? top * slope : *offset;
  const float alpha = exp2(splat(*offset - now))[0];
  Vec total = {};
  for (int64_t j = 0; j < n; j += LANES) {
    const Vec weight = exp2(load(x + j) * splat(slope) - splat(now));
    total += weight;
    store(x + j, weight);
  }
  *sum = *sum * alpha + total_of(total);
  *offset = now;
  return alpha;
}

void decode(const Attention& p, int64_t batch, int64_t kv_head, int64_t first, int64_t last, float* partial,
            float* scratch) {
  const int64_t rows = decode_rows(p), width = decode_width(p), value_width = decode_value_width(p);
  const Multiplier m = multiplier_of(p);
  float *const offset = partial, *const sum = offset + rows, *const out = sum + rows;
  float* const query = scratch;
  float* const x = query + rows * width;
  float* const alpha = x + rows * kDecodeKeys;
  float* const key_space = alpha + rows;
  float* const value_space = key_space + kDecodeKeys * width;
  const int64_t head = kv_head * (p.heads / p.kv_heads);
  for (int64_t r = 0; r < rows; r++) {
    float* q = query + r * width;
    load_row(row_of(p.query, p.dtype, batch, head + r / p.length, r % p.length), p.dtype, p.query.column, p.width, q);
    for (int64_t c = 0; c < width; c++) q[c] = c < p.width ? q[c] * m.on_query : 0;
    if (lies_ready<uint16_t>(p.key, p.dtype, p.width, width)) {
      for (int64_t c = 0; c < width; c += kTile) {
        Vec two[2];
        load_two(q + c, two);
        to_bfloat16_order(two);
        store(q + c, two[0]);
        store(q + c + LANES, two[1]);
      }
    }
    offset[r] = -1e37f * m.slope;
    sum[r] = 0;
  }
  for (int64_t i = 0; i < rows * value_width; i++) out[i] = 0;
  for (int64_t key = first; key < last; key += kDecodeKeys) {
    const int64_t n = smaller(kDecodeKeys, last - key);
    with_rows(p.key, p.dtype, batch, kv_head, key, n, p.width, width, key_space,
              [&](const auto& keys) { all_dots(query, rows, width, keys, n, x); });
    for (int64_t r = 0; r < rows; r++) {
      float* const own = x + r * kDecodeKeys;
      change_row(p, m, batch, head + r / p.length, r % p.length, key, n, own);
      alpha[r] = softmax_row(m.slope, n, own, offset + r, sum + r);
      drop_row(p, batch, head + r / p.length, r % p.length, key, n, own);
    }
    with_rows(p.value, p.dtype, batch, kv_head, key, n, p.value_width, value_width, value_space,
              [&](const auto& values) { mix_all(x, rows, values, n, alpha, out, value_width); });
  }
}

// Join the parts of one key head; `space` holds value_width floats.
void decode_merge(const Attention& p, int64_t batch, int64_t kv_head, int64_t parts, const float* partials,
                  float* space) {
  const int64_t rows = decode_rows(p), value_width = decode_value_width(p), each = decode_partial(p);
  const int64_t head = kv_head * (p.heads / p.kv_heads);
  for (int64_t r = 0; r < rows; r++) {
    double top = partials[r], total = 0;
    for (int64_t i = 1; i < parts; i++) top = partials[i * each + r] > top ? partials[i * each + r] : top;
    if (p.sinks) {
      const double sink = double(p.sinks[head + r / p.length]) * kLog2EWide;
      top = sink > top ? sink : top;
      total = __builtin_exp2(sink - top);
    }
    for (int64_t i = 0; i < parts; i++)
      total += partials[i * each + rows + r] * __builtin_exp2(partials[i * each + r] - top);
    for (int64_t c = 0; c < p.value_width; c++) space[c] = 0;
    for (int64_t i = 0; i < parts; i++) {
      const float share = total == 0 ? 0 : float(__builtin_exp2(partials[i * each + r] - top) / total);
      const float* out = partials + i * each + 2 * rows + r * value_width;
      for (int64_t c = 0; c < p.value_width; c++) space[c] += out[c] * share;
    }
    store_row(space, p.value_width, p.dtype, row_of(p.out, p.dtype, batch, head + r / p.length, r % p.length));
    float* lse = static_cast<float*>(p.lse.data) + batch * p.lse.batch + (head + r / p.length) * p.lse.head;
    lse[r % p.length * p.lse.row] = total == 0 ? -kInfinity : float(top * kLn2 + __builtin_log(total));
  }
}

}  // namespace
}  // namespace clearhead
