// The second pass spread over threads. Sums over queries are computed in fixed parts of each head, which are added in
// order: the bits are the same with any number of threads.
#include <algorithm>
#include <cstring>

#include "dispatch/dispatch.h"
#include "dispatch/scratch.h"
#include "dispatch/threads.h"

namespace clearhead {

namespace {

constexpr int64_t kItems = 32;      // at least so many work items, where heads are few
constexpr int64_t kLeastRows = 256;  // of one item

}  // namespace

void run_statistics(const Target& target, const Attention& p, const Statistics& s, int threads) {
  const int64_t heads = p.batch * p.heads, length = s.last_row - s.first_row;
  int64_t parts = 1;
  while (heads * parts < kItems && length / (parts * 2) >= kLeastRows) parts *= 2;
  const int64_t rows = ((length + parts - 1) / parts + 127) / 128 * 128;
  const int64_t items = heads * parts;
  threads = threads_for(items, threads);
  const size_t each = in_lines(target.statistics_scratch(p, s)), sums = target.statistics_sums(p, s);
  const Scratch<float> scratch(each * threads);
  const Numbers<float> all = allocate<float>(sums * items);
  std::memset(all.get(), 0, sums * items * sizeof(float));
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t item = 0; item < items; item++) {
    const int64_t head = item / parts, part = parts - 1 - item % parts;  // under a causal mask the last part is the longest
    const int64_t first = s.first_row + part * rows, last = std::min(first + rows, s.last_row);
    if (first < last)
      target.statistics(p, s, head / p.heads, head % p.heads, first, last, all.get() + sums * (head * parts + part),
                        scratch.get() + thread_number() * each);
  }
  const int64_t keys = s.received ? p.keys : 0, cells = int64_t(sums) - keys;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t head = 0; head < heads; head++)
    for (int64_t part = 0; part < parts; part++) {
      const float* const own = all.get() + sums * (head * parts + part);
      for (int64_t j = 0; j < keys; j++) s.received[head * keys + j] += own[j];
      float* const map = s.map + head * cells;
      for (int64_t c = 0; c < cells; c++) map[c] = s.by_maximum ? std::max(map[c], own[keys + c]) : map[c] + own[keys + c];
    }
}

}  // namespace clearhead
