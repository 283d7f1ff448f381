// What changes a block of logits between the product and the softmax: soft cap, bias, ALiBi, mask and band; and dropout,
// which changes the weights after it. A block is x[key][lane], with queries in the lanes.
#pragma once
#include "passes/band.h"
#include "vector/transpose.h"

namespace clearhead {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint8_t UnalignedBytes __attribute__((vector_size(LANES), aligned(1), may_alias));

// The position of a block in a head's logits.
struct Place {
  int64_t batch, head, row, rows, key, keys;  // rows: how many of the lanes are queries
};

// The logits' multiplier in units of log2, in three factors. `on_query` is its sign, applied to the packed queries so
// that the maximum stays a maximum; a multiplier of 0 is applied there too, so that 0 * -inf never occurs. Where
// logits are capped or get terms added, scale_and_cap() applies `on_logits`, and `slope`, the softmax's factor, is 1.
struct Multiplier {
  Real on_query, on_logits, slope;
};

// What q·k is multiplied by in one query head.
inline Real scale_of(const Attention& p, int64_t head) {
  return p.head_scale ? Real(p.scale) * number_at(p.head_scale, head) : Real(p.scale);
}

inline bool has_change(const Attention& p) { return p.softcap != 0 || p.bias.data || p.alibi; }

inline Multiplier multiplier_of(const Attention& p, int64_t head) {
  const Real scale = scale_of(p, head), size = scale == 0 ? 1 : (scale < 0 ? -scale : scale) * kLog2E;
  return {Real(scale == 0 ? 0 : scale < 0 ? -1 : 1), size, has_change(p) ? 1 : size};
}

enum State { kEmpty, kMixed, kFull };

// What the mask allows of a block. An empty block is skipped, and a full one needs no masking.
inline State mask_state(const Attention& p, const Place& at) {
  if (!p.allow.data) return kFull;
  const uint8_t* data = static_cast<const uint8_t*>(p.allow.data) + at.batch * p.allow.batch +
                        at.head * p.allow.head + at.row * p.allow.row + at.key * p.allow.column;
  const int64_t rows = p.allow.row == 0 ? 1 : at.rows, keys = p.allow.column == 0 ? 1 : at.keys;
  int64_t allowed = 0;
  for (int64_t i = 0; i < rows; i++) {
    const uint8_t* row = data + i * p.allow.row;
    int here = 0;
    if (p.allow.column == 1) for (int64_t j = 0; j < keys; j++) here += row[j] != 0;
    else for (int64_t j = 0; j < keys; j++) here += row[j * p.allow.column] != 0;
    allowed += here;
    if (allowed != 0 && allowed != (i + 1) * keys) return kMixed;
  }
  return allowed == 0 ? kEmpty : kFull;
}

// Drop the keys at both ends of a block for which closed(row, key) holds in every row; false if no key is left.
template <class Closed>
inline bool trim_ends(Place* at, int64_t rows, int64_t step, const Closed& closed) {
  int64_t first = at->keys, last = 0;
  for (int64_t i = 0; i < rows && (first > 0 || last < at->keys); i++) {
    int64_t j = at->keys;
    while (j > last && closed(i, j - 1)) j--;
    last = larger(last, j);
    for (j = 0; j < first && closed(i, j);) j++;
    first = j;
  }
  if (first >= last) return false;
  first = first / step * step;
  at->key += first;
  at->keys = last - first;
  return true;
}

// Drop the keys at both ends of a block whose bias is -inf; false if no key is left. The start moves by multiples of
// `step` keys.
inline bool trim_to_bias(const Attention& p, Place* at, int64_t step) {
  const Tensor& b = p.bias;
  if (!b.data) return true;
  const int64_t start = at->batch * b.batch + at->head * b.head + at->row * b.row + at->key * b.column;
  return trim_ends(at, b.row == 0 ? 1 : at->rows, step, [&](int64_t i, int64_t j) {
    return load_one(b.data, p.bias_dtype, start + i * b.row + j * b.column) == -kInfinity;
  });
}

// Drop the keys at both ends of a block that the mask or the bias closes, so that dense padding and causal masks save
// the work they exclude. Returns the mask's state on the rest.
inline State trim(const Attention& p, Place* at, int64_t step) {
  const Tensor& m = p.allow;
  if (m.data) {
    const uint8_t* const bytes = static_cast<const uint8_t*>(m.data) + at->batch * m.batch + at->head * m.head +
                                 at->row * m.row + at->key * m.column;
    const auto closed = [=](int64_t i, int64_t j) { return !bytes[i * m.row + j * m.column]; };
    if (!trim_ends(at, m.row == 0 ? 1 : at->rows, step, closed)) return kEmpty;
  }
  return trim_to_bias(p, at, step) ? mask_state(p, *at) : kEmpty;
}

// Multiply x and cap it; `slopes`, if not null, gets the derivative of the cap.
inline void scale_and_cap(const Attention& p, Real multiplier, int64_t keys, Real* x, int64_t stride, int64_t lanes,
                          Real* slopes) {
  const Real cap = Real(p.softcap);
  const Vec in = splat(multiplier / kLog2E / (cap != 0 ? cap : 1)), out = splat(cap * kLog2E);
  for (int64_t j = 0; j < keys; j++)
    for (int64_t v = 0; v < lanes; v += LANES) {
      Real* at = x + j * stride + v;
      if (cap == 0) {
        store(at, load(at) * splat(multiplier));
        continue;
      }
      const Vec capped = tanh(load(at) * in);
      store(at, capped * out);
      if (slopes) store(slopes + j * stride + v, splat(1.0f) - capped * capped);
    }
}

constexpr int64_t kMostKeys = 128;  // in one block

inline void add_bias(const Attention& p, const Place& at, Real* x, int64_t stride, int64_t lanes, Real* space) {
  const Tensor& b = p.bias;
  const int64_t origin = at.batch * b.batch + at.head * b.head + at.row * b.row + at.key * b.column;
  if (b.row == 0) {
    for (int64_t j = 0; j < at.keys; j++) {
      const Vec here = splat(load_one(b.data, p.bias_dtype, origin + j * b.column) * kLog2E);
      for (int64_t v = 0; v < lanes; v += LANES) store(x + j * stride + v, load(x + j * stride + v) + here);
    }
    return;
  }
  Real converted[LANES * kMostKeys];
  for (int64_t v = 0; v < lanes; v += LANES) {  // lanes past the last row use that row's bias
    const int64_t last_row = larger(0, smaller(at.rows - v, LANES) - 1), row = origin + smaller(v, at.rows - 1) * b.row;
    if (b.column == 1 && last_row == LANES - 1 && p.bias_dtype == kReal) {
      transpose_rows(static_cast<const Real*>(b.data) + row, b.row, at.keys, 1.0f, space + v, lanes);
      continue;
    }
    for (int64_t k = 0; k < LANES; k++)
      load_row(element(b.data, p.bias_dtype, row + smaller(k, last_row) * b.row), p.bias_dtype, b.column, at.keys,
               converted + k * at.keys);
    transpose_rows(converted, at.keys, at.keys, 1.0f, space + v, lanes);
  }
  for (int64_t j = 0; j < at.keys; j++)
    for (int64_t v = 0; v < lanes; v += LANES)
      store(x + j * stride + v, load(x + j * stride + v) + load(space + j * lanes + v) * splat(kLog2E));
}

// Set x to -inf where the mask's bytes are 0, in LANES lanes. Lanes past the last row use that row's bytes.
inline void mask_lanes(const uint8_t* rows, const Tensor& m, int64_t last_row, int64_t keys, Real* x,
                       int64_t stride) {
  const Vec nothing = splat(-kInfinity);
  const uint8_t* row[LANES];
  for (int i = 0; i < LANES; i++) row[i] = rows + smaller(i, last_row) * m.row;
  int64_t j = 0;
  if (m.column == 1)
    for (; j + LANES <= keys; j += LANES) {
      Vec v[LANES];
      UNROLL for (int i = 0; i < LANES; i++)
        v[i] = (Vec)__builtin_convertvector(*reinterpret_cast<const UnalignedBytes*>(row[i] + j), VecI);
      transpose(v);
      UNROLL for (int k = 0; k < LANES; k++) {
        Real* at = x + (j + k) * stride;
        store(at, (VecI)v[k] == splat_int(0) ? nothing : load(at));
      }
    }
  for (; j < keys; j++)
    for (int i = 0; i < LANES; i++)
      if (!row[i][j * m.column]) x[j * stride + i] = -kInfinity;
}

inline void apply_mask(const Attention& p, const Place& at, Real* x, int64_t stride, int64_t lanes) {
  const Tensor& m = p.allow;
  const uint8_t* data = static_cast<const uint8_t*>(m.data) + at.batch * m.batch + at.head * m.head + at.row * m.row +
                        at.key * m.column;
  if (m.row != 0) {
    for (int64_t v = 0; v < lanes && v < at.rows; v += LANES)
      mask_lanes(data + v * m.row, m, at.rows - 1 - v, at.keys, x + v, stride);
    return;
  }
  for (int64_t j = 0; j < at.keys; j++)
    if (!data[j * m.column])
      for (int64_t v = 0; v < lanes; v += LANES) store(x + j * stride + v, splat(-kInfinity));
}

// |query position - key position| for queries from `first` on, one in each lane, and keys from `key` on: integers, exact
// in float32 up to 2^24.
struct Distance {
  Vec from;
  Distance(const Attention& p, int64_t first, int64_t key)
      : from(__builtin_convertvector(lane_numbers() + splat_int(Int(first + p.first_query - p.first_key - key)), Vec)) {}
  Vec operator()(int64_t j) const {
    const Vec difference = from - splat(Real(j));
    return maximum(difference, -difference);
  }
};

inline void add_alibi(const Attention& p, const Place& at, Real* x, int64_t stride, int64_t lanes) {
  const Vec slope = splat(-number_at(p.alibi, at.head) * kLog2E);
  for (int64_t v = 0; v < lanes; v += LANES) {
    const Distance distance(p, at.row + v, at.key);
    for (int64_t j = 0; j < at.keys; j++) store(x + j * stride + v, load(x + j * stride + v) + slope * distance(j));
  }
}

// Apply everything between product and softmax. `space` holds keys * lanes numbers.
inline void change_logits(const Attention& p, const Place& at, const Multiplier& m, State mask, Real* x,
                          int64_t stride, int64_t lanes, Real* slopes, Real* space) {
  if (has_change(p)) scale_and_cap(p, m.on_logits, at.keys, x, stride, lanes, slopes);
  if (p.bias.data) add_bias(p, at, x, stride, lanes, space);
  if (p.alibi) add_alibi(p, at, x, stride, lanes);
  if (mask == kMixed) apply_mask(p, at, x, stride, lanes);
  if (!inside_band(p, at.row, lanes, at.key, at.keys))
    cut_to_band(p, at.row, at.key, at.keys, x, stride, lanes);
}

inline uint32_t mix(uint32_t x) {  // as in clearhead/spec/dropout.py
  x = (x ^ x >> 16) * 0x7FEB352Du;
  x = (x ^ x >> 15) * 0x846CA68Bu;
  return x ^ x >> 16;
}

constexpr UInt kLow = 0xFFFFFFFF;  // the hash has 32 bits in lanes of doubles too

inline VecU mix(VecU x) {
  x = (x ^ x >> 16) * 0x7FEB352Du & kLow;
  x = (x ^ x >> 15) * 0x846CA68Bu & kLow;
  return x ^ x >> 16;
}

// A weight is dropped where its hash is below this.
inline uint32_t drop_below(const Attention& p) {
  const double below = p.dropout_p * 4294967296.0;
  return below >= 4294967295.0 ? 4294967295u : uint32_t(below);
}

inline Real keep_factor(const Attention& p) { return Real(1 / (1 - p.dropout_p)); }

// The word from which all hashes of one head are computed.
inline uint32_t dropout_word(const Attention& p, int64_t batch, int64_t head) {
  return mix(mix(uint32_t(batch * p.heads + head) ^ uint32_t(p.seed)) ^ uint32_t(p.seed >> 32));
}

// Multiply x by keep_factor where the weight is kept, and set it to 0 where it is dropped.
inline void drop(const Attention& p, const Place& at, Real* x, int64_t stride, int64_t lanes) {
  if (p.dropout_p == 0) return;
  const uint32_t head = dropout_word(p, at.batch, at.head) + uint32_t(p.first_query);
  const VecU below = drop_below(p) - VecU{};
  const Vec kept = splat(keep_factor(p));
  for (int64_t v = 0; v < lanes; v += LANES) {
    const VecU row = mix(((VecU)lane_numbers() + (head + uint32_t(at.row + v))) & kLow);
    for (int64_t j = 0; j < at.keys; j++) {
      const VecU bits = mix(row ^ mix(uint32_t(p.first_key + at.key + j)));
      Real* to = x + j * stride + v;
      store(to, bits < below ? splat(0.0f) : load(to) * kept);
    }
  }
}

}  // namespace
}  // namespace clearhead
