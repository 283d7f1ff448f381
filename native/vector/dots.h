// Dot products of rows that are read in place, with the lanes along the columns: for few rows against many, where
// transposing either into the lanes would take as long as multiplying them.
#pragma once
#include "vector/product.h"
#include "vector/rows.h"
#include "vector/shuffle.h"

namespace clearhead {
namespace {

// Add vectors in pairs until one is left, whose lane i is the total of v[i]; the shuffles are those of Eklundh's
// transposition.
template <int H>
inline __attribute__((always_inline)) void totals(Vec (&v)[LANES]) {
  UNROLL for (int i = 0; i < H; i++)
    v[i] = shuffle<UpperSquares<H>>(v[i], v[i + H]) + shuffle<LowerSquares<H>>(v[i], v[i + H]);
  if constexpr (H > 1) totals<H / 2>(v);
}

inline Real dot(const Real* a, const Real* b, int64_t n) {
  Vec sum = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sum += load(a + i) * load(b + i);
  Real total = total_of(sum);
  for (; i < n; i++) total += a[i] * b[i];
  return total;
}

// Load kTile columns as two vectors, in the order that loads fastest: for bfloat16 the even columns, then the odd ones.
inline void load_two(const Real* from, Vec (&x)[2]) {
  x[0] = load(from);
  x[1] = load(from + LANES);
}

typedef UInt UnalignedPair __attribute__((vector_size(LANES * kBytes), aligned(2), may_alias));

inline void load_two(const uint16_t* from, Vec (&x)[2]) {
  const VecU pairs = *reinterpret_cast<const UnalignedPair*>(from);
  x[0] = (Vec)(pairs << 16);
  x[1] = (Vec)(pairs & 0xFFFF0000u);
}

// A row whose width is no multiple of kTile is kept with a gap of zeros in front of its last columns, so that these fill
// the end of a pair of vectors. A tensor's row is read so in place: its last kTile columns, with 0 for those that were
// read before. Nothing outside the tensor is read.
inline int64_t whole_columns(int64_t width) { return width / kTile * kTile; }

inline void load_with_gap(const void* from, Dtype dtype, int64_t stride, int64_t width, Real* to) {
  const int64_t whole = whole_columns(width), gap = round_up(width, kTile) - width;
  load_row(from, dtype, stride, whole, to);
  for (int64_t c = 0; c < gap; c++) to[whole + c] = 0;
  load_row(element(from, dtype, whole * stride), dtype, stride, width - whole, to + whole + gap);
}

// Which of the last kTile columns of a row are kept: all bits of those that no whole pair of vectors holds.
template <class T>
struct Kept {
  VecU first, second;  // for the two vectors of load_two()

  explicit Kept(int64_t width) {
    const VecI from = splat_int(Int(kTile - (width - whole_columns(width)))), lane = lane_numbers();
    first = (VecU)((sizeof(T) == 2 ? 2 * lane : lane) >= from);
    second = (VecU)((sizeof(T) == 2 ? 2 * lane + 1 : lane + LANES) >= from);
  }
};

template <class T>
inline void load_kept(const T* from, const Kept<T>& kept, Vec (&x)[2]) {
  load_two(from, x);
  x[0] = (Vec)((VecU)x[0] & kept.first);
  x[1] = (Vec)((VecU)x[1] & kept.second);
}

// Reorder floats into the order of bfloat16's load_two(), and back from the order of T.
inline void from_order_of(const Real*, Vec (&)[2]) {}

inline void to_bfloat16_order(Vec (&x)[2]) {
  const Vec first = shuffle<EvenLanes>(x[0], x[1]);
  x[1] = shuffle<OddLanes>(x[0], x[1]);
  x[0] = first;
}

inline void row_to_bfloat16_order(Real* row, int64_t width) {
  for (int64_t c = 0; c < width; c += kTile) {
    Vec two[2];
    load_two(row + c, two);
    to_bfloat16_order(two);
    store(row + c, two[0]);
    store(row + c + LANES, two[1]);
  }
}

inline void from_order_of(const uint16_t*, Vec (&x)[2]) {
  const Vec first = shuffle<InterleavedLow>(x[0], x[1]);
  x[1] = shuffle<InterleavedHigh>(x[0], x[1]);
  x[0] = first;
}

// Rows of one element type with contiguous columns: whole pairs of vectors, and perhaps the rest of a row.
template <class T>
struct RowsOf {
  const T* data;
  int64_t stride, width;
  Kept<T> kept;

  RowsOf(const T* data, int64_t stride, int64_t width) : data(data), stride(stride), width(width), kept(width) {}

  RowsOf from(int64_t row) const {
    RowsOf rows = *this;
    rows.data += row * stride;
    return rows;
  }

  // Call act(column, read) for each pair of vectors: read(row, x) loads those columns, counted with the gap.
  template <class Act>
  inline __attribute__((always_inline)) void for_columns(const Act& act) const {
    const int64_t whole = whole_columns(width);
    for (int64_t c = 0; c < whole; c += kTile) act(c, [c](const T* row, Vec (&x)[2]) { load_two(row + c, x); });
    if (whole < width)
      act(whole, [this](const T* row, Vec (&x)[2]) { load_kept(row + width - kTile, kept, x); });
  }
};

// R queries times n keys: x[r * stride + j]. `query` is in T's order, `width` columns with the gap.
template <int R, class T>
inline void dots(const Real* query, int64_t width, const RowsOf<T>& keys, int64_t n, Real* x, int64_t stride) {
  // LANES sums are totaled together. One query reads key after key, which suits the prefetcher; two queries use two keys
  // at once, so that the queries are loaded less often.
  constexpr int K = LANES / R, G = R == 2 ? 2 : 1;
  static_assert(K % G == 0, "whole groups of keys");
  int64_t j = 0;
  for (; j + K <= n; j += K) {
    Vec sum[LANES];
    UNROLL for (int k = 0; k < K; k += G) {
      const T* key = keys.data + (j + k) * keys.stride;
      Vec part[G][R][2] = {};
      keys.for_columns([&](int64_t c, const auto& read) {
        UNROLL for (int g = 0; g < G; g++) {
          Vec here[2];
          read(key + g * keys.stride, here);
          UNROLL for (int r = 0; r < R; r++) {
            part[g][r][0] += here[0] * load(query + r * width + c);
            part[g][r][1] += here[1] * load(query + r * width + c + LANES);
          }
        }
      });
      UNROLL for (int g = 0; g < G; g++)
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k + g] = part[g][r][0] + part[g][r][1];
    }
    totals<LANES / 2>(sum);
    UNROLL for (int r = 0; r < R; r++)
      UNROLL for (int k = 0; k < K; k++) x[r * stride + j + k] = sum[0][r * K + k];
  }
  for (; j < n; j++)
    for (int r = 0; r < R; r++) {
      Vec sum = {};
      keys.for_columns([&](int64_t c, const auto& read) {
        Vec here[2];
        read(keys.data + j * keys.stride, here);
        sum += here[0] * load(query + r * width + c) + here[1] * load(query + r * width + c + LANES);
      });
      x[r * stride + j] = total_of(sum);
    }
}

// The same for R rows of x and as many of `rows` as give LANES sums: enough to hide the latency of a multiply-add, with
// as few loads as possible.
template <int R, class T>
inline void dots_side_by_side(const Real* x, int64_t width, const RowsOf<T>& rows, int64_t n, Real* to,
                              int64_t stride) {
  constexpr int K = LANES / R;
  int64_t j = 0;
  for (; j + K <= n; j += K) {
    const T* const row = rows.data + j * rows.stride;
    Vec sum[LANES] = {};
    rows.for_columns([&](int64_t c, const auto& read) {
      Vec own[R][2];
      UNROLL for (int r = 0; r < R; r++) load_two(x + r * width + c, own[r]);
      UNROLL for (int k = 0; k < K; k++) {
        Vec here[2];
        read(row + k * rows.stride, here);
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k] += here[0] * own[r][0];
        UNROLL for (int r = 0; r < R; r++) sum[r * K + k] += here[1] * own[r][1];
      }
    });
    totals<LANES / 2>(sum);
    UNROLL for (int r = 0; r < R; r++)
      UNROLL for (int k = 0; k < K; k++) to[r * stride + j + k] = sum[0][r * K + k];
  }
  if (j < n) dots<R>(x, width, rows.from(j), n - j, to + j, stride);
}

// Whether a tensor's rows are contiguous numbers of T, which need no conversion.
template <class T>
inline bool are_of(const Tensor& t, Dtype dtype) {
  return t.column == 1 && dtype == (sizeof(T) == 2 ? kBFloat16 : kReal);
}

// Such rows: in place, unless kTile columns before the end of the first would begin before the tensor. Then they are
// copied to `space` with their gap.
template <class T>
inline RowsOf<T> rows_of(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                         int64_t width, Real* space) {
  const T* const from = static_cast<const T*>(row_of(t, dtype, batch, head, first));
  if (width == 0 || first * t.row + width >= kTile) return RowsOf<T>(from, t.row, width);
  T* const to = reinterpret_cast<T*>(space);
  const int64_t gap = kTile - width;
  for (int64_t i = 0; i < n; i++) {
    __builtin_memset(to + i * kTile, 0, gap * sizeof(T));
    __builtin_memcpy(to + i * kTile + gap, from + i * t.row, width * sizeof(T));
  }
  return RowsOf<T>(to, kTile, kTile);
}

// Call use() with rows first .. first + n - 1, in place or else in `space`, n rows of Real with their gap.
template <class Use>
inline void with_rows(const Tensor& t, Dtype dtype, int64_t batch, int64_t head, int64_t first, int64_t n,
                      int64_t width, Real* space, const Use& use) {
  if (are_of<Real>(t, dtype)) return use(rows_of<Real>(t, dtype, batch, head, first, n, width, space));
  if constexpr (kReal == kFloat32)
    if (are_of<uint16_t>(t, dtype)) return use(rows_of<uint16_t>(t, dtype, batch, head, first, n, width, space));
  const int64_t wide = round_up(width, kTile), whole = whole_columns(width), gap = wide - width;
  load_rows(t, dtype, batch, head, first, n, whole, space, wide);
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < gap; c++) space[i * wide + whole + c] = 0;
  Tensor rest = t;
  rest.data = const_cast<void*>(element(t.data, dtype, whole * t.column));
  load_rows(rest, dtype, batch, head, first, n, width - whole, space + whole + gap, wide);
  use(RowsOf<Real>(space, wide, wide));
}

}  // namespace
}  // namespace clearhead
