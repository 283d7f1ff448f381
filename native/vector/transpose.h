// Rows into lanes and back, by squares of LANES x LANES numbers.
#pragma once
#include "vector/rows.h"
#include "vector/shuffle.h"

namespace clearhead {
namespace {

// to[c * to_stride + i] = from[i * from_stride + c] * factor, for LANES rows i.
inline void transpose_rows(const Real* from, int64_t from_stride, int64_t width, Real factor, Real* to,
                      int64_t to_stride) {
  int64_t c = 0;
  for (; c + LANES <= width; c += LANES) {
    Vec v[LANES];
    UNROLL for (int i = 0; i < LANES; i++) v[i] = load(from + i * from_stride + c);
    transpose(v);
    UNROLL for (int i = 0; i < LANES; i++) store(to + (c + i) * to_stride, v[i] * splat(factor));
  }
  for (; c < width; c++)
    for (int i = 0; i < LANES; i++) to[c * to_stride + i] = from[i * from_stride + c] * factor;
}

inline size_t transpose_scratch(int64_t width) { return LANES * width; }

// Pack rows into lanes: to[c * lanes + i] = rows[i][c] * factor; lanes past n are 0.
inline void pack_lanes(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                       int64_t width, Real factor, int64_t lanes, Real* to, Real* space) {
  if (n < lanes) __builtin_memset(to, 0, sizeof(Real) * width * lanes);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const Rows rows = rows_as_real(t, dtype, batch, head, first + i, LANES, width, space);
    transpose_rows(rows.data, rows.stride, width, factor, to + i, lanes);
  }
  for (; i < n; i++) {
    load_row(row_of(t, dtype, batch, head, first + i), dtype, t.column, width, space);
    for (int64_t c = 0; c < width; c++) to[c * lanes + i] = space[c] * factor;
  }
}

// The reverse: rows[i][c] = from[c * lanes + i] * factors[i], for the first n lanes.
inline void unpack_lanes(const Real* from, int64_t lanes, int64_t n, int64_t width, const Real* factors,
                         const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, Real* space) {
  for (int64_t i = 0; i < n; i += LANES) {
    const bool direct = dtype == kReal && i + LANES <= n;
    Real* const to = direct ? static_cast<Real*>(const_cast<void*>(row_of(t, dtype, batch, head, first + i))) : space;
    const int64_t stride = direct ? t.row : width;
    const Vec factor = load(factors + i);
    int64_t c = 0;
    for (; c + LANES <= width; c += LANES) {
      Vec v[LANES];
      UNROLL for (int k = 0; k < LANES; k++) v[k] = load(from + (c + k) * lanes + i) * factor;
      transpose(v);
      UNROLL for (int k = 0; k < LANES; k++) store(to + k * stride + c, v[k]);
    }
    for (; c < width; c++)
      for (int k = 0; k < LANES; k++) to[k * stride + c] = from[c * lanes + i + k] * factors[i + k];
    if (direct) continue;
    for (int64_t k = 0; k < LANES && i + k < n; k++)
      store_row(space + k * width, width, dtype, row_of(t, dtype, batch, head, first + i + k));
  }
}

}  // namespace
}  // namespace clearhead
