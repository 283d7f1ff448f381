// Rows of few columns, for few queries: keys are transposed to columns, so that the lanes hold keys where logits are
// computed; values of at most LANES columns are summed as single vectors.
#pragma once
#include "vector/product.h"
#include "vector/transpose.h"

namespace clearhead {
namespace {

// How many numbers of each row may be read, and how many `space` holds for n rows.
inline int64_t narrow_reach(int64_t width) { return larger(LANES, round_up(width, LANES)); }
inline size_t narrow_scratch(int64_t n, int64_t width) { return n * narrow_reach(width) + LANES; }

// Rows first .. first + n - 1, and those after them up to a multiple of LANES rows, of which narrow_reach() numbers may be
// read: what lies past the last column or row is any number. In place where the tensor goes on for long enough, else in
// `space`.
inline Rows narrow_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                        int64_t length, int64_t width, Real* space) {
  const Rows rows = rows_as_real(t, dtype, batch, head, first, n, width, space);
  if (rows.data == space) return rows;
  const int64_t reach = narrow_reach(width), last = (first + round_up(n, LANES) - 1) * t.row + reach;
  if (last <= (length - 1) * t.row + width) return rows;
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < width; c++) space[i * reach + c] = rows.data[i * rows.stride + c];
  return {space, reach};
}

// to[c * stride + i] = rows[i][c] for c < W: only the shuffles that these need remain.
template <int W>
inline void narrow_columns(const Rows& rows, int64_t n, Real* to, int64_t stride) {
  for (int64_t i = 0; i < n; i += LANES) {
    Vec v[LANES];
    UNROLL for (int k = 0; k < LANES; k++) v[k] = load(rows.data + (i + k) * rows.stride);
    transpose(v);
    UNROLL for (int c = 0; c < W; c++) store(to + c * stride + i, v[c]);
  }
}

inline void narrow_columns(Rows rows, int64_t n, int64_t width, Real* to, int64_t stride) {
  for (; width > LANES / 2; width -= LANES, rows.data += LANES, to += LANES * stride)
    narrow_columns<LANES>(rows, n, to, stride);
  if (width > LANES / 4) narrow_columns<LANES / 2>(rows, n, to, stride);
  else if (width > 0) narrow_columns<LANES / 4>(rows, n, to, stride);
}

// out[r] = out[r] * alpha[r] + sum over j of x[r * stride + j] * rows[j], for R rows of LANES columns.
template <int R>
inline void mix_narrow(const Real* x, int64_t stride, const Rows& rows, int64_t n, const Real* alpha, Real* out) {
  constexpr int G = 8 / R;  // eight sums: enough to hide the latency of a multiply-add
  Vec sum[R][G] = {};
  int64_t j = 0;
  for (; j + G <= n; j += G)
    UNROLL for (int g = 0; g < G; g++) {
      const Vec here = load(rows.data + (j + g) * rows.stride);
      UNROLL for (int r = 0; r < R; r++) sum[r][g] += here * splat(x[r * stride + j + g]);
    }
  for (; j < n; j++) {
    const Vec here = load(rows.data + j * rows.stride);
    UNROLL for (int r = 0; r < R; r++) sum[r][0] += here * splat(x[r * stride + j]);
  }
  UNROLL for (int r = 0; r < R; r++) {
    Vec total = load(out + r * LANES) * splat(alpha[r]);
    UNROLL for (int g = 0; g < G; g++) total += sum[r][g];
    store(out + r * LANES, total);
  }
}

}  // namespace
}  // namespace clearhead
