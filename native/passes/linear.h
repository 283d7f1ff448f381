// A linear layer, out = x weightᵀ + bias, with the same microkernel: outputs in the lanes, rows of x by broadcast.
// Weights are packed into panels of kTile outputs on every call, so no packed copy can be out of date. A panel serves
// every row of x, so packing is a few percent of the work. With fewer than kFewRows rows the lanes run along the inputs
// instead, and nothing is packed.
#pragma once
#include "vector/dots.h"
#include "vector/product.h"
#include "vector/transpose.h"

namespace clearhead {
namespace {

constexpr int64_t kInputBlock = 384;  // inputs per step at most, so that a panel stays in a 32 KiB cache
constexpr int64_t kRowBlock = 96;     // rows of x multiplied while the panels are in the second-level cache

constexpr int64_t kFewRows = 12;      // from here on packing the weights pays off
constexpr int64_t kWeightRows = 16;   // rows of the weights multiplied by all rows of x at a time, where x has few

inline size_t panel_floats(const Linear& p, int64_t outputs) { return round_up(outputs, kTile) * p.inputs; }

size_t linear_scratch(const Linear& p, int64_t outputs) {
  const int64_t wide = round_up(outputs, kTile);
  if (p.rows < kFewRows) return p.rows * wide + (p.rows + kWeightRows) * round_up(p.inputs, kTile) + outputs;
  return panel_floats(p, outputs) + kRowBlock * (kInputBlock + wide) + larger(transpose_scratch(p.inputs), wide);
}

// Store a row's outputs, first .. first + n - 1, head by head.
inline void store_heads(const Linear& p, const float* sums, int64_t row, int64_t first, int64_t n) {
  const int64_t batch = row / p.length, place = row % p.length;
  for (int64_t at = 0; at < n;) {
    const int64_t head = (first + at) / p.width, column = (first + at) % p.width;
    const int64_t here = smaller(n - at, p.width - column);
    store_row(sums + at, here, p.dtype, element(row_of(p.out, p.dtype, batch, head, place), p.dtype, column));
    at += here;
  }
}

inline void add_bias_to_row(const Linear& p, const float* bias, int64_t outputs, float* sums) {
  if (p.bias) for (int64_t n = 0; n < outputs; n++) sums[n] += bias[n];
}

// Rows start .. stop - 1, where they are few; the weights are read in place.
inline void linear_of_few(const Linear& p, int64_t first, int64_t outputs, int64_t start, int64_t stop,
                          float* scratch) {
  constexpr int R = LANES > 8 ? 4 : 2;
  const int64_t rows = stop - start, stride = round_up(outputs, kTile), wide = round_up(p.inputs, kTile);
  float* const sums = scratch;  // [rows][stride]
  float* const x_space = sums + rows * stride;
  float* const space = x_space + rows * wide;
  float* const bias = space + kWeightRows * wide;
  if (p.bias) load_row(element(p.bias, p.dtype, first), p.dtype, 1, outputs, bias);
  const bool pairs = are_of<uint16_t>(p.weight, p.dtype);
  const float* x = x_space;
  if (p.dtype == kFloat32 && p.x.column == 1 && p.x.row == wide && p.inputs == wide)
    x = static_cast<const float*>(row_of(p.x, p.dtype, 0, 0, start));
  else
    for (int64_t i = 0; i < rows; i++) {
      float* const to = x_space + i * wide;
      load_with_gap(row_of(p.x, p.dtype, 0, 0, start + i), p.dtype, p.x.column, p.inputs, to);
      if (pairs) row_to_bfloat16_order(to, wide);
    }

  for (int64_t n = 0; n < outputs; n += kWeightRows) {
    const int64_t here = smaller(kWeightRows, outputs - n);
    with_rows(p.weight, p.dtype, 0, 0, first + n, here, p.inputs, space, [&](const auto& weight) {
      int64_t i = 0;
      for (; i + R <= rows; i += R) dots_side_by_side<R>(x + i * wide, wide, weight, here, sums + i * stride + n, stride);
      if (R > 2)  // two rows one after the other would read the weights twice
        for (; i + 2 <= rows; i += 2) dots_side_by_side<2>(x + i * wide, wide, weight, here, sums + i * stride + n, stride);
      for (; i < rows; i++) dots<1>(x + i * wide, wide, weight, here, sums + i * stride + n, stride);
    });
  }
  for (int64_t i = 0; i < rows; i++) {
    add_bias_to_row(p, bias, outputs, sums + i * stride);
    store_heads(p, sums + i * stride, start + i, first, outputs);
  }
}

// Outputs first .. first + outputs - 1 of rows start .. stop - 1.
void linear(const Linear& p, int64_t first, int64_t outputs, int64_t start, int64_t stop, float* scratch) {
  if (p.rows < kFewRows) return linear_of_few(p, first, outputs, start, stop, scratch);
  const int64_t wide = round_up(outputs, kTile);
  float* const panels = scratch;
  float* const sums = panels + panel_floats(p, outputs);  // [kRowBlock][wide]
  float* const x_space = sums + kRowBlock * wide;
  float* const space = x_space + kRowBlock * kInputBlock;
  for (int64_t n = 0; n < outputs; n += kTile)
    pack_lanes(p.weight, p.dtype, 0, 0, first + n, smaller(kTile, outputs - n), p.inputs, 1.0f, kTile,
               panels + n * p.inputs, space);
  float* const bias = space;
  if (p.bias) load_row(element(p.bias, p.dtype, first), p.dtype, 1, outputs, bias);

  const int64_t steps = (p.inputs + kInputBlock - 1) / kInputBlock, step = steps ? (p.inputs + steps - 1) / steps : 1;
  for (int64_t row = start; row < stop; row += kRowBlock) {
    const int64_t rows = smaller(kRowBlock, stop - row);
    if (p.inputs == 0) __builtin_memset(sums, 0, sizeof(float) * rows * wide);
    for (int64_t k = 0; k < p.inputs; k += step) {
      const int64_t inputs = smaller(step, p.inputs - k);
      Tensor part = p.x;
      part.data = const_cast<void*>(element(p.x.data, p.dtype, k * p.x.column));
      const Rows x = rows_as_real(part, p.dtype, 0, 0, row, rows, inputs, x_space);
      for (int64_t n = 0; n < wide; n += kTile) {
        const float* const panel = panels + n * p.inputs + k * kTile;
        if (k == 0) product<kAlong>(rows, x.data, x.stride, panel, kTile, inputs, Set{sums + n, wide});
        else product<kAlong>(rows, x.data, x.stride, panel, kTile, inputs, Add{sums + n, wide});
      }
    }
    for (int64_t i = 0; i < rows; i++) {
      float* const sum = sums + i * wide;
      add_bias_to_row(p, bias, outputs, sum);
      store_heads(p, sum, row + i, first, outputs);
    }
  }
}

}  // namespace
}  // namespace clearhead
