// Rows of any dtype and stride, converted to and from Real.
#pragma once
#include "vector/shuffle.h"

namespace clearhead {
namespace {

inline float bits_to_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

inline uint32_t float_to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

inline float from_bfloat16(uint16_t h) { return bits_to_float(uint32_t(h) << 16); }

inline uint16_t to_bfloat16(float x) {  // to nearest, ties to even; NaN stays NaN
  const uint32_t bits = float_to_bits(x);
  return x != x ? 0x7FC0 : uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

inline float from_float16(uint16_t h) {
  // The 15 bits read as a float with too small an exponent, then times 2^112: correct for denormals too.
  const float x = bits_to_float(uint32_t(h & 0x7FFF) << 13) * 0x1p112f;
  const uint32_t bits = float_to_bits(x) | ((h & 0x7C00) == 0x7C00 ? 0x7F800000u : 0u);
  return bits_to_float(bits | uint32_t(h & 0x8000) << 16);
}

inline uint16_t to_float16(float x) {  // to nearest, ties to even
  const uint32_t bits = float_to_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
  if (size > 0x7F800000) return uint16_t(sign | 0x7E00);   // NaN
  if (size >= 0x47800000) return uint16_t(sign | 0x7C00);  // 65536 and more: infinity
  if (size < 0x38800000) {  // denormal: a float addition rounds at 2^-24
    const float shifted = bits_to_float(size) + 0.5f;
    return uint16_t(sign | (float_to_bits(shifted) - 0x3F000000));
  }
  return uint16_t(sign | ((size - 0x38000000 + 0xFFF + (size >> 13 & 1)) >> 13));
}

inline const void* element(const void* data, Dtype dtype, int64_t index) {
  const int64_t bytes = dtype == kReal ? kBytes : dtype == kFloat32 ? 4 : 2;
  return static_cast<const char*>(data) + index * bytes;
}

inline const void* row_of(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t row) {
  return element(t.data, dtype, batch * t.batch + head * t.head + row * t.row);
}

// The log-sum-exp of a row, in either dtype it may have.
inline int64_t lse_index(const Tensor& lse, int64_t batch, int64_t head, int64_t row) {
  return batch * lse.batch + head * lse.head + row * lse.row;
}

inline double lse_at(const Attention& p, int64_t batch, int64_t head, int64_t row) {
  const int64_t i = lse_index(p.lse, batch, head, row);
  return p.lse_dtype == kFloat64 ? static_cast<const double*>(p.lse.data)[i] : static_cast<const float*>(p.lse.data)[i];
}

inline void store_lse(const Attention& p, int64_t batch, int64_t head, int64_t row, double x) {
  if (!p.lse.data) return;
  const int64_t i = lse_index(p.lse, batch, head, row);
  if (p.lse_dtype == kFloat64) static_cast<double*>(p.lse.data)[i] = x;
  else static_cast<float*>(p.lse.data)[i] = float(x);
}

inline Real number_at(const void* numbers, int64_t index) { return static_cast<const Real*>(numbers)[index]; }

inline Real load_one(const void* data, Dtype dtype, int64_t index) {
  if (dtype == kReal) return number_at(data, index);
  if (dtype == kFloat32) return static_cast<const float*>(data)[index];
  const uint16_t half = static_cast<const uint16_t*>(data)[index];
  return dtype == kBFloat16 ? from_bfloat16(half) : from_float16(half);
}

inline void load_row(const void* from, Dtype dtype, int64_t stride, int64_t n, Real* to) {
  if (n == 0) return;  // `from` may be null then
  if (dtype == kReal) {
    const Real* x = static_cast<const Real*>(from);
    if (stride == 1) __builtin_memcpy(to, x, n * kBytes);
    else for (int64_t i = 0; i < n; i++) to[i] = x[i * stride];
    return;
  }
  if (dtype == kFloat32) {
    for (int64_t i = 0; i < n; i++) to[i] = static_cast<const float*>(from)[i * stride];
    return;
  }
  const uint16_t* x = static_cast<const uint16_t*>(from);
  if (dtype == kBFloat16) {
    if (stride == 1) for (int64_t i = 0; i < n; i++) to[i] = from_bfloat16(x[i]);
    else for (int64_t i = 0; i < n; i++) to[i] = from_bfloat16(x[i * stride]);
  } else {
    if (stride == 1) for (int64_t i = 0; i < n; i++) to[i] = from_float16(x[i]);  // in vectors
    else for (int64_t i = 0; i < n; i++) to[i] = from_float16(x[i * stride]);
  }
}

inline void store_row(const Real* from, int64_t n, Dtype dtype, const void* to) {
  if (n == 0) return;
  if (dtype == kReal) {
    __builtin_memcpy(const_cast<void*>(to), from, n * kBytes);
    return;
  }
  uint16_t* x = static_cast<uint16_t*>(const_cast<void*>(to));
  if (dtype == kBFloat16) for (int64_t i = 0; i < n; i++) x[i] = to_bfloat16(from[i]);
  else for (int64_t i = 0; i < n; i++) x[i] = to_float16(from[i]);
}

// Whether a column's rows are adjacent and a row's columns are not.
inline bool is_transposed(const Tensor& t) { return t.row == 1 && t.column > 1; }

// to[i * stride + c] = rows[first + i][c] for n rows of a transposed tensor, by squares: number by number, each would cost a
// cache line.
inline void load_transposed_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                                 int64_t width, Real* to, int64_t stride) {
  constexpr int64_t kTogether = 4 * LANES;  // rows: their columns are converted in whole vectors
  Real columns[LANES][kTogether];
  for (int64_t i = 0; i < n; i += kTogether) {
    const void* const at = row_of(t, dtype, batch, head, first + i);
    const int64_t here = smaller(kTogether, n - i), whole = here / LANES * LANES;
    for (int64_t c = 0; c < width; c += LANES) {
      const int64_t some = smaller(LANES, width - c);
      for (int64_t k = 0; k < some; k++) load_row(element(at, dtype, (c + k) * t.column), dtype, 1, here, columns[k]);
      Real* const corner = to + i * stride + c;
      for (int64_t row = 0; some == LANES && row < whole; row += LANES) {
        Vec square[LANES];
        UNROLL for (int k = 0; k < LANES; k++) square[k] = load(columns[k] + row);
        transpose(square);
        UNROLL for (int k = 0; k < LANES; k++) store(corner + (row + k) * stride, square[k]);
      }
      for (int64_t row = some == LANES ? whole : 0; row < here; row++)
        for (int64_t k = 0; k < some; k++) corner[row * stride + k] = columns[k][row];
    }
  }
}

// The same for any tensor.
inline void load_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                      int64_t width, Real* to, int64_t stride) {
  if (is_transposed(t)) return load_transposed_rows(t, dtype, batch, head, first, n, width, to, stride);
  for (int64_t i = 0; i < n; i++)
    load_row(row_of(t, dtype, batch, head, first + i), dtype, t.column, width, to + i * stride);
}

// Rows of Real with contiguous columns: in place if they are so already, else converted into `space`.
struct Rows {
  const Real* data;
  int64_t stride;
};

inline Rows rows_as_real(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                         int64_t width, Real* space) {
  if (dtype == kReal && t.column == 1)
    return {static_cast<const Real*>(row_of(t, dtype, batch, head, first)), t.row};
  const bool joined = t.column == 1 && t.row == width;  // narrow rows are converted together, in whole vectors
  if (joined) load_row(row_of(t, dtype, batch, head, first), dtype, 1, n * width, space);
  else load_rows(t, dtype, batch, head, first, n, width, space, width);
  return {space, width};
}

// If the stride of rows is an even number of cache lines, the rows of a column share few sets of the cache and evict
// each other. With this stride, which is at least `width`, they use all sets.
constexpr int64_t kLine = 64 / kBytes;  // numbers in a cache line
inline int64_t conflict_free_stride(int64_t width) { return ((width + kLine - 1) / kLine | 1) * kLine; }

// As rows_as_real(), for rows that are read column by column. Rows that use four sets or fewer and are read often are also
// copied to `space`, n * conflict_free_stride(width). With 16 sets the second-level cache is fast enough without a copy.
inline Rows conflict_free_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                       int64_t width, bool often, Real* space) {
  if (dtype == kReal && t.column == 1 && (!often || t.row % (16 * kLine) != 0))
    return {static_cast<const Real*>(row_of(t, dtype, batch, head, first)), t.row};
  if (width < kLine) return rows_as_real(t, dtype, batch, head, first, n, width, space);  // they share lines
  const int64_t stride = conflict_free_stride(width);
  load_rows(t, dtype, batch, head, first, n, width, space, stride);
  return {space, stride};
}

}  // namespace
}  // namespace clearhead
