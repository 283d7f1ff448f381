// A linear layer, out = x weightᵀ + bias, on the same micro-kernel: outputs in the lanes, rows of x by broadcast.
// Weights are turned into panels of kTile outputs as they are read, so nothing is kept and nothing can go stale; a
// panel serves every row of x, which makes turning it a few per cent of the work.
#pragma once
#include "product.h"
#include "turn.h"

namespace clearhead {
namespace {

constexpr int64_t kInputBlock = 384;  // at most so many inputs a step: a panel of them stays in a 32 KiB cache
constexpr int64_t kRowBlock = 96;     // rows of x that meet the panels while they lie in the second-level cache

inline size_t panel_floats(const Linear& p, int64_t outputs) { return round_up(outputs, kTile) * p.inputs; }

size_t linear_scratch(const Linear& p, int64_t outputs) {
  const int64_t wide = round_up(outputs, kTile);
  return panel_floats(p, outputs) + kRowBlock * (kInputBlock + wide) + larger(turn_space(p.inputs), wide);
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

// Outputs first .. first + outputs - 1 of rows start .. stop - 1.
void linear(const Linear& p, int64_t first, int64_t outputs, int64_t start, int64_t stop, float* scratch) {
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
      const Rows x = rows_as_float(part, p.dtype, 0, 0, row, rows, inputs, x_space);
      for (int64_t n = 0; n < wide; n += kTile) {
        const float* const panel = panels + n * p.inputs + k * kTile;
        if (k == 0) product<kAlong>(rows, x.data, x.stride, panel, kTile, inputs, Set{sums + n, wide});
        else product<kAlong>(rows, x.data, x.stride, panel, kTile, inputs, Add{sums + n, wide});
      }
    }
    for (int64_t i = 0; i < rows; i++) {
      float* const sum = sums + i * wide;
      if (p.bias) for (int64_t n = 0; n < outputs; n++) sum[n] += bias[n];
      store_heads(p, sum, row + i, first, outputs);
    }
  }
}

}  // namespace
}  // namespace clearhead
