#include "dispatch/dispatch.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "dispatch/cpu.h"
#include "dispatch/scratch.h"
#include "dispatch/threads.h"
#include "targets.h"

namespace clearhead {

#define DECLARE(name) extern const Target target_##name;
CLEARHEAD_TARGETS(DECLARE)
#undef DECLARE

namespace {

#define ADDRESS(name) &target_##name,
const Target* const kTargets[] = {CLEARHEAD_TARGETS(ADDRESS)};
#undef ADDRESS

// A row takes as long as some more multiply-adds, and a narrow one as long as one that fills its vectors.
constexpr double kOfRow = 4.5e3;

int useful_threads(const Attention& p, int lanes, int threads) {
  const double width = p.width > lanes ? p.width : lanes, value_width = p.value_width > lanes ? p.value_width : lanes;
  return useful_threads(double(p.batch) * p.heads * p.length * (p.keys * (width + value_width) + kOfRow), threads);
}

}  // namespace

int target_count() { return int(sizeof(kTargets) / sizeof(kTargets[0])); }

const Target& target_at(int index) {
  if (index < 0 || index >= target_count()) throw std::out_of_range("no such target");
  return *kTargets[index];
}

bool supported(const Target& target) { return cpu_supports(target.row.needs); }

namespace {

constexpr int64_t kPartKeys = 1024;  // fixed, so that the result does not depend on the number of threads

template <class Number>
void run_decode(const Passes<Number>& passes, const Attention& p, int threads) {
  // A short rest is left to the last part.
  const int64_t heads = p.batch * p.kv_heads, parts = p.keys < kPartKeys ? 1 : (p.keys + kPartKeys * 3 / 4) / kPartKeys;
  const int64_t items = heads * parts;
  threads = threads_for(items, threads);
  const size_t partial = in_lines(passes.decode_partial(p)), each = in_lines(passes.decode_scratch(p));
  const size_t all_partials = partial * heads * parts;
  const Scratch<Number> all(all_partials + each * threads);
  Number *const partials = all.get(), *const scratch = partials + all_partials;
  const int64_t chunk = items / (8 * threads) + 1;  // one item may take less than a microsecond
  const auto merge = [&](int64_t head) {
    passes.decode_merge(p, head / p.kv_heads, head % p.kv_heads, parts, partials + partial * head * parts, partial,
                        scratch + thread_number() * each);
  };
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(dynamic, chunk)
    for (int64_t item = 0; item < items; item++) {
      const int64_t head = item / parts, first = item % parts * kPartKeys;
      const int64_t last = item % parts + 1 < parts ? first + kPartKeys : p.keys;
      passes.decode(p, head / p.kv_heads, head % p.kv_heads, first, last, partials + partial * item,
                    scratch + thread_number() * each);
      if (parts == 1) merge(head);  // by the thread that has it in its cache
    }
    if (parts > 1) {
#pragma omp for schedule(static)
      for (int64_t head = 0; head < heads; head++) merge(head);
    }
  }
}

// Queries that would leave a vector of the last tile nearly empty are attended as few queries are, for a fraction of the
// time; by the same work item, which has their keys in its cache. But an exact lse is for the backward pass, whose logits
// are sums in the order of tiles; float64 may have one in either case.
int64_t rest_of_tiles(const Attention& p, int lanes) {
  const int64_t vector = lanes / 2, rest = p.length % vector;
  const bool is_exact = p.dtype == kFloat64 || (p.lse.data && p.lse_dtype == kFloat64);
  return !is_exact && rest <= kFewQueries / 2 && p.length > vector ? rest : 0;
}

int64_t bytes_of(Dtype dtype) { return dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2; }

void skip_rows(Tensor& t, int64_t rows, int64_t bytes) {
  if (t.data) t.data = static_cast<char*>(t.data) + rows * t.row * bytes;
}

Attention last_queries(Attention p, int64_t n) {
  const int64_t first = p.length - n, bytes = bytes_of(p.dtype);
  skip_rows(p.query, first, bytes);
  skip_rows(p.out, first, bytes);
  skip_rows(p.lse, first, bytes_of(p.lse_dtype));
  skip_rows(p.allow, first, 1);
  skip_rows(p.bias, first, bytes_of(p.bias_dtype));
  p.first_query += first;
  p.length = n;
  return p;
}

template <class Number>
void run_tiles(const Passes<Number>& passes, const Attention& all, int lanes, int threads, const Statistics* statistics) {
  const size_t tiled = in_lines(passes.tiled_keys(all));
  const int64_t rest = tiled || statistics ? 0 : rest_of_tiles(all, lanes);
  const Attention few = last_queries(all, rest);
  Attention p = all;
  p.length -= rest;
  // Rows of one work item: many, so that several tiles find a block of keys in cache; fewer where threads would be idle.
  int64_t rows = 128;
  while (rows > lanes && p.batch * p.heads * ((p.length + rows - 1) / rows) < 4 * threads) rows /= 2;
  if (rows < lanes) rows = lanes;
  const int64_t blocks = (p.length + rows - 1) / rows, items = p.batch * p.heads * blocks;
  const size_t partial = rest ? in_lines(passes.decode_partial(few)) : 0;
  const size_t for_few = rest ? partial + in_lines(passes.decode_scratch(few)) : 0;
  const size_t each = std::max(in_lines(passes.forward_scratch(p, statistics, rows)), for_few);
  const int64_t kv_heads = p.batch * p.kv_heads, group = p.heads / p.kv_heads;
  constexpr int64_t kPart = 8;  // blocks of keys packed by one work item
  const int64_t key_blocks = (p.keys + kTiledKeys - 1) / kTiledKeys, parts = (key_blocks + kPart - 1) / kPart;
  threads = threads_for(std::max(items, tiled ? kv_heads * parts : 0), threads);
  const Scratch<Number> space(each * threads + tiled * kv_heads);
  Number *const scratch = space.get(), *const tiles = scratch + each * threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    if (tiled) {
#pragma omp for schedule(static)
      for (int64_t item = 0; item < kv_heads * parts; item++) {
        const int64_t head = item / parts, block = item % parts * kPart;
        passes.tile_keys(p, head / p.kv_heads, head % p.kv_heads, block,
                         block + kPart < key_blocks ? block + kPart : key_blocks, tiles + tiled * head);
      }
    }
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < items; item++) {
      // The last block of a causal head is the longest, so it goes first.
      const int64_t head = item / blocks, first = (blocks - 1 - item % blocks) * rows;
      const int64_t here = first + rows < p.length ? rows : p.length - first;
      passes.forward(p, statistics, head / p.heads, head % p.heads, first, here, tiles + tiled * (head / group),
                     scratch + thread_number() * each);
      if (rest == 0 || item % blocks != 0 || (head + 1) % group != 0) continue;
      Number *const result = scratch + thread_number() * each, *const own = result + partial;
      const int64_t kv_head = head % p.heads / group;
      passes.decode(few, head / p.heads, kv_head, 0, few.keys, result, own);
      passes.decode_merge(few, head / p.heads, kv_head, 1, result, partial, own);
    }
  }
}

}  // namespace

void run_forward(const Target& target, const Attention& p, int threads, const Statistics* statistics) {
  threads = useful_threads(p, target.row.lanes, threads);
  const auto run = [&](const auto& passes) {
    if (p.length <= kFewQueries && !statistics) run_decode(passes, p, threads);
    else run_tiles(passes, p, target.row.lanes, threads, statistics);
  };
  p.dtype == kFloat64 ? run(*target.doubles) : run(target.floats);
}

namespace {

struct KeyHead {
  int64_t batch, kv_head;
};

// Heads that share a learned bias add to the same numbers of its gradient, so they run in rounds: then the order of the
// sum, and its bits, do not depend on the threads. The heads of one round share nothing. If no heads share a bias, one
// round has them all.
class Rounds {
 public:
  Rounds(const Attention& p, const Gradients& g)
      : batches_(shares(g) && g.grad_bias.batch == 0 ? p.batch : 1),
        kv_heads_(shares(g) && g.grad_bias.head == 0 ? p.kv_heads : 1),
        width_(p.kv_heads / (kv_heads_ ? kv_heads_ : 1)),
        heads_(p.batch / (batches_ ? batches_ : 1) * width_) {}

  int64_t count() const { return batches_ * kv_heads_; }
  int64_t heads() const { return heads_; }  // of one round
  KeyHead at(int64_t round, int64_t head) const {
    return {round / kv_heads_ + head / width_, round % kv_heads_ + head % width_};
  }

 private:
  static bool shares(const Gradients& g) { return g.grad_bias.data && g.grad_bias.row != 0; }
  int64_t batches_, kv_heads_, width_, heads_;
};

// How many work items the backward pass of a few long heads is split into; each has sums as large as keys and values. So
// parts have many rows; but a head that is alone is split in two sooner, for otherwise one thread would do all the work.
constexpr int64_t kBackwardItems = 8, kRowsOfPart = 128, kRowsOfTwo = 96, kWholeRows = 32;

template <class Number>
void run_queries(const Passes<Number>& passes, const Attention& p, const Gradients& g, int threads) {
  // One item is a key head and a run of queries. Many heads are enough items. For few heads the queries are split into
  // parts, each part is summed separately, and the parts are added in order. The parts depend only on the problem, so
  // the bits are the same with any number of threads.
  const Rounds rounds(p, g);
  const int64_t heads = rounds.heads();
  int64_t parts = 1;
  if (heads == 1 && p.length > kWholeRows && p.length * p.heads / p.kv_heads >= kRowsOfTwo) parts = 2;
  while (heads * parts < kBackwardItems && p.length / (parts * 2) >= kRowsOfPart) parts *= 2;
  const int64_t rows = ((p.length + parts - 1) / parts + kWholeRows - 1) / kWholeRows * kWholeRows;
  threads = threads_for(heads * parts, threads);
  const size_t sums = in_lines(passes.key_sums(p, g)), each = in_lines(passes.backward_scratch(p));
  const Scratch<Number> all(each * threads + sums * (parts == 1 ? threads : heads * parts));
  Number *const scratch = all.get(), *const all_sums = scratch + each * threads;
  for (int64_t round = 0; round < rounds.count(); round++) {
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t item = 0; item < heads * parts; item++) {
      const KeyHead at = rounds.at(round, item / parts);
      const int64_t first = (parts - 1 - item % parts) * rows, last = first + rows < p.length ? first + rows : p.length;
      Number* const own =
          all_sums + sums * (parts == 1 ? thread_number() : item / parts * parts + first / (rows ? rows : 1));
      std::memset(own, 0, sums * sizeof(Number));
      passes.backward(p, g, at.batch, at.kv_head, first, last, own, scratch + thread_number() * each);
      if (parts == 1) passes.store_key_sums(p, g, at.batch, at.kv_head, own);
    }
    if (parts == 1) continue;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && heads > 1)
    for (int64_t head = 0; head < heads; head++) {
      Number* const total = all_sums + sums * head * parts;
      for (int64_t part = 1; part < parts; part++)
        for (size_t i = 0; i < sums; i++) total[i] += total[sums * part + i];
      const KeyHead at = rounds.at(round, head);
      passes.store_key_sums(p, g, at.batch, at.kv_head, total);
    }
  }
}

}  // namespace

void run_backward(const Target& target, const Attention& p, const Gradients& g, int threads) {
  threads = useful_threads(p, target.row.lanes, threads);
  p.dtype == kFloat64 ? run_queries(*target.doubles, p, g, threads) : run_queries(target.floats, p, g, threads);
}

double run_peak(const Target& target, int64_t steps, int threads) {
  double done = 0;
#pragma omp parallel for reduction(+ : done) schedule(static) num_threads(threads)
  for (int thread = 0; thread < threads; thread++) done += target.multiply_adds(steps);
  return done;
}

}  // namespace clearhead
