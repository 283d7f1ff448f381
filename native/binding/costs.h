// Where torch's function is faster than ours, from the costs that kernels/measured/costs.py knows. A table never changes:
// threads may read one while Python puts another in its place.
#pragma once
#include <nanobind/nanobind.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "arguments.h"

namespace clearhead {

class CostTable {
 public:
  // computed: the dtypes that a CPU target computes. tasks: (dtype, with gradients, queries, keys, call, head, work), where
  // queries and keys are the most that a call of the task has, and the others are the microseconds that torch's function
  // saves: a call, a head and a million multiply-adds of one thread. The first task that holds a call counts.
  CostTable(const nanobind::list& computed, const nanobind::list& tasks, double describing);

  // What torch's function must save where the fast path has only our kernel: what describing a call costs. With gradients
  // both kernels' backward passes are Python once the call is described, so a saving that is measured is none there.
  double least_saved(bool learns) const { return learns ? INFINITY : describing_; }

  // Whether a CPU target computes a dtype.
  bool computes(int dtype) const { return dtype >= 0 && dtype < kDtypes && computed_[dtype]; }

  // The microseconds that torch's function saves: negative where ours is faster, -infinity where no costs are known. In
  // doubles, which no shape overflows.
  double saved(int dtype, bool learns, double batch_heads, int64_t queries, int64_t keys, int64_t width, int threads) const;

 private:
  struct Task {
    int64_t queries, keys;
    double call, head, work;
  };
  static constexpr int kDtypes = kFloat64 + 1;
  const double describing_;
  bool computed_[kDtypes] = {};
  std::vector<Task> tasks_[kDtypes][2];
};

// Whether a program or the environment may have forced a CPU target, on which the costs depend: Python knows which.
bool may_be_forced();

// The table of costs in use, a CostTable, from the function that Python registered.
nanobind::object costs_in_use();

// The same without the GIL, for as long as no target is forced; null where Python has not given it yet.
const CostTable* unforced_costs();

void bind_costs(nanobind::module_&);

}  // namespace clearhead
