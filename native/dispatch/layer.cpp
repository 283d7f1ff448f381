// What a layer needs besides attention, spread over threads: linear layers, and the weights for callers who want them.
#include <algorithm>

#include "dispatch/dispatch.h"
#include "dispatch/scratch.h"
#include "dispatch/threads.h"

namespace clearhead {

namespace {

constexpr int64_t kMostOutputs = 128, kLeastOutputs = 32, kLeastRows = 96;

int64_t ceiling(int64_t n, int64_t step) { return (n + step - 1) / step; }

}  // namespace

void run_linear(const Target& target, const Linear& p, int threads) {
  if (p.rows == 0 || p.outputs == 0) return;
  threads = useful_threads(double(p.rows) * p.inputs * p.outputs, threads);
  // Each item packs its own weights, so the outputs are split first, and the rows only if that is not enough.
  int64_t outputs = kMostOutputs, rows = p.rows;
  while (outputs > kLeastOutputs && ceiling(p.outputs, outputs) < 4 * threads) outputs /= 2;
  while (rows > kLeastRows && ceiling(p.outputs, outputs) * ceiling(p.rows, rows) < 2 * threads) rows = ceiling(rows, 2);
  const int64_t across = ceiling(p.outputs, outputs), items = across * ceiling(p.rows, rows);
  threads = threads_for(items, threads);
  const size_t each = in_lines(target.linear_scratch(p, outputs));
  const Scratch<float> scratch(each * threads);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items; item++) {
    const int64_t first = item % across * outputs, start = item / across * rows;
    target.linear(p, first, std::min(outputs, p.outputs - first), start, std::min(start + rows, p.rows),
                  scratch.get() + thread_number() * each);
  }
}

void run_weights(const Target& target, const Attention& p, const Tensor& weights, int threads,
                 const Statistics* statistics) {
  const int64_t heads = weights.head == 0 ? 1 : p.heads;
  threads = useful_threads(double(p.batch) * p.heads * p.length * p.keys * p.width, threads);
  // Rows of one work item: as in run_forward, but fewer, because the weights of all of them are kept.
  int64_t rows = 64;
  while (rows > target.row.lanes && p.batch * heads * ceiling(p.length, rows) < 4 * threads) rows /= 2;
  rows = std::max<int64_t>(rows, target.row.lanes);
  const int64_t blocks = ceiling(p.length, rows), items = p.batch * heads * blocks;
  threads = threads_for(items, threads);
  const size_t each = in_lines(target.weights_scratch(p, statistics, rows));
  const Scratch<float> scratch(each * threads);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items; item++) {
    const int64_t head = item / blocks, first = (blocks - 1 - item % blocks) * rows;
    target.weights(p, statistics, weights, head / heads, head % heads, first, std::min(rows, p.length - first),
                   scratch.get() + thread_number() * each);
  }
}

}  // namespace clearhead
