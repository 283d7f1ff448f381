// The microkernel: ROWS x 2 vectors of sums; each step multiplies one scalar of `a` by two vectors of `b`.
//   sums[r][lanes] = sum over k < n of a[k * step + r * across] * b[k * stride + lanes]
// `a` is read in place, by broadcast, so keys and values are not packed.
#pragma once
#include "vector/vector.h"

namespace clearhead {
namespace {

constexpr int kTile = 2 * LANES;  // queries, or columns, that one call covers

// Unit says which stride of `a` is 1: along k (a row of keys against the queries) or across rows.
enum Unit { kAlong, kAcross };

// How numbers are multiplied: one by one here, in pairs of bfloat16 in pairs.h. With V = 1 the second vector's sums are 0:
// half the work, where no lane of it is used.
template <int V = 2>
struct InReals {
  using A = Real;
  using B = Real;
  static constexpr int kSide = 1;  // numbers of `a` from one row to the next where rows are adjacent

  template <int R, Unit U>
  static inline __attribute__((always_inline)) void multiply(const Real* a, int64_t stride_a, const Real* b,
                                                             int64_t stride_b, int64_t n, Vec (&sum)[R][2]) {
    UNROLL for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = Vec{};
#pragma GCC unroll 4
    for (int64_t k = 0; k < n; k++) {
      Vec here[V];
      UNROLL for (int v = 0; v < V; v++) here[v] = load(b + k * stride_b + v * LANES);
      const Real* at = U == kAlong ? a + k : a + k * stride_a;
      UNROLL for (int r = 0; r < R; r++) {
        const Vec x = splat(at[U == kAlong ? r * stride_a : r]);
        UNROLL for (int v = 0; v < V; v++) sum[r][v] += x * here[v];
      }
    }
  }
};

struct Set {  // c = sums
  Real* c;
  int64_t stride;
  inline void operator()(int64_t row, Vec s0, Vec s1) const {
    store(c + row * stride, s0);
    store(c + row * stride + LANES, s1);
  }
};

struct Add {  // c += sums
  Real* c;
  int64_t stride;
  inline void operator()(int64_t row, Vec s0, Vec s1) const {
    Real* at = c + row * stride;
    store(at, load(at) + s0);
    store(at + LANES, load(at + LANES) + s1);
  }
};

struct Rescale {  // c = c * alpha + sums
  Real* c;
  int64_t stride;
  Vec alpha0, alpha1;
  inline void operator()(int64_t row, Vec s0, Vec s1) const {
    Real* at = c + row * stride;
    store(at, load(at) * alpha0 + s0);
    store(at + LANES, load(at + LANES) * alpha1 + s1);
  }
};

template <int R, Unit U, class How, class Finish>
inline void rows_of_product(int64_t row, const typename How::A* a, int64_t stride_a, const typename How::B* b,
                            int64_t stride_b, int64_t n, const Finish& finish) {
  Vec sum[R][2];
  How::template multiply<R, U>(a + row * (U == kAlong ? stride_a : How::kSide), stride_a, b, stride_b, n, sum);
  UNROLL for (int r = 0; r < R; r++) finish(row + r, sum[r][0], sum[r][1]);
}

template <int R, Unit U, class How, class Finish>
inline void last_rows(int64_t left, int64_t row, const typename How::A* a, int64_t stride_a,
                      const typename How::B* b, int64_t stride_b, int64_t n, const Finish& finish) {
  if constexpr (R > 0) {
    if (left == R) rows_of_product<R, U, How>(row, a, stride_a, b, stride_b, n, finish);
    else last_rows<R - 1, U, How>(left, row, a, stride_a, b, stride_b, n, finish);
  }
}

// All rows of one tile. The last rows are divided evenly between two calls, because a call of one or two rows would wait
// for its own sums.
template <Unit U, class How = InReals<>, class Finish>
inline __attribute__((noinline)) void product(int64_t rows, const typename How::A* a, int64_t stride_a,
                                              const typename How::B* b, int64_t stride_b, int64_t n,
                                              const Finish finish) {
  int64_t row = 0;
  for (; rows - row >= 2 * ROWS || rows - row == ROWS; row += ROWS)
    rows_of_product<ROWS, U, How>(row, a, stride_a, b, stride_b, n, finish);
  const int64_t half = rows - row > ROWS ? (rows - row) / 2 : 0;
  last_rows<ROWS, U, How>(half, row, a, stride_a, b, stride_b, n, finish);
  last_rows<ROWS, U, How>(rows - row - half, row + half, a, stride_a, b, stride_b, n, finish);
}

}  // namespace
}  // namespace clearhead
